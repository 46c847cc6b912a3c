//! Each finding, produced by one change to sound pages or by a case.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::delivered::{CLIENT_TLS, CONNECTED, Delivered};
use crate::pages::Pages;
use crate::{all_codes, certificates, doctor_of};

const INBOUND: &str = "/static_resources/listeners/0";

const CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";

const TLS: &str = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";

const COMMON_TLS: &str =
    "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config/common_tls_context";

const HTTP: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config";

const OURS: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0";

const PLUGIN: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config";

/// A document that accepts trust domains which it does not name.
const OPEN: &str = r#"{"trustDomain": "example.org", "federatedTrustDomains": "validated",
    "identity": {"requireValidated": true}, "policies": []}"#;

/// A document for a mesh in which the namespace `shop` has one of its own.
const DELEGATING: &str = r#"{"trustDomain": "example.org", "policies": [],
    "scope": {"rootNamespace": "istio-system", "delegatedNamespaces": ["shop"]}}"#;

/// A report with each finding that no saved page of `doctor_cases` has: one change to a sound server or client.
fn changes() -> Vec<(&'static str, Value)> {
    let own = certificates::Authority::of("example.org");
    let svid = |id: &str| certificates::certificate("default", &own.svid(id, (2025, 2098)));
    let bundle = |pem: &str| certificates::bundles(&[("example.org", pem)]);
    let secrets = |secrets: Vec<Value>| Delivered::of("server", secrets).report();
    let bundled = |bundle: Value| secrets(vec![svid(certificates::SERVER), bundle]);
    let server =
        |pointer: &str, field: &str, value: Value| Delivered::sound("server").set(pointer, field, value).report();
    let client =
        |pointer: &str, field: &str, value: Value| Delivered::sound("client").set(pointer, field, value).report();
    let document = |rule: Value| {
        let document = json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]});
        Delivered::sound("server").set(&format!("{PLUGIN}/configuration"), "value", json!(document.to_string()))
    };
    let (io, expired) =
        (certificates::Authority::of("example.io"), certificates::Authority::valid("example.org", (2020, 2025)));
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
        (
            "secret-unreadable",
            bundled(certificates::certificate("ROOTCA", &own.svid(certificates::SERVER, (2025, 2098)))),
        ),
        ("svid-malformed", secrets(vec![certificates::certificate("default", &own.pem), bundle(&own.pem)])),
        ("svid-foreign", secrets(vec![svid("spiffe://example.io/ns/default/sa/httpbin"), bundle(&own.pem)])),
        ("not-validated", server(COMMON_TLS, "combined_validation_context", json!(null))),
        (
            "bundles-pooled",
            bundled(certificates::validation(
                json!({"trusted_ca": certificates::inline(&[&*own.pem, &io.pem].concat())}),
            )),
        ),
        (
            "federation-open",
            Delivered::of(
                "server",
                vec![
                    svid(certificates::SERVER),
                    certificates::validation(json!({"trusted_ca": certificates::inline(&own.pem)})),
                ],
            )
            .set(&format!("{PLUGIN}/configuration"), "value", json!(OPEN))
            .report(),
        ),
        ("bundle-unnamed", bundled(certificates::bundles(&[("example.org", &own.pem), ("example.io", &io.pem)]))),
        ("bundle-expired", bundled(bundle(&expired.pem))),
        ("bundle-not-yet-good", bundled(bundle(&certificates::Authority::valid("example.org", (2097, 2098)).pem))),
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
        ("token-missing", document(condition("request.auth.principal", "*")).report()),
        ("filter-missing", server(HTTP, "http_filters", json!([router]))),
        (
            "delegate-missing",
            Delivered::sound("server")
                .set("/node", "metadata", json!({"NAMESPACE": "shop", "LABELS": {}}))
                .set(&format!("{PLUGIN}/configuration"), "value", json!(DELEGATING))
                .report(),
        ),
        ("listener-unguarded", unguarded.report()),
        ("configuration-refused", server(&format!("{PLUGIN}/configuration"), "value", json!("{}"))),
        ("filter-after-router", doctor_of(&rejected.to_string(), Some("{}"), Some(CONNECTED))),
        ("acts-before-filter", server(HTTP, "http_filters", json!([lua, ours, router]))),
        ("filter-disabled", server(OURS, "disabled", json!(true))),
        ("filter-fail-open", server(PLUGIN, "failure_policy", json!("FAIL_OPEN"))),
        ("filter-optional", server(OURS, "is_optional", json!(true))),
        ("filter-stays-down", server(PLUGIN, "failure_policy", json!("FAIL_CLOSED"))),
    ]
}

