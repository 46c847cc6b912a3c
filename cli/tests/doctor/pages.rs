//! Pages made from the server's example, for checks of listeners and routes. No secret has arrived.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{codes, examined, example, examples, set};

/// The connection manager in the server's example, and the filter.
const MANAGER: &str = "/filter_chains/0/filters/1/typed_config";

const FILTER: &str = "/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config";

#[test]
fn a_dynamic_module_needs_the_certificate_in_filter_state() {
    let mut pages = Pages::module();
    assert_eq!(pages.found(), set(&[]));
    let state = pages.listener.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap();
    state["on_downstream_tls_handshake"] = json!([]);
    assert_eq!(pages.found(), set(&["peer-certificate-missing"]));
    // The certificate of the proxy.
    let configuration = pages.listener.pointer_mut(&format!("{FILTER}/filter_config/value")).unwrap();
    let identity = json!({"from": "xfcc", "trustedProxies": ["example.org/ns/edge/sa/gateway"]});
    *configuration = json!(json!({"trustDomain": "example.org", "policies": [], "identity": identity}).to_string());
    let pages = pages.manager("forward_client_cert_details", json!("FORWARD_ONLY"));
    assert_eq!(pages.found(), set(&["peer-certificate-missing"]));
}

/// Pages of an Envoy, made from the server's example.
pub(crate) struct Pages {
    pub(crate) bootstrap: Value,
    pub(crate) listener: Value,
    /// Discovered route tables.
    pub(crate) routes: Vec<Value>,
}

impl Pages {
    pub(crate) fn server() -> Self {
        let bootstrap = example(&examples().join("server/envoy.yaml"));
        let listener = bootstrap["static_resources"]["listeners"][0].clone();
        Self { bootstrap, listener, routes: Vec::new() }.release(1, 40, 0)
    }

    /// The same server with the dynamic module.
    pub(crate) fn module() -> Self {
        let mut pages = Self::server();
        let document = pages.listener.pointer(&format!("{FILTER}/config/configuration")).unwrap().clone();
        *pages.listener.pointer_mut(FILTER).unwrap() = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": "/etc/spiffe-authz/libspiffe_authz.so"}}},
            "filter_name": "spiffe_authz", "filter_config": document
        });
        let state = pages.listener.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap();
        state["on_downstream_tls_handshake"] = json!([{"object_key": "spiffe_authz.peer_certificate"}]);
        pages
    }

    fn release(mut self, major: u64, minor: u64, patch: u64) -> Self {
        let version = json!({"major_number": major, "minor_number": minor, "patch": patch});
        self.bootstrap["node"]["user_agent_build_version"] = json!({"version": version});
        self
    }

    fn manager(mut self, field: &str, value: Value) -> Self {
        let manager = self.listener.pointer_mut(MANAGER).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            manager.remove(field);
        } else {
            manager.insert(field.to_owned(), value);
        }
        self
    }

    /// The document with this rule.
    fn rule(mut self, rule: &Value) -> Self {
        let document = json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]});
        *self.listener.pointer_mut(&format!("{FILTER}/config/configuration/value")).unwrap() =
            json!(document.to_string());
        self
    }

    /// The HTTP filters of this list before that of this project, and those of the other list after it.
    fn filters(self, before: &[&Value], after: &[&Value]) -> Self {
        let own = self.listener.pointer(MANAGER).unwrap()["http_filters"].as_array().unwrap().clone();
        let all = before.iter().copied().chain([&own[0]]).chain(after.iter().copied()).chain(&own[1..]);
        let all: Vec<Value> = all.cloned().collect();
        self.manager("http_filters", json!(all))
    }

    /// The whole report.
    pub(crate) fn report(&self) -> Value {
        examined(&self.bootstrap, &self.listener, &self.routes)
    }

    /// The codes of errors and warnings, without the secrets, which have not arrived.
    fn found(&self) -> BTreeSet<String> {
        let mut found = codes(&self.report());
        assert!(found.remove("secret-missing"), "{found:?}");
        found
    }
}

