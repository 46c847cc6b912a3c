//! The doctor on pages made from the examples. The integration tests examine running Envoys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The connection manager in the server's example, and the filter.
const MANAGER: &str = "/filter_chains/0/filters/1/typed_config";
const FILTER: &str = "/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bootstrap")
}

fn example(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The report of an Envoy with this bootstrap, listener and route tables. No secret has arrived.
fn examined(bootstrap: &Value, listener: &Value, routes: &[Value]) -> Value {
    examined_all(bootstrap, std::slice::from_ref(listener), routes)
}

/// The report of an Envoy with several listeners.
fn examined_all(bootstrap: &Value, listeners: &[Value], routes: &[Value]) -> Value {
    let listeners: Vec<Value> = listeners.iter().map(|listener| json!({"listener": listener})).collect();
    let routes: Vec<Value> = routes.iter().map(|table| json!({"route_config": table})).collect();
    let clusters = bootstrap["static_resources"]["clusters"].as_array().cloned().unwrap_or_default();
    let clusters: Vec<Value> = clusters.iter().map(|cluster| json!({"cluster": cluster})).collect();
    let directory = tempfile::tempdir().unwrap();
    let dump = json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": bootstrap, "last_updated": "2026-01-01T00:00:00Z"},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": listeners},
        {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": routes},
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "static_clusters": clusters},
        {"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"},
    ]});
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    command.args(["doctor", "--format", "json"]);
    let pages =
        [("config-dump", dump.to_string()), ("certs", "{}".to_owned()), ("stats", "server.uptime: 5".to_owned())];
    for (page, text) in pages {
        let file = directory.path().join(page);
        std::fs::write(&file, text).unwrap();
        command.arg(format!("--{page}")).arg(file);
    }
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["at"], "2026-01-01T00:00:05Z");
    report
}

/// The codes of errors and warnings.
fn codes(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] != "note");
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

fn set(codes: &[&str]) -> BTreeSet<String> {
    codes.iter().map(|&code| code.to_owned()).collect()
}

#[test]
fn every_example_is_in_order_but_for_the_secrets() {
    let mut servers = 0;
    let folders = ["", "federation", "tunnel"].map(|folder| examples().join(folder));
    for folder in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let file = folder.unwrap().path().join("envoy.yaml");
        if !file.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let bootstrap: Value = serde_saphyr::from_str(&text.replace("envoy.string", "envoy.hashable_string")).unwrap();
        let listeners = bootstrap["static_resources"]["listeners"].as_array().unwrap();
        let report = examined_all(&bootstrap, listeners, &[]);
        // The secrets of a caller are those of its clusters.
        assert_eq!(codes(&report), set(&["secret-missing"]), "{}", file.display());
        let has_filter = listeners.iter().any(|listener| listener.to_string().contains("spiffe-authz"));
        let has_note = report["findings"].to_string().contains("nothing-to-guard");
        assert_eq!(has_note, !has_filter, "{}", file.display());
        servers += u32::from(has_filter);
    }
    assert!(servers >= 5, "{servers}");
}

#[test]
fn a_dynamic_module_needs_the_certificate_in_filter_state() {
    let mut pages = Pages::module();
    assert_eq!(pages.found(), set(&[]));
    let state = pages.listener.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap();
    state["on_downstream_tls_handshake"] = json!([]);
    assert_eq!(pages.found(), set(&["peer-certificate-missing"]));
}

/// Pages of an Envoy, made from the server's example.
struct Pages {
    bootstrap: Value,
    listener: Value,
    /// Discovered route tables.
    routes: Vec<Value>,
}

impl Pages {
    fn server() -> Self {
        let bootstrap = example(&examples().join("server/envoy.yaml"));
        let listener = bootstrap["static_resources"]["listeners"][0].clone();
        Self { bootstrap, listener, routes: Vec::new() }.release(1, 40, 0)
    }

