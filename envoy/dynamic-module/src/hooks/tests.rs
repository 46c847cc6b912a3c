//! Calls the hooks as Envoy does, with a test host, so that a sanitizer can check the memory accesses. Other tests
//! check the behavior in real Envoys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr::null;

use super::envoy_dynamic_module_on_program_init;
use super::http::{
    envoy_dynamic_module_on_http_filter_config_destroy, envoy_dynamic_module_on_http_filter_config_new,
    envoy_dynamic_module_on_http_filter_destroy, envoy_dynamic_module_on_http_filter_new,
    envoy_dynamic_module_on_http_filter_per_route_config_destroy,
    envoy_dynamic_module_on_http_filter_per_route_config_new, envoy_dynamic_module_on_http_filter_request_headers,
};
use super::network::{
    envoy_dynamic_module_on_network_filter_config_destroy, envoy_dynamic_module_on_network_filter_config_new,
    envoy_dynamic_module_on_network_filter_destroy, envoy_dynamic_module_on_network_filter_event,
    envoy_dynamic_module_on_network_filter_new, envoy_dynamic_module_on_network_filter_new_connection,
    envoy_dynamic_module_on_network_filter_read,
};
use crate::abi::{Buffer, Pair};

/// Memory that the host lends to the module. It is on the heap, so that a sanitizer detects an access beyond its end.
type Text = Box<[u8]>;

/// A request or connection.
struct Host {
    headers: Vec<(Text, Text)>,
    state: BTreeMap<Text, Text>,
    namespaces: Vec<Text>,
    sans: Vec<Text>,
    tls: bool,
    route: Cell<*const c_void>,
    /// The dynamic metadata, and the filter state that the module sets.
    metadata: RefCell<BTreeMap<Text, Text>>,
    counted: Cell<u64>,
    forbidden: Cell<u32>,
    continued: Cell<bool>,
    /// The status and the details of the response, or the details of the close.
    denied: RefCell<Option<(u32, Text)>>,
}

fn text(text: impl AsRef<[u8]>) -> Text {
    text.as_ref().into()
}

impl Host {
    fn new(path: &str) -> Self {
        let headers = [(":method", "GET"), (":path", path), (":authority", "a"), ("x-role", "\u{e4}")];
        Self {
            headers: headers.map(|(name, value)| (text(name), text(value))).into(),
            state: BTreeMap::new(),
            namespaces: Vec::new(),
            sans: Vec::new(),
            tls: true,
            route: Cell::new(null()),
            metadata: RefCell::default(),
            counted: Cell::new(0),
            forbidden: Cell::new(1),
            continued: Cell::new(false),
            denied: RefCell::default(),
        }
    }

    fn with_state(mut self, key: &str, value: &str) -> Self {
        self.state.insert(text(key), text(value));
        self
    }

    fn pointer(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }

    fn details(&self) -> Option<String> {
        self.denied.borrow().as_ref().map(|(_, details)| String::from_utf8_lossy(details).into_owned())
    }
}

/// Returns the host of a pointer.
unsafe fn host<'h>(pointer: *mut c_void) -> &'h Host {
    // SAFETY: the tests give `Host::pointer`, and keep the host.
    unsafe { &*pointer.cast::<Host>() }
}

/// Lends `value` to the module.
unsafe fn lend(value: Option<&Text>, to: *mut Buffer<'_>) -> bool {
    let Some(value) = value else { return false };
    // SAFETY: the module passes a valid pointer, and the host keeps the text during the hook.
    unsafe { to.write(Buffer::of(std::slice::from_raw_parts(value.as_ptr(), value.len()))) };
    true
}

unsafe fn owned(buffer: Buffer<'_>) -> Text {
    // SAFETY: the module keeps it while the call runs.
    unsafe { buffer.get() }.into()
}

/// Defines the callbacks. Each is sound if the module follows the interface, which the tests check.
macro_rules! callbacks {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(unused_unsafe, reason = "some take nothing that must be trusted")]
            unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                // SAFETY: see above.
                unsafe { $body }
            }
        )*
    };
}

/// The numbers of the counters of requests.
const ALLOWED: usize = 6;
const DECISIONS: usize = 7;