fn path_rule() -> Value {
    json!({"to": [{"operation": {"paths": ["/admin"]}}]})
}

#[test]
fn releases_of_envoy_are_checked() {
    for (minor, patch, code) in [(37, 9, "envoy-unsupported"), (38, 3, "envoy-vulnerable"), (39, 2, "envoy-vulnerable")]
    {
        assert_eq!(Pages::server().release(1, minor, patch).found(), set(&[code]), "1.{minor}.{patch}");
        assert_eq!(Pages::module().release(1, minor, patch).found(), set(&[code]), "1.{minor}.{patch}");
    }
    for (minor, patch) in [(38, 4), (39, 3), (40, 0)] {
        assert_eq!(Pages::server().release(1, minor, patch).found(), set(&[]), "1.{minor}.{patch}");
    }
    assert_eq!(Pages::server().release(1, 41, 0).found(), set(&[]));
    assert_eq!(Pages::module().release(1, 41, 0).found(), set(&["envoy-unsupported"]));

    let mut unknown = Pages::server();
    unknown.bootstrap["node"]["user_agent_build_version"] = json!(null);
    let report = unknown.report();
    assert_eq!((&report["envoy"], codes(&report)), (&Value::Null, set(&["secret-missing"])));
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["code"] == "envoy-release-unknown"), "{findings:?}");
}

#[test]
fn upgrades_have_chains_of_their_own() {
    let pages = Pages::server();
    let filters = pages.listener.pointer(MANAGER).unwrap()["http_filters"].as_array().unwrap().clone();
    let (ours, router) = (filters[0].clone(), filters[1].clone());
    let upgrade = |filters: Value| json!([{"upgrade_type": "websocket", "filters": filters}]);
    let with = |filters: Value| Pages::server().manager("upgrade_configs", upgrade(filters));
    assert_eq!(with(json!([])).found(), set(&[]));
    assert_eq!(with(json!([ours, router])).found(), set(&[]));
    assert_eq!(with(json!([router])).found(), set(&["upgrade-unguarded"]));
    let report = with(json!([router])).report();
    let finding = report["findings"].as_array().unwrap().iter().find(|found| found["code"] == "upgrade-unguarded");
    assert_eq!(finding.unwrap()["places"][0]["upgrade"], "websocket");

    // The same checks as in the chain of the connection manager.
    let lua = json!({"name": "lua", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}});
    assert_eq!(with(json!([lua, ours, router])).found(), set(&["acts-before-filter"]));
    let mut disabled = ours.clone();
    disabled["disabled"] = json!(true);
    assert_eq!(with(json!([disabled, router])).found(), set(&["filter-disabled"]));
    let mut broken = ours.clone();
    broken["typed_config"]["config"]["configuration"]["value"] = json!("{}");
    assert_eq!(with(json!([broken, router])).found(), set(&["configuration-refused"]));
    // A network filter does not replace the HTTP filter that requests with the upgrade miss.
    let guarded = |http: Value| {
        let tcp = example(&examples().join("tcp/envoy.yaml"));
        let network = tcp.pointer("/static_resources/listeners/0/filter_chains/0/filters").unwrap()[1].clone();
        assert!(network.to_string().contains("spiffe-authz"), "{network}");
        let mut pages = with(json!([router])).manager("http_filters", http);
        pages.listener.pointer_mut("/filter_chains/0/filters").unwrap().as_array_mut().unwrap().insert(1, network);
        pages.found()
    };
    assert_eq!(guarded(json!([ours.clone(), router])), set(&["upgrade-unguarded"]));
    assert_eq!(guarded(json!([router])), set(&[]));
    // One finding for a connection that nothing guards, as without the upgrade.
    let unguarded = with(json!([router])).manager("http_filters", json!([router]));
    assert_eq!(unguarded.found(), set(&["filter-missing"]));
}

