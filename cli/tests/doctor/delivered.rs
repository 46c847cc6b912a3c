//! Pages made from the examples of the server and the client, with their secrets and counters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{all_codes, causes, certificates, doctor_of, example, examples, set};

/// The pages of the examples' server or client with these secrets, and counters of a connected agent.
pub(crate) struct Delivered {
    pub(crate) bootstrap: Value,
    pub(crate) secrets: Vec<Value>,
    pub(crate) warming: Vec<Value>,
    pub(crate) stats: String,
}

pub(crate) const CONNECTED: &str = "server.uptime: 5\nlistener_manager.workers_started: 1\ncluster_manager.cluster_added: 1\n\
    cluster.spire_agent.upstream_cx_active: 1\ncluster.spire_agent.upstream_cx_connect_fail: 0\n\
    sds.default.control_plane.connected_state: 1\nsds.default.update_failure: 0\n\
    sds.ROOTCA.control_plane.connected_state: 1\nsds.ROOTCA.update_failure: 0\n";

impl Delivered {
    pub(crate) fn of(example_of: &str, secrets: Vec<Value>) -> Self {
        let mut bootstrap = example(&examples().join(example_of).join("envoy.yaml"));
        bootstrap["node"]["user_agent_build_version"] =
            json!({"version": {"major_number": 1, "minor_number": 40, "patch": 0}});
        Self { bootstrap, secrets, warming: Vec::new(), stats: CONNECTED.to_owned() }
    }

    /// A server or client whose secrets are correct.
    pub(crate) fn sound(example_of: &str) -> Self {
        let authority = certificates::Authority::of("example.org");
        Self::of(
            example_of,
            vec![
                certificates::certificate("default", &authority.svid(certificates::SERVER, (2025, 2098))),
                certificates::bundles(&[("example.org", &authority.pem)]),
            ],
        )
    }

    pub(crate) fn set(mut self, pointer: &str, field: &str, value: Value) -> Self {
        self.bootstrap.pointer_mut(pointer).unwrap()[field] = value;
        self
    }

    pub(crate) fn stats(mut self, from: &str, to: &str) -> Self {
        assert!(self.stats.contains(from), "{from}");
        self.stats = self.stats.replace(from, to);
        self
    }

