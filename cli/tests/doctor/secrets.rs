//! Secrets that did not arrive or are not renewed, and what they explain.

use serde_json::{Value, json};

use crate::delivered::{CONNECTED, Delivered};
use crate::{all_codes, causes, certificates, doctor_of, set};

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