#[test]
fn the_remote_address_comes_from_trusted_proxies() {
    let source = |source: Value| json!({"from": [{"source": source}]});
    for rule in [
        source(json!({"remoteIpBlocks": ["203.0.113.0/24"]})),
        source(json!({"notRemoteIpBlocks": ["127.0.0.0/8"]})),
        json!({"when": [{"key": "remote.ip", "values": ["203.0.113.0/24"]}]}),
        json!({"when": [{"key": "remote.ip", "notValues": ["203.0.113.0/24"]}]}),
    ] {
        let pages = || Pages::server().manager("use_remote_address", json!(false)).rule(&rule);
        assert_eq!(pages().found(), set(&["remote-address-untrusted"]), "{rule}");
        assert_eq!(pages().manager("use_remote_address", json!(true)).found(), set(&[]), "{rule}");
        let mut proxied = pages();
        let kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
        proxied.listener["listener_filters"] = json!([{"name": "proxy", "typed_config": {"@type": kind}}]);
        // Envoy prefers the header to the address in the PROXY protocol.
        assert_eq!(proxied.found(), set(&["remote-address-untrusted"]), "{rule}");
        assert_eq!(proxied.manager("use_remote_address", json!(true)).found(), set(&[]), "{rule}");

        let detected = |kind: &str, field: &str, value: Value| {
            let kind = format!("type.googleapis.com/envoy.extensions.http.original_ip_detection.{kind}");
            let extension = json!([{"name": "e", "typed_config": {"@type": kind, field: value}}]);
            pages().manager("original_ip_detection_extensions", extension).found()
        };
        let proxies = json!({"cidrs": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
        assert_eq!(detected("xff.v3.XffConfig", "xff_trusted_cidrs", proxies), set(&[]), "{rule}");
        let untrusted = set(&["remote-address-untrusted"]);
        assert_eq!(detected("xff.v3.XffConfig", "xff_num_trusted_hops", json!(1)), untrusted, "{rule}");
        let header = detected("custom_header.v3.CustomHeaderConfig", "header_name", json!("x-client"));
        assert_eq!(header, untrusted, "{rule}");
    }
    let direct = source(json!({"ipBlocks": ["127.0.0.0/8"]}));
    assert_eq!(Pages::server().manager("use_remote_address", json!(false)).rule(&direct).found(), set(&[]));
}

/// On TCP, a client has no header in which it could choose the address.
#[test]
fn the_remote_address_on_tcp_is_that_of_the_connection() {
    let mut bootstrap = example(&examples().join("tcp/envoy.yaml")).to_string();
    bootstrap = bootstrap.replace("serviceAccounts", "remoteIpBlocks").replace("sleep", "127.0.0.0/8");
    let bootstrap: Value = serde_json::from_str(&bootstrap).unwrap();
    let listener = &bootstrap["static_resources"]["listeners"][0];
    assert!(listener.to_string().contains("remoteIpBlocks"), "{listener}");
    assert!(!codes(&examined(&bootstrap, listener, &[])).contains("remote-address-untrusted"));
}

#[test]
fn route_tables_keep_path_parameters() {
    let mut pages = Pages::server().rule(&path_rule());
    assert_eq!(pages.found(), set(&[]));
    let ignoring = json!({"name": "t", "ignore_path_parameters_in_path_matching": true});
    assert_eq!(
        Pages::server().rule(&path_rule()).manager("route_config", ignoring.clone()).found(),
        set(&["path-parameters-ignored"])
    );
    let methods = json!({"to": [{"operation": {"methods": ["GET"]}}]});
    assert_eq!(Pages::server().rule(&methods).manager("route_config", ignoring.clone()).found(), set(&[]));

    pages = pages.manager("route_config", json!(null)).manager("rds", json!({"route_config_name": "t"}));
    pages.routes = vec![json!({"name": "other", "ignore_path_parameters_in_path_matching": true})];
    assert_eq!(pages.found(), set(&[]));
    pages.routes.push(ignoring);
    assert_eq!(pages.found(), set(&["path-parameters-ignored"]));
}

/// Routes can disable the filter, so a partial dump does not show that each request is decided.
#[test]
fn a_missing_route_table_is_unknown() {
    let mut pages =
        Pages::server().manager("route_config", json!(null)).manager("rds", json!({"route_config_name": "t"}));
    let has_note = |pages: &Pages| {
        let report = pages.report();
        let mut findings = report["findings"].as_array().unwrap().iter();
        findings.any(|finding| {
            finding["code"] == "pages-incomplete" && finding["message"].as_str().unwrap().contains("route table `t`")
        })
    };
    assert!(has_note(&pages));
    pages.routes = vec![json!({"name": "t"})];
    assert!(!has_note(&pages) && !has_note(&Pages::server()));
}

#[test]
fn peer_principals_are_hashable() {
    let state = |factory: Value, shared: &str| json!([{"object_key": "io.istio.peer_principal", "factory_key": factory, "shared_with_upstream": shared}]);
    let http = |entries: Value| {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config";
        let mut pages = Pages::server();
        let filters = pages.listener.pointer_mut(MANAGER).unwrap()["http_filters"].as_array_mut().unwrap();
        filters.insert(0, json!({"name": "state", "typed_config": {"@type": kind, "on_request_headers": entries}}));
        pages.found()
    };
    let network = |entries: Value| {
        let mut pages = Pages::server();
        pages.listener.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap()["on_downstream_tls_handshake"] =
            entries;
        pages.found()
    };
    for found in [&http, &network] as [&dyn Fn(Value) -> BTreeSet<String>; 2] {
        for shared in ["ONCE", "TRANSITIVE"] {
            assert_eq!(found(state(json!("envoy.string"), shared)), set(&["peer-principal-not-hashable"]));
            assert_eq!(found(state(json!(null), shared)), set(&["peer-principal-not-hashable"]));
            for factory in ["envoy.hashable_string", "istio.hashable_string"] {
                assert_eq!(found(state(json!(factory), shared)), set(&[]), "{factory}");
            }
        }
        assert_eq!(found(state(json!("envoy.string"), "NONE")), set(&[]));
    }
}

#[test]
fn routes_of_the_module_are_read() {
    let per_route = |text: &str| {
        json!({"spiffe-authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
            "filter_name": "spiffe_authz",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}
        }})
    };
    let with = |text: &str| {
        let route = json!({"name": "r", "typed_per_filter_config": per_route(text)});
        Pages::module().manager("route_config", json!({"virtual_hosts": [{"name": "h", "routes": [route]}]}))
    };
    assert_eq!(with("{\"mode\": \"enforce\"}").found(), set(&[]));
    let shadow = with("{\"mode\": \"shadow\"}");
    assert_eq!(shadow.found(), set(&["route-shadow"]));
    let report = shadow.report();
    let finding = report["findings"].as_array().unwrap().iter().find(|found| found["code"] == "route-shadow");
    assert_eq!(finding.unwrap()["places"][0]["route"], "virtual host `h`, route `r`");

    let document = |rule: &Value| {
        json!({"configuration": {"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]}})
            .to_string()
    };
    assert_eq!(with(&document(&path_rule())).found(), set(&[]));
    assert_eq!(
        with("{\"configuration\": {\"trustDomain\": \"example.org\"}}").found(),
        set(&["configuration-refused"])
    );
    // The checks of a listener's document.
    let remote = json!({"from": [{"source": {"remoteIpBlocks": ["203.0.113.0/24"]}}]});
    let pages = with(&document(&remote)).manager("use_remote_address", json!(false));
    assert_eq!(pages.found(), set(&["remote-address-untrusted"]));
}

#[test]
fn client_certificate_headers_are_checked() {
    let with = |from: &str, details: Value| {
        let mut pages = Pages::server().manager("forward_client_cert_details", details);
        let mut document = json!({"trustDomain": "example.org", "policies": [], "identity": {"from": from}});
        if from == "xfcc" {
            document["identity"]["trustedProxies"] = json!(["example.org/ns/edge/sa/gateway"]);
        }
        *pages.listener.pointer_mut(&format!("{FILTER}/config/configuration/value")).unwrap() =
            json!(document.to_string());
        pages.found()
    };
    for value in
        [json!(null), json!("SANITIZE"), json!("SANITIZE_SET"), json!("APPEND_FORWARD"), json!("ALWAYS_FORWARD_ONLY")]
    {
        assert_eq!(with("xfcc", value.clone()), set(&["xfcc-not-forwarded"]), "{value}");
    }
    assert_eq!(with("xfcc", json!("FORWARD_ONLY")), set(&[]));
    for (value, expected) in [
        (json!(null), &[][..]),
        (json!("SANITIZE_SET"), &[]),
        (json!("APPEND_FORWARD"), &[]),
        (json!("FORWARD_ONLY"), &["xfcc-forwarded"]),
        (json!("ALWAYS_FORWARD_ONLY"), &["xfcc-forwarded"]),
    ] {
        assert_eq!(with("tls", value.clone()), set(expected), "{value}");
    }
    // A waypoint can replace the header by the caller's SPIFFE ID.
    let replaced = |action: &str| {
        let header =
            json!({"key": "X-Forwarded-Client-Cert", "value": "URI=%FILTER_STATE(io.istio.peer_principal:PLAIN)%"});
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"append": {"header": header, "append_action": action}}]}
        });
        let mut pages = Pages::server().manager("forward_client_cert_details", json!("ALWAYS_FORWARD_ONLY"));
        let filters = pages.listener.pointer_mut(MANAGER).unwrap()["http_filters"].as_array_mut().unwrap();
        filters.insert(0, json!({"name": "xfcc", "typed_config": config}));
        pages.found()
    };
    assert_eq!(replaced("OVERWRITE_IF_EXISTS_OR_ADD"), set(&[]));
    assert_eq!(replaced("ADD_IF_ABSENT"), set(&["xfcc-forwarded", "acts-before-filter"]));
    // On a connection without HBONE, another filter must set the caller's SPIFFE ID.
    assert_eq!(with("peerPrincipal", json!(null)), set(&["peer-principal-missing"]));
}

