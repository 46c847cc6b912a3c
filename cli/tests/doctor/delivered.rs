//! Pages made from the examples of the server and the client, with their secrets and counters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{all_codes, certificates, doctor_of, example, examples, set};

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
fn identities_are_compared_with_dates_bundles_and_patterns() {
    let (own, other) = (certificates::Authority::of("example.org"), certificates::Authority::of("example.org"));
    let found = |chain: &str, example_of: &str| {
        let secrets =
            vec![certificates::certificate("default", chain), certificates::bundles(&[("example.org", &own.pem)])];
        let mut found = Delivered::of(example_of, secrets).found();
        found.remove("nothing-to-guard");
        found
    };
    for example_of in ["server", "client"] {
        assert_eq!(found(&own.svid(certificates::SERVER, (2025, 2098)), example_of), set(&[]));
        assert_eq!(found(&own.svid(certificates::SERVER, (2097, 2098)), example_of), set(&["not-yet-good"]));
        assert_eq!(found(&own.svid(certificates::SERVER, (2024, 2025)), example_of), set(&["svid-expired"]));
        assert_eq!(found(&other.svid(certificates::SERVER, (2025, 2098)), example_of), set(&["foreign-issuer"]));
    }
    let other_form = own.svid("spiffe://example.org/k8s/httpbin", (2025, 2098));
    assert_eq!(found(&other_form, "server"), set(&["svid-wrong-pattern"]));
    // The bundle of another trust domain does not vouch for this one.
    let io = certificates::Authority::of("example.io");
    let secrets = vec![
        certificates::certificate("default", &io.svid(certificates::SERVER, (2025, 2098))),
        certificates::bundles(&[("example.org", &own.pem), ("example.io", &io.pem)]),
    ];
    assert_eq!(Delivered::of("server", secrets).found(), set(&["foreign-issuer", "bundle-unnamed"]));
}