    /// The same server with the dynamic module.
    fn module() -> Self {
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

    /// The whole report.
    fn report(&self) -> Value {
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
        assert_eq!(proxied.found(), set(&[]), "{rule}");
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
            assert_eq!(found(state(json!("envoy.hashable_string"), shared)), set(&[]));
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

/// A running Envoy's dump with certificates and clusters, which the examples lack.
mod made {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SanType, date_time_ymd,
    };
    use serde_json::{Value, json};

    pub(crate) const SERVER: &str = "spiffe://example.org/ns/default/sa/httpbin";

    pub(crate) struct Authority {
        pub(crate) pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        /// An authority that names this trust domain.
        pub(crate) fn of(trust_domain: &str) -> Self {
            Self::named(&[SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap())])
        }

        /// An authority that expires at the start of this year.
        pub(crate) fn until(trust_domain: &str, year: i32) -> Self {
            let name = SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap());
            Self::made(&[name], (2020, year))
        }

        pub(crate) fn named(names: &[SanType]) -> Self {
            Self::made(names, (2025, 2099))
        }

        fn made(names: &[SanType], years: (i32, i32)) -> Self {
            let mut params = params(names, years);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Self { pem, issuer: Issuer::new(params, key) }
        }

        /// The chain of an SVID that is valid in these years.
        pub(crate) fn svid(&self, id: &str, years: (i32, i32)) -> String {
            let mut params = params(&[SanType::URI(id.try_into().unwrap())], years);
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.use_authority_key_identifier_extension = true;
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().pem()
        }
    }

    fn params(names: &[SanType], (from, until): (i32, i32)) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "SPIRE");
        params.subject_alt_names = names.to_vec();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        params
    }

    pub(crate) fn inline(pem: &str) -> Value {
        json!({"inline_bytes": STANDARD.encode(pem)})
    }

    pub(crate) fn certificate(name: &str, chain: &str) -> Value {
        json!({"name": name, "secret": {"name": name, "tls_certificate": {"certificate_chain": inline(chain)}}})
    }

    pub(crate) fn validation(context: Value) -> Value {
        json!({"name": "ROOTCA", "secret": {"name": "ROOTCA", "validation_context": context}})
    }

    pub(crate) fn spiffe(config: Value) -> Value {
        validation(
            json!({"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": config}}),
        )
    }

    pub(crate) fn bundles(bundles: &[(&str, &str)]) -> Value {
        let domains: Vec<Value> =
            bundles.iter().map(|(name, pem)| json!({"name": name, "trust_bundle": inline(pem)})).collect();
        spiffe(json!({"trust_domains": domains}))
    }
}

/// The pages of the examples' server or client with these secrets, and counters of a connected agent.
struct Delivered {
    bootstrap: Value,
    secrets: Vec<Value>,
    warming: Vec<Value>,
    stats: String,
}

const CONNECTED: &str = "server.uptime: 5\nlistener_manager.workers_started: 1\ncluster_manager.cluster_added: 1\n\
    cluster.spire_agent.upstream_cx_active: 1\ncluster.spire_agent.upstream_cx_connect_fail: 0\n\
    sds.default.control_plane.connected_state: 1\nsds.default.update_failure: 0\n\
    sds.ROOTCA.control_plane.connected_state: 1\nsds.ROOTCA.update_failure: 0\n";

impl Delivered {
    fn of(example_of: &str, secrets: Vec<Value>) -> Self {
        let mut bootstrap = example(&examples().join(example_of).join("envoy.yaml"));
        bootstrap["node"]["user_agent_build_version"] =
            json!({"version": {"major_number": 1, "minor_number": 40, "patch": 0}});
        Self { bootstrap, secrets, warming: Vec::new(), stats: CONNECTED.to_owned() }
    }

    /// A server or client whose secrets are correct.
    fn sound(example_of: &str) -> Self {
        let authority = made::Authority::of("example.org");
        Self::of(
            example_of,
            vec![
                made::certificate("default", &authority.svid(made::SERVER, (2025, 2098))),
                made::bundles(&[("example.org", &authority.pem)]),
            ],
        )
    }

    fn set(mut self, pointer: &str, field: &str, value: Value) -> Self {
        self.bootstrap.pointer_mut(pointer).unwrap()[field] = value;
        self
    }

    fn stats(mut self, from: &str, to: &str) -> Self {
        assert!(self.stats.contains(from), "{from}");
        self.stats = self.stats.replace(from, to);
        self
    }