/// A route can enable an upgrade that the connection manager disables.
#[test]
fn a_disabled_upgrade_needs_no_filter_unless_a_route_enables_it() {
    let router = Pages::server().listener.pointer(MANAGER).unwrap()["http_filters"][1].clone();
    let pages = |enabled: Value| {
        let upgrade = json!({"upgrade_type": "websocket", "enabled": enabled, "filters": [router]});
        Pages::server().manager("upgrade_configs", json!([upgrade]))
    };
    let on_route = |enabled: Value, kind: &str| {
        let mut pages = pages(json!(false));
        let table = pages.listener.pointer_mut(&format!("{MANAGER}/route_config")).unwrap();
        table["virtual_hosts"][0]["routes"][0]["route"]["upgrade_configs"] =
            json!([{"upgrade_type": kind, "enabled": enabled}]);
        pages
    };
    assert_eq!(pages(json!(null)).found(), set(&["upgrade-unguarded"]));
    assert_eq!(pages(json!(true)).found(), set(&["upgrade-unguarded"]));
    assert_eq!(pages(json!(false)).found(), set(&[]));
    assert_eq!(on_route(json!(null), "WebSocket").found(), set(&["upgrade-unguarded"]));
    assert_eq!(on_route(json!(false), "websocket").found(), set(&[]));
    assert_eq!(on_route(json!(true), "CONNECT").found(), set(&[]));
    // The table with the routes is not in the dump.
    let unknown =
        pages(json!(false)).manager("route_config", json!(null)).manager("rds", json!({"route_config_name": "t"}));
    assert_eq!(unknown.found(), set(&[]));
    let report = unknown.report();
    assert!(report.to_string().contains("a route enables the upgrade `websocket`"), "{report:#}");
}