/// The cause of a rejected update is in the same listener. A cluster has no filter.
#[test]
fn rejected_updates_are_explained_by_their_own_cause() {
    let cause = |report: &Value, text: &str| {
        let mut findings = report["findings"].as_array().unwrap().iter();
        let has_text = |finding: &&Value| finding["message"].as_str().unwrap().contains(text);
        findings.find(has_text).unwrap_or_else(|| panic!("{text}: {report:#}"))["consequenceOf"].clone()
    };
    let rejected = |pages: &Value, name: &str, details: &str, change: &dyn Fn(&mut Value)| {
        let mut listener = pages["configs"][2]["static_listeners"][0]["listener"].clone();
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        listener["name"] = json!(name);
        change(&mut listener);
        json!({"name": name, "error_state": {"failed_configuration": listener, "details": details}})
    };
    let document = |text: &'static str| {
        move |listener: &mut Value| {
            let pointer = format!("{}/configuration/value", PLUGIN.strip_prefix(INBOUND).unwrap());
            *listener.pointer_mut(&pointer).unwrap() = json!(text);
        }
    };
    let mut dump = Delivered::sound("server").dump();
    let updates = [
        rejected(&dump, "wrong", "Unable to create Wasm plugin", &document("{}")),
        rejected(&dump, "other", "cannot bind", &|_| {}),
    ];
    dump["configs"][2]["dynamic_listeners"] = json!(updates);
    let counters = ["cluster_manager.cds", "http.a.rds.b", "extension_config_discovery.http_filter.other"];
    let counters: String = counters.iter().map(|counter| format!("{counter}.update_rejected: 1\n")).collect();
    let stats = format!("{CONNECTED}{counters}");
    let report = doctor_of(&dump.to_string(), Some("{}"), Some(&stats));
    assert_eq!(cause(&report, "Unable to create"), "configuration-refused");
    assert_eq!(cause(&report, "cannot bind"), Value::Null);
    assert_eq!(cause(&report, "cluster_manager."), Value::Null);
    assert_eq!(cause(&report, ".rds."), Value::Null);
    assert_eq!(cause(&report, "extension_config_discovery."), Value::Null);

    let mut module = Delivered::sound("server").dump();
    module["configs"][0]["bootstrap"]["node"]["user_agent_build_version"]["version"]["minor_number"] = json!(36);
    let refused = "Failed to load dynamic module: undefined symbol";
    let update = rejected(&module, "module", refused, &|listener| {
        *listener = Pages::module().listener;
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        listener["name"] = json!("module");
    });
    module["configs"][2]["dynamic_listeners"] = json!([update]);
    let report = doctor_of(&module.to_string(), Some("{}"), Some(CONNECTED));
    assert_eq!(cause(&report, refused), "envoy-unsupported");
}

/// The counter of a discovered filter or route table is explained by the errors in this filter or in this table.
#[test]
fn counters_of_updates_are_explained_by_their_own_object() {
    let report = |discovered: &str, table: &str| {
        let mut server = Delivered::sound("server");
        let filter = server.bootstrap.pointer_mut(OURS).unwrap();
        filter["typed_config"]["config"]["configuration"]["value"] = json!("{}");
        let filter = filter.take();
        *server.bootstrap.pointer_mut(OURS).unwrap() =
            json!({"name": "spiffe-authz", "config_discovery": {"config_source": {"ads": {}}}});
        let manager = server.bootstrap.pointer_mut(HTTP).unwrap().as_object_mut().unwrap();
        manager.remove("route_config");
        manager.insert("rds".to_owned(), json!({"route_config_name": "t"}));
        let per_route = json!({"spiffe-authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "{\"mode\": 1}"}
        }});
        let routes = json!({"name": "t", "typed_per_filter_config": per_route});
        let mut dump = server.dump();
        dump["configs"].as_array_mut().unwrap().extend([
            json!({"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [{"ecds_filter": filter}]}),
            json!({"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [{"route_config": routes}]}),
        ]);
        let stats = format!(
            "{CONNECTED}extension_config_discovery.http_filter.{discovered}.update_rejected: 1\n\
             http.a.rds.{table}.update_rejected: 2\n"
        );
        doctor_of(&dump.to_string(), Some("{}"), Some(&stats))
    };
    let causes = |report: &Value| {
        let findings = report["findings"].as_array().unwrap().iter();
        let counters = findings.filter(|finding| finding["code"] == "updates-rejected");
        let mut causes: Vec<(bool, Value)> = counters
            .map(|finding| (finding["message"].as_str().unwrap().contains(".rds."), finding["consequenceOf"].clone()))
            .collect();
        causes.sort_by_key(|(of_table, _)| *of_table);
        causes
    };
    let refused = json!("configuration-refused");
    assert_eq!(causes(&report("spiffe-authz", "t")), [(false, refused.clone()), (true, refused.clone())]);
    assert_eq!(causes(&report("other", "t")), [(false, Value::Null), (true, refused.clone())]);
    assert_eq!(causes(&report("spiffe-authz", "other")), [(false, refused), (true, Value::Null)]);
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
    let rows =
        include_str!("../../../docs/reference/doctor-findings.md").lines().filter(|line| line.starts_with("| [`"));
    let documented: BTreeSet<String> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(produced, documented);
    assert!(documented.len() > 60, "{}", documented.len());
}