callbacks! {
    envoy_dynamic_module_callback_http_filter_config_define_counter(
        _c: *mut c_void, name: Buffer<'_>, labels: *const Buffer<'_>, count: usize, id: *mut usize
    ) -> c_int {
        let labels = std::slice::from_raw_parts(labels, count);
        assert!(labels.iter().all(|label| label.get().starts_with(b"spiffe_authz_")));
        id.write(match (name.get(), count) {
            (b"spiffe_authz_allowed", 0) => ALLOWED,
            (b"spiffe_authz_decisions", 4) => DECISIONS,
            (name, count) => panic!("{}: {count}", String::from_utf8_lossy(name)),
        });
        0
    }
    envoy_dynamic_module_callback_http_filter_increment_counter(
        f: *mut c_void, id: usize, values: *const Buffer<'_>, count: usize, by: u64
    ) -> c_int {
        assert_eq!(count, if id == ALLOWED { 0 } else { 4 });
        assert!([ALLOWED, DECISIONS].contains(&id));
        assert!(std::slice::from_raw_parts(values, count).iter().all(|value| !value.get().is_empty()));
        host(f).counted.set(host(f).counted.get() + by);
        0
    }
    envoy_dynamic_module_callback_http_filter_send_go_away_and_close(_f: *mut c_void, _graceful: bool) -> () {}
    envoy_dynamic_module_callback_http_filter_get_worker_index(_f: *mut c_void) -> u32 { 3 }
    envoy_dynamic_module_callback_http_filter_get_attribute_string(
        _f: *mut c_void, _id: c_int, _to: *mut Buffer<'_>
    ) -> bool { false }
    envoy_dynamic_module_callback_http_filter_get_attribute_int(_f: *mut c_void, _id: c_int, to: *mut u64) -> bool {
        to.write(8443);
        true
    }
    envoy_dynamic_module_callback_http_filter_get_attribute_bool(f: *mut c_void, _id: c_int, to: *mut bool) -> bool {
        to.write(!host(f).sans.is_empty());
        true
    }
    envoy_dynamic_module_callback_http_get_header(
        f: *mut c_void, _map: c_int, name: Buffer<'_>, to: *mut Buffer<'_>, _index: usize, count: *mut usize
    ) -> bool {
        assert!(count.is_null());
        lend(host(f).headers.iter().find(|(found, _)| **found == *name.get()).map(|(_, value)| value), to)
    }
    envoy_dynamic_module_callback_http_get_headers_size(f: *mut c_void, _map: c_int) -> usize { host(f).headers.len() }
    envoy_dynamic_module_callback_http_get_headers(f: *mut c_void, _map: c_int, to: *mut Pair<'_>) -> bool {
        for (place, (name, value)) in host(f).headers.iter().enumerate() {
            let pair = to.add(place);
            lend(Some(name), &raw mut (*pair).key);
            lend(Some(value), &raw mut (*pair).value);
        }
        true
    }
    envoy_dynamic_module_callback_http_get_filter_state_bytes(
        f: *mut c_void, key: Buffer<'_>, to: *mut Buffer<'_>
    ) -> bool { lend(host(f).state.get(key.get()), to) }
    envoy_dynamic_module_callback_http_set_filter_state_bytes(
        f: *mut c_void, key: Buffer<'_>, value: Buffer<'_>
    ) -> bool {
        host(f).metadata.borrow_mut().insert(owned(key), owned(value));
        true
    }
    envoy_dynamic_module_callback_http_get_metadata_namespaces_count(f: *mut c_void, _source: c_int) -> usize {
        host(f).namespaces.len()
    }
    envoy_dynamic_module_callback_http_get_metadata_namespaces(
        f: *mut c_void, _source: c_int, to: *mut Buffer<'_>
    ) -> bool {
        host(f).namespaces.iter().enumerate().all(|(place, name)| lend(Some(name), to.add(place)))
    }
    envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        f: *mut c_void, _namespace: Buffer<'_>, key: Buffer<'_>, value: Buffer<'_>
    ) -> () {
        host(f).metadata.borrow_mut().insert(owned(key), owned(value));
    }
    envoy_dynamic_module_callback_http_send_response(
        f: *mut c_void, status: u32, headers: *const Pair<'_>, count: usize, body: Buffer<'_>, details: Buffer<'_>
    ) -> () {
        assert!(count == 0 || !headers.is_null());
        assert!(!body.get().is_empty());
        *host(f).denied.borrow_mut() = Some((status, owned(details)));
    }
    envoy_dynamic_module_callback_get_most_specific_route_config(f: *mut c_void) -> *const c_void {
        host(f).route.get()
    }
    envoy_dynamic_module_callback_network_filter_config_define_counter(
        c: *mut c_void, name: Buffer<'_>, id: *mut usize
    ) -> c_int {
        if let Some(defined) = c.cast::<RefCell<Vec<Box<[u8]>>>>().as_ref() {
            defined.borrow_mut().push(owned(name));
        }
        id.write(name.get().len());
        0
    }
    envoy_dynamic_module_callback_network_filter_increment_counter(f: *mut c_void, _id: usize, by: u64) -> c_int {
        host(f).counted.set(host(f).counted.get() + by);
        0
    }
    envoy_dynamic_module_callback_network_filter_get_worker_index(_f: *mut c_void) -> u32 { 70 }
    envoy_dynamic_module_callback_network_filter_is_ssl(f: *mut c_void) -> bool { host(f).tls }
    envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans_size(f: *mut c_void) -> usize { host(f).sans.len() }
    envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans(f: *mut c_void, to: *mut Buffer<'_>) -> bool {
        host(f).sans.iter().enumerate().all(|(place, san)| lend(Some(san), to.add(place)))
    }
    envoy_dynamic_module_callback_network_filter_get_ssl_subject(_f: *mut c_void, _to: *mut Buffer<'_>) -> bool { false }
    envoy_dynamic_module_callback_network_filter_get_requested_server_name(
        _f: *mut c_void, _to: *mut Buffer<'_>
    ) -> bool { false }
    envoy_dynamic_module_callback_network_filter_get_direct_remote_address(
        f: *mut c_void, to: *mut Buffer<'_>, port: *mut u32
    ) -> bool {
        port.write(9);
        lend(host(f).state.get(b"address".as_slice()), to)
    }
    envoy_dynamic_module_callback_network_filter_get_remote_address(
        _f: *mut c_void, _to: *mut Buffer<'_>, _port: *mut u32
    ) -> bool { false }
    envoy_dynamic_module_callback_network_filter_get_local_address(
        _f: *mut c_void, _to: *mut Buffer<'_>, _port: *mut u32
    ) -> bool { false }
    envoy_dynamic_module_callback_network_get_filter_state_bytes(
        f: *mut c_void, key: Buffer<'_>, to: *mut Buffer<'_>
    ) -> bool { lend(host(f).state.get(key.get()), to) }
    envoy_dynamic_module_callback_network_set_filter_state_bytes(
        f: *mut c_void, key: Buffer<'_>, value: Buffer<'_>
    ) -> bool {
        host(f).metadata.borrow_mut().insert(owned(key), owned(value));
        true
    }
    envoy_dynamic_module_callback_network_set_dynamic_metadata_string(
        f: *mut c_void, _namespace: Buffer<'_>, key: Buffer<'_>, value: Buffer<'_>
    ) -> () {
        host(f).metadata.borrow_mut().insert(owned(key), owned(value));
    }
    envoy_dynamic_module_callback_network_filter_read_enabled(f: *mut c_void) -> bool { host(f).forbidden.get() == 0 }
    envoy_dynamic_module_callback_network_filter_read_disable(f: *mut c_void, disable: bool) -> c_int {
        let count = host(f).forbidden.get();
        host(f).forbidden.set(if disable { count + 1 } else { count - 1 });
        0
    }
    envoy_dynamic_module_callback_network_filter_continue_reading(f: *mut c_void) -> () { host(f).continued.set(true); }
    envoy_dynamic_module_callback_network_filter_close_with_details(
        f: *mut c_void, _kind: c_int, details: Buffer<'_>
    ) -> () {
        *host(f).denied.borrow_mut() = Some((0, owned(details)));
    }
}