#[test]
fn policies_with_tokens_need_verified_tokens() {
    let jwt = |payload: Value| {
        json!({"name": "jwt", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"a": {"issuer": "a"}, "b": {"issuer": "b", "payload_in_metadata": payload}}
        }})
    };
    let (verified, unkept) = (jwt(json!("payload")), jwt(json!(null)));
    let mut disabled = verified.clone();
    disabled["disabled"] = json!(true);
    let metadata = json!({"name": "other", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": "envoy.filters.http.jwt_authn", "value": {"payload": {}}}]
    }});
    let missing = set(&["token-missing"]);
    for rule in [
        json!({"from": [{"source": {"requestPrincipals": ["*"]}}]}),
        json!({"from": [{"source": {"notRequestPrincipals": ["*"]}}]}),
        json!({"when": [{"key": "request.auth.audiences", "values": ["a"]}]}),
        json!({"when": [{"key": "request.auth.presenter", "values": ["a"]}]}),
        json!({"when": [{"key": "request.auth.claims[groups]", "notValues": ["a"]}]}),
    ] {
        assert_eq!(Pages::server().rule(&rule).found(), missing, "{rule}");
        assert_eq!(Pages::server().rule(&rule).filters(&[&verified], &[]).found(), set(&[]), "{rule}");
    }
    let rule = json!({"from": [{"source": {"requestPrincipals": ["*"]}}]});
    let found = |before: &[&Value], after: &[&Value]| Pages::server().rule(&rule).filters(before, after).found();
    assert_eq!(found(&[], &[&verified]), missing, "after the filter");
    assert_eq!(found(&[&disabled], &[]), missing);
    assert_eq!(found(&[&unkept], &[]), missing);
    assert_eq!(found(&[&metadata], &[]), set(&[]));
    // No policy uses tokens.
    assert_eq!(Pages::server().found(), set(&[]));

    let module = |filters: &[&Value]| {
        let mut module = Pages::module();
        let document = json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]});
        *module.listener.pointer_mut(&format!("{FILTER}/filter_config/value")).unwrap() = json!(document.to_string());
        module.filters(filters, &[]).found()
    };
    let state = json!({"name": "state", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [{"object_key": "spiffe_authz.metadata.envoy.filters.http.jwt_authn"}]
    }});
    for filters in [&[&verified][..], &[&state], &[&state, &verified]] {
        assert_eq!(module(filters), missing, "{filters:?}");
    }
    assert_eq!(module(&[&verified, &state]), set(&[]));
}