    pub(crate) fn dump(&self) -> Value {
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

    pub(crate) fn report(&self) -> Value {
        doctor_of(&self.dump().to_string(), Some("{}"), Some(&self.stats))
    }

    /// The codes of all findings, notes included.
    pub(crate) fn found(&self) -> BTreeSet<String> {
        all_codes(&self.report())
    }
}

pub(crate) const CLIENT_TLS: &str = "/static_resources/clusters/0/transport_socket/typed_config/common_tls_context";

#[test]
fn both_sides_are_in_order_with_their_secrets() {
    assert_eq!(Delivered::sound("server").found(), set(&[]));
    assert_eq!(Delivered::sound("client").found(), set(&["nothing-to-guard"]));
}

#[test]
fn the_filter_is_configured_or_running() {
    let fine = |pages: &Delivered| pages.report()["fine"].to_string();
    let sound = Delivered::sound("server");
    assert!(fine(&sound).contains("is configured for `example.org`"));
    let decided = Delivered::sound("server")
        .stats("cluster_added", "cluster_added: 1\nwasmcustom.spiffe_authz.spiffe_authz_mode=.=enforce;.;spiffe_authz_verdict=.=allow;.;decisions");
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
    let pending = "0\nwasm.remote_load_fetch_successes: 0\nwasm.remote_load_cache_misses: 1";
    assert_eq!(fetching(pending, "FAIL_OPEN").found(), set(&["filter-not-loaded", "filter-fail-open"]));
    let unknown = fetching("1", "FAIL_RELOAD").stats("wasm.remote_load_fetch_failures", "x");
    assert_eq!(unknown.found(), set(&["filter-unknown"]));
    // Another plugin's code can be the one that failed.
    let other = fetching("1\nwasm.remote_load_fetch_successes: 1", "FAIL_RELOAD");
    assert_eq!(other.found(), set(&[]));
}

#[test]
fn a_listener_can_wait_for_the_code_of_the_filter() {
    let report = |counters: &str| {
        let mut dump = Delivered::sound("server").dump();
        let mut listener = dump["configs"][2]["static_listeners"][0].clone();
        let filter = "/listener/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config/vm_config";
        listener.pointer_mut(filter).unwrap()["code"] = json!({"remote": {"http_uri": {"uri": "http://registry/a"}}});
        dump["configs"][2]["dynamic_listeners"] = json!([{"name": "inbound", "warming_state": listener}]);
        doctor_of(&dump.to_string(), Some("{}"), Some(&format!("{CONNECTED}{counters}")))
    };
    let [successes, failures, misses] =
        ["fetch_successes", "fetch_failures", "cache_misses"].map(|name| format!("wasm.remote_load_{name}"));
    let pending = report(&format!("{successes}: 0\n{failures}: 0\n{misses}: 1\n"));
    assert_eq!(all_codes(&pending), set(&["listener-warming", "filter-not-loaded"]));
    assert_eq!(causes(&pending, "listener-warming"), [(vec!["inbound".to_owned()], json!("filter-not-loaded"))]);
    let fetched = report(&format!("{successes}: 1\n{failures}: 0\n{misses}: 1\n"));
    assert_eq!(all_codes(&fetched), set(&["listener-warming"]));
}

#[test]
fn a_listener_can_wait_for_its_route_table() {
    let mut dump = Delivered::sound("server").dump();
    let mut listener = dump["configs"][2]["static_listeners"][0].clone();
    let manager = listener.pointer_mut("/listener/filter_chains/0/filters/1/typed_config").unwrap();
    manager.as_object_mut().unwrap().remove("route_config");
    manager["rds"] = json!({"route_config_name": "t"});
    dump["configs"][2]["dynamic_listeners"] = json!([{"name": "inbound", "warming_state": listener}]);
    let routes = json!({"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump"});
    dump["configs"].as_array_mut().unwrap().push(routes);
    let report = doctor_of(&dump.to_string(), Some("{}"), Some(CONNECTED));
    assert_eq!(all_codes(&report), set(&["listener-warming"]));
    assert!(report.to_string().contains("waits for the route table `t`"), "{report}");
    // The listener has its secrets, so it does not wait for the agent.
    let unreachable = CONNECTED.replace("cx_active: 1", "cx_active: 0").replace("connect_fail: 0", "connect_fail: 4");
    let report = doctor_of(&dump.to_string(), Some("{}"), Some(&unreachable));
    assert_eq!(all_codes(&report), set(&["listener-warming", "agent-unreachable"]));
    assert_eq!(causes(&report, "listener-warming"), [(vec!["inbound".to_owned()], Value::Null)]);
    assert!(report.to_string().contains("waits for the route table `t`"), "{report}");
}

/// With `from: xfcc`, the connection is that of a trusted proxy, and the callers' trust domains need no bundle here.
#[test]
fn forwarded_callers_come_through_a_proxy_with_a_certificate() {
    const CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";
    let manager = format!("{CHAIN}/filters/1/typed_config");
    let with = |peer: &str, proxy: &str| {
        let document = json!({
            "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "policies": [],
            "identity": {"from": "xfcc", "peer": peer, "trustedProxies": [proxy]}
        });
        Delivered::sound("server").set(&manager, "forward_client_cert_details", json!("FORWARD_ONLY")).set(
            &format!("{manager}/http_filters/0/typed_config/config/configuration"),
            "value",
            json!(document.to_string()),
        )
    };
    assert_eq!(with("required", "example.org/ns/edge/sa/gateway").found(), set(&[]));
    assert_eq!(with("required", "example.io/ns/edge/sa/gateway").found(), set(&["bundle-missing"]));
    for peer in ["required", "optional"] {
        let with = || with(peer, "example.org/ns/edge/sa/gateway");
        assert_eq!(with().set(CHAIN, "transport_socket", json!(null)).found(), set(&["plain-text"]), "{peer}");
        let tls = format!("{CHAIN}/transport_socket/typed_config");
        let optional = with().set(&tls, "require_client_certificate", json!(false));
        assert_eq!(optional.found(), set(&["client-certificate-optional"]), "{peer}");
    }
}

/// A listener that waits or was rejected shows that there is something to guard.
#[test]
fn a_listener_that_does_not_serve_yet_can_lack_the_filter() {
    let http = "/filter_chains/0/filters/1/typed_config/http_filters";
    let found = |state: &str| {
        let mut dump = Delivered::sound("server").dump();
        let state_of = dump["configs"][2]["static_listeners"].as_array_mut().unwrap().remove(0);
        let mut listener = state_of["listener"].clone();
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        listener.pointer_mut(http).unwrap().as_array_mut().unwrap().remove(0);
        let mut outbound = listener.clone();
        outbound["name"] = json!("outbound");
        outbound["filter_chains"][0]["transport_socket"] = json!(null);
        dump["configs"][2]["static_listeners"] = json!([{"listener": outbound}]);
        let waiting = match state {
            "warming_state" => json!({"listener": listener}),
            _ => json!({"failed_configuration": listener, "details": "cannot bind"}),
        };
        dump["configs"][2]["dynamic_listeners"] = json!([{"name": "inbound", state: waiting}]);
        all_codes(&doctor_of(&dump.to_string(), Some("{}"), Some(CONNECTED)))
    };
    assert_eq!(found("warming_state"), set(&["listener-warming", "filter-missing"]));
    assert_eq!(found("error_state"), set(&["update-refused"]));
}

#[test]
fn the_default_of_a_discovered_filter_decides_until_it_arrives() {
    let filters = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters";
    let ours = Delivered::sound("server").bootstrap.pointer(filters).unwrap()[0]["typed_config"].clone();
    let found = |default: Value| {
        let discovery = json!({"config_source": {"ads": {}}, "default_config": default});
        let place = json!({"name": "spiffe-authz", "config_discovery": discovery});
        let mut server = Delivered::sound("server");
        server.bootstrap.pointer_mut(filters).unwrap()[0] = place;
        let mut dump = server.dump();
        let section = json!({"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump"});
        dump["configs"].as_array_mut().unwrap().push(section);
        all_codes(&doctor_of(&dump.to_string(), Some("{}"), Some(CONNECTED)))
    };
    let rbac = |rules: Value| json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": rules});
    assert_eq!(found(json!(null)), set(&["filter-not-loaded"]));
    assert_eq!(found(rbac(json!({}))), set(&["filter-not-loaded"]));
    assert_eq!(found(rbac(json!(null))), set(&["filter-not-loaded", "filter-fail-open"]));
    assert_eq!(found(ours), set(&[]));
}

/// A document with the policies of several workloads is compiled for the workload of the page's node, as the filter does.
#[test]
fn a_document_with_scope_is_compiled_for_the_workload() {
    let config =
        "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config";
    let document = json!({
        "trustDomain": "example.org", "scope": {"rootNamespace": "istio-system"},
        "policies": [{"name": "p", "namespace": "shop", "selector": {"matchLabels": {"app": "cart"}}, "rules": [{}]}]
    });
    let scoped = || {
        let configuration =
            json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": document.to_string()});
        Delivered::sound("server").set(config, "configuration", configuration)
    };
    let labels = json!({"NAMESPACE": "shop", "LABELS": {"app": "cart"}});
    let known = scoped().set("/node", "metadata", labels);
    assert_eq!(known.found(), set(&[]));
    let report = scoped().report();
    assert!(report.to_string().contains("scope-unresolved"), "{report:#}");
    let unlabeled = scoped().set("/node", "metadata", json!({"NAMESPACE": "shop"})).report();
    assert!(unlabeled.to_string().contains("/policies/0/selector: scope-unresolved"), "{unlabeled:#}");
}

/// The mesh's filter in a namespace that has a document of its own: alone, and after the filter with that document.
#[test]
fn a_delegated_namespace_needs_its_own_filter() {
    const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters";
    let document = |scope: Value| json!({"trustDomain": "example.org", "scope": scope, "policies": []});
    let root = "istio-system";
    let of_mesh = document(json!({"rootNamespace": root, "delegatedNamespaces": ["shop"]}));
    let of_shop = document(json!({"rootNamespace": root}));
    let found = |namespace: &str, documents: &[&Value]| {
        let labels = json!({"NAMESPACE": namespace, "LABELS": {}});
        let mut delivered = Delivered::sound("server").set("/node", "metadata", labels);
        let filters = delivered.bootstrap.pointer_mut(FILTERS).and_then(Value::as_array_mut).expect("filters");
        let filter = filters.remove(0);
        for (position, document) in documents.iter().enumerate() {
            let mut filter = filter.clone();
            filter["typed_config"]["config"]["configuration"]["value"] = json!(document.to_string());
            filters.insert(position, filter);
        }
        delivered.found()
    };
    assert_eq!(found("shop", &[&of_shop, &of_mesh]), set(&[]));
    assert_eq!(found("bank", &[&of_mesh]), set(&[]));
    for documents in [&[&of_mesh][..], &[&of_mesh, &of_shop]] {
        assert_eq!(found("shop", documents), set(&["delegate-missing"]));
    }
}