const NAME: Buffer<'_> = Buffer::of(crate::NAME.as_bytes());
const DOCUMENT: &str = r#"{
    "trustDomain": "example.org", "identity": {"peer": "optional"}, "outputs": {"decision": "both"},
    "policies": [
        {"name": "open", "rules": [{"to": [{"operation": {"paths": ["/open"]}}]}]},
        {"name": "role", "rules": [{"when": [{"key": "request.headers[x-role]", "values": ["*"]}],
                                    "to": [{"operation": {"paths": ["/role"]}}]}]},
        {"name": "token", "rules": [{"from": [{"source": {"requestPrincipals": ["i/s"]}}],
                                     "to": [{"operation": {"paths": ["/token"]}}]}]},
        {"name": "near", "rules": [{"from": [{"source": {"ipBlocks": ["192.0.2.0/24"]}}]}]}
    ]
}"#;
/// The configuration of a route from a different module.
static OTHER: u64 = 1;
const JWT: &str = "envoy.filters.http.jwt_authn";

/// Runs a request. Returns the details of the denial, or `None` if it is allowed.
fn request(config: *const c_void, host: &Host) -> Option<String> {
    let filter = envoy_dynamic_module_on_http_filter_new(config, host.pointer());
    let status = envoy_dynamic_module_on_http_filter_request_headers(host.pointer(), filter, true);
    envoy_dynamic_module_on_http_filter_destroy(filter);
    assert_eq!(status != 0, host.denied.borrow().is_some());
    assert!(host.denied.borrow().as_ref().is_none_or(|(status, _)| *status == 403));
    host.details()
}