    fn dump(&self) -> Value {
        let items = |field: &str, name: &str| -> Vec<Value> {
            let items = self.bootstrap["static_resources"][field].as_array().cloned().unwrap_or_default();
            items.into_iter().map(|item| json!({name: item})).collect()
        };
        let section = |name: &str, fields: Value| {
            let mut section = fields;
            section["@type"] = json!(format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump"));
            section
        };
        json!({"configs": [
            section("Bootstrap", json!({"bootstrap": self.bootstrap, "last_updated": "2026-01-01T00:00:00Z"})),
            section("Clusters", json!({"static_clusters": items("clusters", "cluster"), "dynamic_warming_clusters": self.warming})),
            section("Listeners", json!({"static_listeners": items("listeners", "listener")})),
            section("Secrets", json!({"dynamic_active_secrets": self.secrets})),
        ]})
    }

    fn report(&self) -> Value {
        doctor_of(&self.dump().to_string(), Some("{}"), Some(&self.stats))
    }

    /// The codes of all findings, notes included.
    fn found(&self) -> BTreeSet<String> {
        all_codes(&self.report())
    }
}

fn all_codes(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// The report of these pages.
fn doctor_of(dump: &str, certs: Option<&str>, stats: Option<&str>) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    command.args(["doctor", "--format", "json"]);
    for (page, text) in [("config-dump", Some(dump)), ("certs", certs), ("stats", stats)] {
        let Some(text) = text else { continue };
        let file = directory.path().join(page);
        std::fs::write(&file, text).unwrap();
        command.arg(format!("--{page}")).arg(file);
    }
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

const CLIENT_TLS: &str = "/static_resources/clusters/0/transport_socket/typed_config/common_tls_context";

#[test]
fn both_sides_are_in_order_with_their_secrets() {
    assert_eq!(Delivered::sound("server").found(), set(&[]));
    assert_eq!(Delivered::sound("client").found(), set(&["nothing-to-guard"]));
}

#[test]
fn identities_are_compared_with_dates_bundles_and_patterns() {
    let (own, other) = (made::Authority::of("example.org"), made::Authority::of("example.org"));
    let found = |chain: &str, example_of: &str| {
        let secrets = vec![made::certificate("default", chain), made::bundles(&[("example.org", &own.pem)])];
        let mut found = Delivered::of(example_of, secrets).found();
        found.remove("nothing-to-guard");
        found
    };
    for example_of in ["server", "client"] {
        assert_eq!(found(&own.svid(made::SERVER, (2025, 2098)), example_of), set(&[]));
        assert_eq!(found(&own.svid(made::SERVER, (2097, 2098)), example_of), set(&["not-yet-good"]));
        assert_eq!(found(&own.svid(made::SERVER, (2024, 2025)), example_of), set(&["svid-expired"]));
        assert_eq!(found(&other.svid(made::SERVER, (2025, 2098)), example_of), set(&["foreign-issuer"]));
    }
    let other_form = own.svid("spiffe://example.org/k8s/httpbin", (2025, 2098));
    assert_eq!(found(&other_form, "server"), set(&["svid-wrong-pattern"]));
    // The bundle of another trust domain does not vouch for this one.
    let io = made::Authority::of("example.io");
    let secrets = vec![
        made::certificate("default", &io.svid(made::SERVER, (2025, 2098))),
        made::bundles(&[("example.org", &own.pem), ("example.io", &io.pem)]),
    ];
    assert_eq!(Delivered::of("server", secrets).found(), set(&["foreign-issuer", "bundle-unnamed"]));
}

#[test]
fn bundles_are_read_in_each_form() {
    let own = made::Authority::of("example.org");
    let svid = made::certificate("default", &own.svid(made::SERVER, (2025, 2098)));
    let found = |bundle: Value| Delivered::of("server", vec![svid.clone(), bundle]).found();
    let unnamed = made::Authority::named(&[]);
    // A bundle that came by `https_web` can have authorities without a URI.
    let from_web = made::bundles(&[("example.org", &format!("{}{}", own.pem, unnamed.pem))]);
    assert_eq!(found(from_web), set(&[]));
    let io = made::Authority::of("example.io");
    assert_eq!(found(made::bundles(&[("example.org", &io.pem)])), set(&["bundle-foreign", "foreign-issuer"]));
    assert_eq!(found(made::bundles(&[("example.org", "nothing")])), set(&["bundle-unreadable"]));

    let der = own.pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let map = |r#use: &str| {
        let map = json!({"trust_domains": {"example.org": {"keys": [{"use": r#use, "x5c": [der]}]}}});
        made::spiffe(json!({"trust_bundles": {"inline_string": map.to_string()}}))
    };
    assert_eq!(found(map("x509-svid")), set(&[]));
    assert_eq!(found(map("jwt-svid")), set(&["bundle-unreadable"]));

    let pool = |pems: &[&str]| made::validation(json!({"trusted_ca": made::inline(&pems.concat())}));
    assert_eq!(found(pool(&[&own.pem, &unnamed.pem])), set(&["spiffe-validator-missing"]));
    assert_eq!(found(pool(&[&own.pem, &io.pem])), set(&["bundles-pooled"]));
    assert_eq!(found(made::certificate("ROOTCA", &own.svid(made::SERVER, (2025, 2098)))), set(&["secret-unreadable"]));
}

#[test]
fn the_calling_side_validates_servers() {
    let with = |field: &str, value: Value| {
        let pointer = format!("{CLIENT_TLS}/combined_validation_context/default_validation_context");
        Delivered::sound("client").set(&pointer, field, value).found()
    };
    let matcher = |kind: &str, exact: &str| json!([{"san_type": kind, "matcher": {"exact": exact}}]);
    let none = set(&["nothing-to-guard"]);
    let and = |code: &str| none.iter().cloned().chain([code.to_owned()]).collect::<BTreeSet<_>>();
    let field = "match_typed_subject_alt_names";
    assert_eq!(with(field, json!([])), and("server-unchecked"));
    assert_eq!(with(field, matcher("DNS", "httpbin")), and("server-name-filtered"));
    assert_eq!(with(field, matcher("URI", "spiffe://cluster.local/ns/a/sa/b")), and("bundle-missing"));
    assert_eq!(with("trust_chain_verification", json!("ACCEPT_UNTRUSTED")), and("untrusted-accepted"));
    let unvalidated = Delivered::sound("client").set(CLIENT_TLS, "combined_validation_context", json!(null));
    assert_eq!(unvalidated.found(), and("server-not-validated"));

    // A cluster that waits for its secret explains why there is no listener.
    let mut waiting = Delivered::sound("client");
    let cluster = waiting.bootstrap.pointer("/static_resources/clusters/0").unwrap().clone();
    waiting.bootstrap["static_resources"]["listeners"] = json!([]);
    waiting.warming = vec![json!({"cluster": cluster})];
    waiting.secrets.remove(0);
    let waiting = waiting
        .stats("sds.default.update_failure: 0", "sds.default.update_failure: 3")
        .stats("sds.default.control_plane.connected_state: 1", "sds.default.control_plane.connected_state: 0")
        .stats("workers_started: 1", "workers_started: 0");
    let report = waiting.report();
    let explained = ["cluster-warming", "listener-warming", "filter-unknown"];
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings[0]["code"], "workload-unknown", "{findings:#?}");
    assert_eq!(all_codes(&report), set(&[&explained[..], &["workload-unknown"]].concat()));
    for finding in findings.iter().filter(|finding| explained.contains(&finding["code"].as_str().unwrap())) {
        assert_eq!(finding["consequenceOf"], "workload-unknown", "{finding}");
    }
}

#[test]
fn an_unknown_counter_is_not_a_good_one() {
    let mut unkept = Delivered::sound("server");
    unkept.stats = "server.uptime: 5\n".to_owned();
    let report = unkept.report();
    assert_eq!(all_codes(&report), set(&["agent-unknown"]));
    let message = report["findings"][0]["message"].as_str().unwrap();
    assert!(
        message.contains(r#"proxyStatsMatcher: {inclusionPrefixes: ["sds.", "cluster.spire_agent."]}"#),
        "{message}"
    );
    assert!(!report["fine"].to_string().contains("no update was rejected"), "{report}");

    let rejected = Delivered::sound("server").stats("cluster_added: 1", "cds.update_rejected: 2");
    assert_eq!(rejected.found(), set(&["updates-rejected"]));
    let no_clock = Delivered::sound("server").stats("server.uptime: 5\n", "");
    assert_eq!(no_clock.found(), set(&["moment-unknown"]));
    assert_eq!(no_clock.report()["at"], Value::Null);

    let dump = Delivered::sound("server").dump();
    assert_eq!(all_codes(&doctor_of(&dump.to_string(), None, Some(CONNECTED))), set(&["pages-incomplete"]));
    let alone = all_codes(&doctor_of(&dump.to_string(), None, None));
    assert_eq!(alone, set(&["pages-incomplete", "agent-unknown", "moment-unknown"]));
    for (position, expected) in [(2, "filter-unknown"), (3, "pages-incomplete")] {
        let mut partial = dump.clone();
        partial["configs"].as_array_mut().unwrap().remove(position);
        partial["configs"][0]["bootstrap"]["static_resources"]["listeners"] = json!([]);
        let found = all_codes(&doctor_of(&partial.to_string(), Some("{}"), Some(CONNECTED)));
        assert!(found.contains(expected) && !found.contains("secret-missing"), "{found:?}");
    }
}

#[test]
fn the_filter_is_configured_or_running() {
    let fine = |pages: &Delivered| pages.report()["fine"].to_string();
    let sound = Delivered::sound("server");
    assert!(fine(&sound).contains("is configured for `example.org`"));
    let decided = Delivered::sound("server")
        .stats("cluster_added", "cluster_added: 1\nwasmcustom.spiffe_authz.decisions.mode.enforce.verdict.allow");
    assert!(fine(&decided).contains("decides for `example.org`"));
    let failing =
        Delivered::sound("server").stats("cluster_added", "cluster_added: 1\nwasm.spiffe-authz.vm_reload_backoff");
    assert_eq!(failing.found(), set(&["filter-failing"]));
    assert!(!fine(&failing).contains("decides"));
}

#[test]
fn code_that_was_not_fetched_does_not_decide() {
    let config =
        "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config";
    let remote = json!({"remote": {"http_uri": {"uri": "http://registry/filter.wasm", "cluster": "registry"}}});
    let fetching = |failures: &str, policy: &str| {
        Delivered::sound("server")
            .set(&format!("{config}/vm_config"), "code", remote.clone())
            .set(config, "failure_policy", json!(policy))
            .stats("cluster_added", &format!("cluster_added: 1\nwasm.remote_load_fetch_failures: {failures}\nx"))
    };
    let unfetched = fetching("1", "FAIL_RELOAD");
    assert_eq!(unfetched.found(), set(&["filter-not-loaded"]));
    assert!(!unfetched.report()["fine"].to_string().contains("is configured"));
    assert_eq!(fetching("1", "FAIL_OPEN").found(), set(&["filter-not-loaded", "filter-fail-open"]));
    assert_eq!(fetching("0", "FAIL_RELOAD").found(), set(&[]));
    // Another plugin's code can be the one that failed.
    let other = fetching("1\nwasm.remote_load_fetch_successes: 1", "FAIL_RELOAD");
    assert_eq!(other.found(), set(&[]));
}

#[test]
fn each_secret_that_anything_requests_is_checked() {
    // Through a match of a transport socket.
    let mut matched = Delivered::sound("client");
    let cluster = matched.bootstrap.pointer_mut("/static_resources/clusters/0").unwrap().as_object_mut().unwrap();
    let socket = cluster.remove("transport_socket").unwrap();
    cluster.insert("transport_socket_matches".to_owned(), json!([{"name": "tls", "transport_socket": socket}]));
    matched.secrets.remove(0);
    assert_eq!(matched.found(), set(&["nothing-to-guard", "secret-missing"]));

    // By neither a listener nor a cluster of the dump.
    let mut waiting = Delivered::sound("server").dump();
    waiting["configs"][3]["dynamic_warming_secrets"] = json!([{"name": "token", "secret": {"name": "token"}}]);
    let found = |dump: &Value, stats: &str| all_codes(&doctor_of(&dump.to_string(), Some("{}"), Some(stats)));
    assert_eq!(found(&waiting, CONNECTED), set(&["secret-missing"]));
    let sound = Delivered::sound("server").dump();
    let failing = |name: &str| format!("{CONNECTED}sds.{name}.update_failure: 2\n");
    assert_eq!(found(&sound, &failing("spiffe_example.org/x")), set(&["agent-unknown"]));
    assert_eq!(found(&sound, &failing("default")), set(&[]), "the stream is connected again");
    assert_eq!(found(&sound, &format!("{CONNECTED}sds.default.key_rotation_failed: 1\n")), set(&["secret-rejected"]));
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
    // On a connection without HBONE, another filter must set the caller's SPIFFE ID.
    assert_eq!(with("peerPrincipal", json!(null)), set(&["peer-principal-missing"]));
}

/// A page of a case.
fn page_of(case: &str, page: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor_cases").join(case).join(page))
        .unwrap()
}

/// The errors and warnings of a case's pages with this release of Envoy, after a change.
fn problems(case: &str, (minor, patch): (u64, u64), change: &dyn Fn(&mut Value)) -> BTreeSet<String> {
    let mut dump: Value = serde_json::from_str(&page_of(case, "config_dump.json")).unwrap();
    let version = json!({"version": {"major_number": 1, "minor_number": minor, "patch": patch}});
    dump["configs"][0]["bootstrap"]["node"]["user_agent_build_version"] = version;
    change(&mut dump);
    let [certs, stats] = ["certs.json", "stats.txt"].map(|page| page_of(case, page));
    codes(&doctor_of(&dump.to_string(), Some(&certs), Some(&stats)))
}

/// Renames the listeners as in a waypoint, and adds filter chains for TCP.
fn to_waypoint(dump: &mut Value) {
    let text =
        dump.to_string().replace("\"tunnel\"", "\"connect_terminate\"").replace("\"inbound\"", "\"main_internal\"");
    *dump = serde_json::from_str(&text).unwrap();
    let sections = dump["configs"].as_array_mut().unwrap();
    let listeners = sections.iter_mut().find(|section| !section["static_listeners"].is_null()).unwrap();
    let listeners = listeners["static_listeners"].as_array_mut().unwrap();
    let inner = listeners.iter_mut().find(|state| state["listener"]["name"] == "main_internal").unwrap();
    let tcp = json!({"name": "inbound-vip|5432|tcp|db", "filters": [{"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "db"
    }}]});
    inner["listener"]["filter_chains"].as_array_mut().unwrap().push(tcp);
}

/// A partial dump of a waypoint does not show where the HBONE listener leads.
#[test]
fn a_listener_without_its_cluster_is_unknown() {
    let cut = |dump: &mut Value| {
        to_waypoint(dump);
        for section in dump["configs"].as_array_mut().unwrap() {
            if let Some(clusters) = section.get_mut("static_clusters").and_then(Value::as_array_mut) {
                clusters.retain(|cluster| cluster["cluster"]["name"] != "main_internal");
            }
        }
    };
    assert_eq!(problems("f5-tunnel-sound", (40, 0), &cut), set(&[]));
    let mut dump: Value = serde_json::from_str(&page_of("f5-tunnel-sound", "config_dump.json")).unwrap();
    cut(&mut dump);
    let [certs, stats] = ["certs.json", "stats.txt"].map(|page| page_of("f5-tunnel-sound", page));
    let found = all_codes(&doctor_of(&dump.to_string(), Some(&certs), Some(&stats)));
    assert!(found.contains("filter-unknown"), "{found:?}");
}

#[test]
fn ordinary_proxies_have_no_error() {
    let same = |_: &mut Value| {};
    for release in [(38, 4), (39, 3), (40, 0), (41, 2)] {
        // Istio's port for plain text is the same as that for mutual TLS.
        assert_eq!(problems("f4-sidecar-1.28", release, &same), set(&["plain-text"]), "{release:?}");
        assert_eq!(problems("f5-tunnel-sound", release, &to_waypoint), set(&[]), "{release:?}");
        assert_eq!(problems("f11-web-beside-mutual", release, &same), set(&[]), "{release:?}");
        assert_eq!(problems("f14-root-rotation", release, &same), set(&["spiffe-validator-missing"]), "{release:?}");
    }
}

#[test]
fn pages_are_read_in_the_forms_that_tools_write() {
    let sound = Delivered::sound("server").dump();
    let expected = Delivered::sound("server").found();
    let found = |dump: &str| all_codes(&doctor_of(dump, Some("{}"), Some(CONNECTED)));
    let text = serde_json::to_string_pretty(&sound).unwrap();
    assert_eq!(found(&format!("Defaulted container \"istio-proxy\" out of: istio-proxy, app\n{text}")), expected);
    assert_eq!(found(&yaml(&sound, 0)), expected);

    // The form of `istioctl proxy-config listener -o json`: a list, in camelCase.
    let listener = sound["configs"][2]["static_listeners"][0]["listener"].to_string();
    let camel = listener.replace("filter_chains", "filterChains").replace("typed_config", "typedConfig");
    let alone = found(&format!("[{camel}]"));
    assert!(alone.contains("pages-incomplete") && !alone.contains("filter-missing"), "{alone:?}");
    // One section, and one resource.
    for part in [&sound["configs"][3], &sound["configs"][2]] {
        assert!(found(&part.to_string()).contains("pages-incomplete"), "{part}");
    }
    for wrong in [
        "{}",
        "{\"configs\": []}",
        "{\"configs\": [{}]}",
        "[]",
        "3",
        "NAME  TYPE\na b",
        "{\"kind\": \"Secret\", \"apiVersion\": \"v1\"}",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("page");
        std::fs::write(&file, wrong).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        let output = command.args(["doctor", "--config-dump"]).arg(&file).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{wrong}");
    }
}

/// A JSON value in YAML's block form.
fn yaml(value: &Value, depth: usize) -> String {
    let indent = " ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().map(|(name, below)| format!("\n{indent}{}:{}", json!(name), yaml(below, depth + 2))).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| format!("\n{indent}-{}", yaml(item, depth + 2))).collect()
        }
        scalar => format!(" {scalar}"),
    }
}

#[test]
fn unreadable_pages_are_errors() {
    for arguments in
        [&["doctor"][..], &["doctor", "127.0.0.1"], &["doctor", "--config-dump", "x"], &["doctor", "/nowhere"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).args(arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{arguments:?}");
    }
}

const INBOUND: &str = "/static_resources/listeners/0";
const CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";
const TLS: &str = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";
const COMMON_TLS: &str =
    "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_tls_context";
const HTTP: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config";
const OURS: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0";
const PLUGIN: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config";

/// A report with each finding that no saved page of `doctor_cases` has: one change to a sound server or client.
fn changes() -> Vec<(&'static str, Value)> {
    let own = made::Authority::of("example.org");
    let svid = |id: &str| made::certificate("default", &own.svid(id, (2025, 2098)));
    let bundle = |pem: &str| made::bundles(&[("example.org", pem)]);
    let secrets = |secrets: Vec<Value>| Delivered::of("server", secrets).report();
    let bundled = |bundle: Value| secrets(vec![svid(made::SERVER), bundle]);
    let server =
        |pointer: &str, field: &str, value: Value| Delivered::sound("server").set(pointer, field, value).report();
    let client =
        |pointer: &str, field: &str, value: Value| Delivered::sound("client").set(pointer, field, value).report();
    let document = |rule: Value| {
        let document = json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]});
        Delivered::sound("server").set(&format!("{PLUGIN}/configuration"), "value", json!(document.to_string()))
    };
    let (io, expired) = (made::Authority::of("example.io"), made::Authority::until("example.org", 2025));
    let filters = Delivered::sound("server").bootstrap.pointer(HTTP).unwrap()["http_filters"].clone();
    let (ours, router) = (&filters[0], &filters[1]);
    let lua = json!({"name": "lua", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}});
    let matcher = |prefix: &str| json!([{"san_type": "URI", "matcher": {"prefix": prefix}}]);
    let validation = format!("{COMMON_TLS}/combined_validation_context/default_validation_context");
    let client_validation = format!("{CLIENT_TLS}/combined_validation_context/default_validation_context");
    let condition = |key: &str, value: &str| json!({"when": [{"key": key, "values": [value]}]});

    let mut rejected = Delivered::sound("server").dump();
    let mut listener = rejected["configs"][2]["static_listeners"][0]["listener"].clone();
    listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    listener.pointer_mut("/filter_chains/0/filters/1/typed_config").unwrap()["http_filters"] = json!([router, ours]);
    let error = json!({"failed_configuration": listener, "details": "terminal filter"});
    rejected["configs"][2]["dynamic_listeners"] = json!([{"name": "inbound", "error_state": error}]);

    let mut unguarded = Delivered::sound("server");
    let mut second = unguarded.bootstrap.pointer(INBOUND).unwrap().clone();
    second["name"] = json!("second");
    second.pointer_mut("/filter_chains/0/filters/1/typed_config").unwrap()["http_filters"] = json!([router]);
    unguarded.bootstrap["static_resources"]["listeners"].as_array_mut().unwrap().push(second);

    let missing = |name: &str| {
        let mut missing = Delivered::sound("server")
            .stats(&format!("sds.{name}.update_failure: 0"), &format!("sds.{name}.update_failure: 3"))
            .stats(&format!("sds.{name}.control_plane.connected_state: 1"), "x: 0");
        missing.secrets.retain(|secret| secret["name"] != name);
        missing.report()
    };
    let release = |version: Value| server("/node", "user_agent_build_version", version);
    let mut module = Pages::module();
    module.listener.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap()["on_downstream_tls_handshake"] =
        json!([]);
    vec![
        ("envoy-release-unknown", release(json!(null))),
        ("envoy-vulnerable", release(json!({"version": {"major_number": 1, "minor_number": 38, "patch": 3}}))),
        ("secret-name-unknown", missing("ROOTCA")),
        (
            "secret-rejected",
            Delivered::sound("server")
                .stats("cluster_added", "cluster_added: 1\nsds.default.update_rejected: 1\nx")
                .report(),
        ),
        ("secret-unreadable", bundled(made::certificate("ROOTCA", &own.svid(made::SERVER, (2025, 2098))))),
        ("svid-malformed", secrets(vec![made::certificate("default", &own.pem), bundle(&own.pem)])),
        ("svid-foreign", secrets(vec![svid("spiffe://example.io/ns/default/sa/httpbin"), bundle(&own.pem)])),
        ("not-validated", server(COMMON_TLS, "combined_validation_context", json!(null))),
        (
            "bundles-pooled",
            bundled(made::validation(json!({"trusted_ca": made::inline(&[&*own.pem, &io.pem].concat())}))),
        ),
        ("bundle-unnamed", bundled(made::bundles(&[("example.org", &own.pem), ("example.io", &io.pem)]))),
        ("bundle-expired", bundled(bundle(&expired.pem))),
        ("bundle-unreadable", bundled(bundle("nothing"))),
        ("bundle-foreign", bundled(bundle(&io.pem))),
        ("untrusted-accepted", server(&validation, "trust_chain_verification", json!("ACCEPT_UNTRUSTED"))),
        ("expired-accepted", server(&validation, "allow_expired_certificate", json!(true))),
        (
            "trust-domain-filtered",
            server(&validation, "match_typed_subject_alt_names", matcher("spiffe://example.io/")),
        ),
        ("server-not-validated", client(CLIENT_TLS, "combined_validation_context", json!(null))),
        ("server-name-filtered", client(&client_validation, "match_typed_subject_alt_names", matcher("https://"))),
        ("session-resumption", server(TLS, "disable_stateless_session_resumption", json!(false))),
        ("path-not-normalized", server(HTTP, "normalize_path", json!(false))),
        ("slashes-not-merged", server(HTTP, "merge_slashes", json!(false))),
        ("escaped-slashes-kept", server(HTTP, "path_with_escaped_slashes_action", json!("KEEP_UNCHANGED"))),
        (
            "path-parameters-ignored",
            server(&format!("{HTTP}/route_config"), "ignore_path_parameters_in_path_matching", json!(true)),
        ),
        (
            "source-address-missing",
            document(condition("source.ip", "10.0.0.0/8"))
                .set(&format!("{CHAIN}/filters/0/typed_config"), "on_new_connection", json!([]))
                .report(),
        ),
        ("peer-certificate-missing", module.report()),
        (
            "server-name-missing",
            document(condition("connection.sni", "a")).set(INBOUND, "listener_filters", json!([])).report(),
        ),
        ("filter-missing", server(HTTP, "http_filters", json!([router]))),
        ("listener-unguarded", unguarded.report()),
        ("configuration-refused", server(&format!("{PLUGIN}/configuration"), "value", json!("{}"))),
        ("filter-after-router", doctor_of(&rejected.to_string(), Some("{}"), Some(CONNECTED))),
        ("acts-before-filter", server(HTTP, "http_filters", json!([lua, ours, router]))),
        ("filter-disabled", server(OURS, "disabled", json!(true))),
        ("filter-fail-open", server(PLUGIN, "failure_policy", json!("FAIL_OPEN"))),
        ("filter-stays-down", server(PLUGIN, "failure_policy", json!("FAIL_CLOSED"))),
    ]
}

/// The reports, and not only the sources, contain each finding of docs/reference/doctor-findings.md.
#[test]
fn every_finding_is_produced() {
    let mut produced = BTreeSet::new();
    for (code, report) in changes() {
        let found = all_codes(&report);
        assert!(found.contains(code), "{code}: {found:?}");
        produced.extend(found);
    }
    let cases = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor_cases")).unwrap();
    for case in cases.map(|case| case.unwrap().path()) {
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(case.join("expect.json")).unwrap()).unwrap();
        let arguments = expected["arguments"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        let output = command.args(arguments).current_dir(&case).output().unwrap();
        // Some cases expect an error, and some examine a certificate.
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if report["findings"].is_array() {
            produced.extend(all_codes(&report));
        }
    }
    let rows = include_str!("../../docs/reference/doctor-findings.md").lines().filter(|line| line.starts_with("| [`"));
    let documented: BTreeSet<String> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(produced, documented);
    assert!(documented.len() > 60, "{}", documented.len());
}