/// A matcher replaces `forward_client_cert_details` for the requests that it selects.
#[test]
fn the_matcher_of_the_client_certificate_header_is_read() {
    let with = |details: &str, identity: Value| {
        let action = json!({"action": {"typed_config": {"forward_client_cert_details": details}}});
        let matcher = json!({"matcher_list": {"matchers": [{"on_match": action}]}});
        let mut pages = Pages::server().manager("forward_client_cert_matcher", matcher);
        let document = json!({"trustDomain": "example.org", "policies": [], "identity": identity});
        *pages.listener.pointer_mut(&format!("{FILTER}/config/configuration/value")).unwrap() =
            json!(document.to_string());
        pages.manager("forward_client_cert_details", json!(null)).found()
    };
    let from_tls = || json!({"from": "tls"});
    let from_xfcc = || json!({"from": "xfcc", "trustedProxies": ["example.org/ns/edge/sa/gateway"]});
    assert_eq!(with("FORWARD_ONLY", from_xfcc()), set(&[]));
    assert_eq!(with("SANITIZE_SET", from_xfcc()), set(&["xfcc-not-forwarded"]));
    assert_eq!(with("ALWAYS_FORWARD_ONLY", from_tls()), set(&["xfcc-forwarded"]));
    assert_eq!(with("SANITIZE_SET", from_tls()), set(&[]));
}