#[test]
fn requests() {
    assert!(!envoy_dynamic_module_on_program_init().is_null());
    let new = |text: &str| {
        envoy_dynamic_module_on_http_filter_config_new(std::ptr::null_mut(), NAME, Buffer::of(text.as_bytes()))
    };
    for refused in ["", "{", "[]", r#"{"trustDomain": 7}"#] {
        assert!(new(refused).is_null(), "{refused}");
    }
    let config = new(DOCUMENT);
    let payload = r#"{"payload": {"iss": "i", "sub": "s"}}"#;
    let with_token = |host: Host| Host { namespaces: vec![text(JWT), text("\u{e4}")], ..host };
    let state = format!("spiffe_authz.metadata.{JWT}");
    let near = |host: Host| host.with_state("spiffe_authz.source_ip", "192.0.2.1");
    for (host, denial) in [
        (Host::new("/open"), None),
        (Host::new("/role"), None),
        (near(Host::new("/other")), None),
        (Host::new("/other"), Some("request-unreadable")),
        (Host::new("/other").with_state("spiffe_authz.source_ip", "198.51.100.1"), Some("no-policy-allows")),
        (with_token(Host::new("/token").with_state(&state, payload)), None),
        (with_token(Host::new("/token")), Some("request-unreadable")),
        (Host::new("/open").with_state("spiffe_authz.peer_certificate", "-"), None),
        (Host::new("/open").with_state("spiffe_authz.peer_certificate", "%ff"), Some("certificate-malformed")),
        (Host { sans: vec![text("x")], ..Host::new("/open") }, Some("peer-certificate-unreadable")),
    ] {
        let details = denial.map(|reason| format!("spiffe_authz_denied[{reason}]"));
        // Runs it twice, because the second run uses the cached caller.
        for _ in 0..2 {
            assert_eq!(request(config, &host), details);
        }
        assert_eq!(host.counted.get(), 2);
        let verdict = if denial.is_none() { "allow" } else { "deny" };
        assert_eq!(host.metadata.borrow()[b"verdict".as_slice()], text(verdict));
        let decision = &host.metadata.borrow()[b"spiffe_authz_decision".as_slice()];
        assert!(decision.starts_with(verdict.as_bytes()));
    }
    envoy_dynamic_module_on_http_filter_config_destroy(config.cast_mut());
}

