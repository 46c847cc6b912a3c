//! The doctor on pages made from the examples. The integration tests examine running Envoys.

mod certificates;
mod delivered;
mod findings;
mod pages;
mod saved;
mod secrets;
mod trust;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

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