#[test]
fn bundles_are_read_in_each_form() {
    let own = certificates::Authority::of("example.org");
    let svid = certificates::certificate("default", &own.svid(certificates::SERVER, (2025, 2098)));
    let found = |bundle: Value| Delivered::of("server", vec![svid.clone(), bundle]).found();
    let unnamed = certificates::Authority::named(&[]);
    // A bundle that came by `https_web` can have authorities without a URI.
    let from_web = certificates::bundles(&[("example.org", &format!("{}{}", own.pem, unnamed.pem))]);
    assert_eq!(found(from_web), set(&[]));
    let io = certificates::Authority::of("example.io");
    assert_eq!(found(certificates::bundles(&[("example.org", &io.pem)])), set(&["bundle-foreign", "foreign-issuer"]));
    assert_eq!(found(certificates::bundles(&[("example.org", "nothing")])), set(&["bundle-unreadable"]));

    // As an EnvoyFilter writes it.
    let wrapped = json!({
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        "value": {"trust_domains": [{"name": "example.org", "trust_bundle": certificates::inline(&own.pem)}]}
    });
    assert_eq!(found(certificates::spiffe(wrapped)), set(&[]));

    // Rotation keeps an expired authority, and prepares the next one.
    let [past, future] = [(2020, 2025), (2097, 2098)].map(|years| certificates::Authority::valid("example.org", years));
    let of = |authorities: &[&certificates::Authority]| {
        let pem: String = authorities.iter().map(|authority| &*authority.pem).collect();
        found(certificates::bundles(&[("example.org", &pem)]))
    };
    assert_eq!(of(&[&past, &own, &future]), set(&[]));
    assert!(of(&[&past]).contains("bundle-expired"));
    for early in [of(&[&future]), of(&[&past, &future])] {
        assert!(early.contains("bundle-not-yet-good") && !early.contains("bundle-expired"), "{early:?}");
    }

    let der = own.pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let map = |r#use: &str| {
        let map = json!({"trust_domains": {"example.org": {"keys": [{"use": r#use, "x5c": [der]}]}}});
        certificates::spiffe(json!({"trust_bundles": {"inline_string": map.to_string()}}))
    };
    assert_eq!(found(map("x509-svid")), set(&[]));
    assert_eq!(found(map("jwt-svid")), set(&["bundle-unreadable"]));

    // Pinned certificates are validated.
    let pinned = certificates::validation(json!({"verify_certificate_hash": ["aa"]}));
    assert_eq!(found(pinned), set(&["spiffe-validator-missing"]));
    assert_eq!(found(certificates::validation(json!({}))), set(&["not-validated"]));

    let pool = |pems: &[&str]| certificates::validation(json!({"trusted_ca": certificates::inline(&pems.concat())}));
    assert_eq!(found(pool(&[&own.pem, &unnamed.pem])), set(&["spiffe-validator-missing"]));
    assert_eq!(found(pool(&[&own.pem, &io.pem])), set(&["bundles-pooled"]));
    assert_eq!(
        found(certificates::certificate("ROOTCA", &own.svid(certificates::SERVER, (2025, 2098)))),
        set(&["secret-unreadable"])
    );
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

/// Envoy keeps the previous certificate if it rejects the next one.
#[test]
fn a_rejected_secret_explains_why_it_expired() {
    let authority = certificates::Authority::of("example.org");
    let cause = |rejected: &str| {
        let secrets = vec![
            certificates::certificate("default", &authority.svid(certificates::SERVER, (2024, 2025))),
            certificates::bundles(&[("example.org", &authority.pem)]),
        ];
        let counter = format!("cluster_added: 1\nsds.{rejected}.update_rejected: 4\nx");
        let report = Delivered::of("server", secrets).stats("cluster_added", &counter).report();
        assert_eq!(all_codes(&report), set(&["secret-rejected", "svid-expired"]));
        let findings = report["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["code"] == "svid-expired").unwrap()["consequenceOf"].clone()
    };
    assert_eq!(cause("default"), "secret-rejected");
    assert_eq!(cause("ROOTCA"), Value::Null);
}

const COMMON_TLS: &str =
    "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_tls_context";

/// The places and the cause of each finding of this kind.
fn causes(report: &Value, code: &str) -> Vec<(Vec<String>, Value)> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == code);
    let name = |place: &Value| place["listener"].as_str().or(place["cluster"].as_str()).unwrap().to_owned();
    let places = |finding: &Value| finding["places"].as_array().unwrap().iter().map(name).collect();
    let mut causes: Vec<(Vec<String>, Value)> =
        findings.map(|finding| (places(finding), finding["consequenceOf"].clone())).collect();
    causes.sort_by(|(one, _), (other, _)| one.cmp(other));
    causes
}

/// Each secret has an agent of its own, which explains only what this agent does not renew.
#[test]
fn an_agent_explains_only_its_own_secrets() {
    let authority = certificates::Authority::of("example.org");
    let expired = certificates::Authority::valid("example.org", (2020, 2025));
    let secrets = vec![
        certificates::certificate("default", &authority.svid(certificates::SERVER, (2024, 2025))),
        certificates::bundles(&[("example.org", &expired.pem)]),
    ];
    let report = |unreachable: &str| {
        let source = "sds_config/api_config_source/grpc_services/0/envoy_grpc";
        let pointer = format!("{COMMON_TLS}/tls_certificate_sds_secret_configs/0/{source}");
        let server = Delivered::of("server", secrets.clone()).set(&pointer, "cluster_name", json!("other_agent"));
        let other = "cluster.other_agent.upstream_cx_active: 1\ncluster.other_agent.upstream_cx_connect_fail: 4\n";
        let stats = format!("{}{other}", server.stats.replace("connect_fail: 0", "connect_fail: 4"));
        let active = format!("cluster.{unreachable}.upstream_cx_active");
        Delivered { stats: stats.replace(&format!("{active}: 1"), &format!("{active}: 0")), ..server }.report()
    };
    let unreachable = json!("agent-unreachable");
    let inbound = || vec!["inbound".to_owned()];
    for (agent, svid, bundle) in
        [("other_agent", unreachable.clone(), Value::Null), ("spire_agent", Value::Null, unreachable)]
    {
        let report = report(agent);
        assert_eq!(causes(&report, "svid-expired"), [(inbound(), svid)], "{agent}");
        assert_eq!(causes(&report, "bundle-expired"), [(inbound(), bundle)], "{agent}");
        assert_eq!(report["findings"][0]["code"], "agent-unreachable", "{report:#}");
    }
}

/// A secret of the same name from another source does not show that this one has arrived.
#[test]
fn a_cluster_waits_for_its_agent_although_a_secret_of_the_name_is_here() {
    let mut server = Delivered::sound("server");
    let cluster = Delivered::sound("client").bootstrap.pointer("/static_resources/clusters/0").unwrap().clone();
    server.warming = vec![json!({"cluster": cluster})];
    let certificate = format!("{COMMON_TLS}/tls_certificate_sds_secret_configs/0");
    let server = server.set(&certificate, "sds_config", json!({"path_config_source": {"path": "/svid.json"}}));
    let server =
        server.stats("upstream_cx_active: 1", "upstream_cx_active: 0").stats("connect_fail: 0", "connect_fail: 4");
    let mut dump = server.dump();
    dump["configs"][3]["dynamic_warming_secrets"] = json!([{"name": "default"}]);
    let report = doctor_of(&dump.to_string(), Some("{}"), Some(&server.stats));
    let waiting = [(vec!["httpbin".to_owned()], json!("agent-unreachable"))];
    assert_eq!(causes(&report, "cluster-warming"), waiting, "{report:#}");
}

/// Two listeners use the same secret, and only one gets it from an agent that does not answer.
#[test]
fn the_same_secret_in_two_places_can_have_a_cause_in_one() {
    let authority = certificates::Authority::of("example.org");
    let mut server = Delivered::of(
        "server",
        vec![
            certificates::certificate("default", &authority.svid(certificates::SERVER, (2024, 2025))),
            certificates::bundles(&[("example.org", &authority.pem)]),
        ],
    );
    let mut second = server.bootstrap["static_resources"]["listeners"][0].clone();
    second["name"] = json!("second");
    let certificate = format!("{COMMON_TLS}/tls_certificate_sds_secret_configs/0/sds_config");
    let certificate = certificate.strip_prefix("/static_resources/listeners/0").unwrap();
    *second.pointer_mut(certificate).unwrap() = json!({"path_config_source": {"path": "/svid.json"}});
    server.bootstrap["static_resources"]["listeners"].as_array_mut().unwrap().push(second);
    let report = server
        .stats("upstream_cx_active: 1", "upstream_cx_active: 0")
        .stats("connect_fail: 0", "connect_fail: 4")
        .report();
    let expected = [(vec!["inbound".to_owned()], json!("agent-unreachable")), (vec!["second".to_owned()], Value::Null)];
    assert_eq!(causes(&report, "svid-expired"), expected);
}

#[test]
fn a_certificate_can_be_selected_in_the_handshake() {
    let selector = json!({"name": "envoy.tls.certificate_selectors.on_demand_secret"});
    let pages = |selector: Value| {
        Delivered::sound("server")
            .set(COMMON_TLS, "tls_certificate_sds_secret_configs", json!([]))
            .set(COMMON_TLS, "custom_tls_certificate_selector", selector)
            .found()
    };
    assert_eq!(pages(json!(null)), set(&["secret-missing"]));
    assert_eq!(pages(selector), set(&[]));
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

/// A secret that Envoy rejects never arrives.
#[test]
fn a_rejected_secret_explains_why_it_is_missing() {
    let cause = |rejected: &str| {
        let counter = format!("cluster_added: 1\nsds.{rejected}.update_rejected: 4\nx");
        let mut server = Delivered::sound("server").stats("cluster_added", &counter);
        server.secrets.remove(0);
        let report = server.report();
        assert_eq!(all_codes(&report), set(&["secret-rejected", "secret-missing"]));
        causes(&report, "secret-missing")
    };
    let inbound = || vec!["inbound".to_owned()];
    assert_eq!(cause("default"), [(inbound(), json!("secret-rejected"))]);
    assert_eq!(cause("ROOTCA"), [(inbound(), Value::Null)]);
}

/// Envoy can reach a gRPC service without a cluster. Then only the counters of the secret show whether it answers.
#[test]
fn a_source_without_a_cluster_can_fail() {
    let google =
        json!({"api_config_source": {"grpc_services": [{"google_grpc": {"target_uri": "unix:///agent.sock"}}]}});
    let pages = |failures: &str, state: &str| {
        Delivered::sound("server")
            .set(&format!("{COMMON_TLS}/tls_certificate_sds_secret_configs/0"), "sds_config", google.clone())
            .stats("sds.default.update_failure: 0", &format!("sds.default.update_failure: {failures}"))
            .stats("sds.default.control_plane.connected_state: 1", state)
    };
    let [open, closed] = [1, 0].map(|state| format!("sds.default.control_plane.connected_state: {state}"));
    assert_eq!(pages("0", &open).found(), set(&[]));
    assert_eq!(pages("3", &open).found(), set(&[]), "the stream is connected again");
    assert_eq!(pages("3", &closed).found(), set(&["agent-unknown"]));
    assert_eq!(pages("3", "x: 0").found(), set(&[]), "a file");
    let mut missing = pages("3", &closed);
    missing.secrets.remove(0);
    let report = missing.report();
    assert_eq!(all_codes(&report), set(&["secret-missing"]));
    assert!(report.to_string().contains("has not delivered the secret; 3 updates failed"), "{report:#}");
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

/// Without the section of secrets, it is unknown whether a failure was before or after the delivery.
#[test]
fn a_dump_without_secrets_does_not_show_that_one_is_missing() {
    let report = |from: &str, to: &str| {
        let mut dump = Delivered::sound("server").dump();
        dump["configs"].as_array_mut().unwrap().remove(3);
        doctor_of(&dump.to_string(), Some("{}"), Some(&CONNECTED.replace(from, to)))
    };
    let failed = report("sds.default.update_failure: 0", "sds.default.update_failure: 3");
    assert_eq!(all_codes(&failed), set(&["pages-incomplete"]));
    let unreachable = report(
        "cx_active: 1\ncluster.spire_agent.upstream_cx_connect_fail: 0",
        "cx_active: 0\ncluster.spire_agent.upstream_cx_connect_fail: 9",
    );
    assert_eq!(all_codes(&unreachable), set(&["pages-incomplete", "agent-unreachable"]));
    assert!(!unreachable.to_string().contains("nothing was received"), "{unreachable}");
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
    let rejected = format!("{CONNECTED}sds.token.update_rejected: 1\n");
    assert_eq!(found(&sound, &rejected), set(&["secret-rejected"]), "a secret that no TLS context uses");
    assert_eq!(found(&sound, &format!("{CONNECTED}sds.token.init_fetch_timeout: 1\n")), set(&["agent-unknown"]));
    assert_eq!(found(&sound, &format!("{CONNECTED}sds.default.key_rotation_failed: 1\n")), set(&["secret-rejected"]));
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