#[test]
fn routes() {
    let config =
        envoy_dynamic_module_on_http_filter_config_new(std::ptr::null_mut(), NAME, Buffer::of(DOCUMENT.as_bytes()));
    let route =
        |text: &str| envoy_dynamic_module_on_http_filter_per_route_config_new(NAME, Buffer::of(text.as_bytes()));
    assert!(route("{}").is_null());
    let shadow = route(r#"{"mode": "shadow"}"#);
    let own = route(r#"{"configuration": {"trustDomain": "example.org", "policies": []}}"#);
    for (route, denial) in [
        (shadow, Some("spiffe_authz_denied[no-peer-certificate]")),
        // The route of a different module, whose first bytes differ from this module's, and one that is not aligned.
        ((&raw const OTHER).cast(), Some("spiffe_authz_denied[not-configured]")),
        (shadow.wrapping_byte_add(1), Some("spiffe_authz_denied[not-configured]")),
        (own, Some("spiffe_authz_denied[no-peer-certificate]")),
    ] {
        let host = Host::new("/other");
        host.route.set(route);
        let expected = if route == shadow { None } else { denial };
        assert_eq!(request(config, &host).as_deref(), expected);
    }
    for route in [shadow, own] {
        envoy_dynamic_module_on_http_filter_per_route_config_destroy(route.cast_mut());
    }
    envoy_dynamic_module_on_http_filter_config_destroy(config.cast_mut());
}

#[test]
fn connections() {
    const CONNECTED: c_int = 2;
    let new = |text: &str| {
        envoy_dynamic_module_on_network_filter_config_new(std::ptr::null_mut(), NAME, Buffer::of(text.as_bytes()))
    };
    assert!(new("{}").is_null());
    let config = new(DOCUMENT);
    // The document allows callers without a certificate. Over TLS, only the filter state proves that there is none.
    for (address, tls, certificate, allowed) in [
        ("192.0.2.1", true, Some("-"), true),
        ("192.0.2.1", true, None, false),
        ("192.0.2.1", false, None, true),
        ("198.51.100.1", true, Some("-"), false),
    ] {
        let host = Host { tls, ..Host::new("") }.with_state("address", address);
        let host = match certificate {
            Some(certificate) => host.with_state("spiffe_authz.peer_certificate", certificate),
            None => host,
        };
        let filter = envoy_dynamic_module_on_network_filter_new(config.cast_mut(), host.pointer());
        let read = || envoy_dynamic_module_on_network_filter_read(host.pointer(), filter, 1, false) == 0;
        let at_once = envoy_dynamic_module_on_network_filter_new_connection(host.pointer(), filter) == 0;
        assert_eq!((at_once, read()), (allowed && !tls, allowed && !tls));
        assert_eq!(host.forbidden.get(), u32::from(!tls), "reading, for the handshake");
        // A second event does not decide again.
        for _ in 0..2 {
            envoy_dynamic_module_on_network_filter_event(host.pointer(), filter, CONNECTED);
        }
        assert_eq!((read(), host.details().is_some()), (allowed, !allowed));
        assert_eq!((host.continued.get(), host.counted.get()), (allowed && tls, 1));
        assert!(host.metadata.borrow().contains_key(b"spiffe_authz_connection_decision".as_slice()));
        assert_eq!(host.forbidden.get(), u32::from(allowed || !tls));
        envoy_dynamic_module_on_network_filter_destroy(filter.cast_mut());
    }
    envoy_dynamic_module_on_network_filter_config_destroy(config.cast_mut());
}

#[test]
fn the_counters_of_connections_are_bounded() {
    let defined = |count: u32, outputs: &str| {
        let policy = |number| format!(r#"{{"name": "p{number}", "action": "DENY", "rules": [{{}}]}}"#);
        let policies: Vec<String> = (0..count).map(policy).collect();
        let text =
            format!(r#"{{"trustDomain": "example.org", "outputs": {outputs}, "policies": [{}]}}"#, policies.join(","));
        let names = RefCell::new(Vec::<Box<[u8]>>::new());
        let host = (&raw const names).cast_mut().cast();
        let config = envoy_dynamic_module_on_network_filter_config_new(host, NAME, Buffer::of(text.as_bytes()));
        assert!(!config.is_null());
        envoy_dynamic_module_on_network_filter_config_destroy(config.cast_mut());
        names.into_inner()
    };
    let of_policies = |names: &[Box<[u8]>]| {
        names.iter().filter(|name| !name.ends_with(b"_policy=.=none;.;spiffe_authz_decisions")).count()
    };
    // One counter has no label.
    assert_eq!(of_policies(&defined(1000, "{}")), 1001);
    let many = defined(1001, "{}");
    assert_eq!(of_policies(&many), 1);
    for (verdict, reason) in [("audit", "none"), ("deny", "denied-by-policy")] {
        let name = format!(
            "spiffe_authz_mode=.=enforce;.;spiffe_authz_verdict=.={verdict};.;spiffe_authz_reason=.={reason};.;\
             spiffe_authz_policy=.=none;.;spiffe_authz_decisions"
        );
        assert!(many.iter().any(|defined| **defined == *name.as_bytes()), "{name}");
    }
}

#[test]
fn a_panic_ends_in_the_hook() {
    assert_eq!(super::guarded(|| panic!("in a hook"), || 7), 7);
    assert_eq!(super::guarded(|| 6, || 7), 6);
}
