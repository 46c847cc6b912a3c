//! The doctor on pages made from the examples, for what needs no running Envoy. The integration tests ask real ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Where the filter stands in the server's example.
const FILTER: &str = "/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bootstrap")
}

fn example(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What the doctor finds in an Envoy with this bootstrap and listener, of which no secret has arrived; notes aside.
fn found(bootstrap: &Value, listener: &Value) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let dump = json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": bootstrap, "last_updated": "2026-01-01T00:00:00Z"},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": listener}]},
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
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] != "note");
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

fn set(codes: &[&str]) -> BTreeSet<String> {
    codes.iter().map(|&code| code.to_owned()).collect()
}

#[test]
fn every_example_is_in_order_but_for_the_secrets() {
    let mut servers = 0;
    let folders = ["", "federation"].map(|folder| examples().join(folder));
    for folder in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let file = folder.unwrap().path().join("envoy.yaml");
        if !file.is_file() {
            continue;
        }
        let bootstrap = example(&file);
        for listener in bootstrap["static_resources"]["listeners"].as_array().unwrap() {
            let has_filter = listener.to_string().contains("spiffe-authz");
            let expected = if has_filter { "secret-missing" } else { "filter-missing" };
            assert_eq!(found(&bootstrap, listener), set(&[expected]), "{}", file.display());
            servers += u32::from(has_filter);
        }
    }
    assert!(servers >= 3, "{servers}");
}

#[test]
fn a_dynamic_module_needs_the_certificate_in_filter_state() {
    let bootstrap = example(&examples().join("server/envoy.yaml"));
    let mut listener = bootstrap["static_resources"]["listeners"][0].clone();
    let document = listener.pointer(&format!("{FILTER}/config/configuration")).unwrap().clone();
    *listener.pointer_mut(FILTER).unwrap() = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        "dynamic_module_config": {"module": {"local": {"filename": "/etc/spiffe-authz/libspiffe_authz.so"}}},
        "filter_name": "spiffe_authz", "filter_config": document
    });
    assert_eq!(found(&bootstrap, &listener), set(&["secret-missing", "peer-certificate-missing"]));
    let state = listener.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap();
    state["on_downstream_tls_handshake"] = json!([{"object_key": "spiffe_authz.peer_certificate"}]);
    assert_eq!(found(&bootstrap, &listener), set(&["secret-missing"]));
}

#[test]
fn wrong_pages_are_no_findings() {
    for arguments in
        [&["doctor"][..], &["doctor", "127.0.0.1"], &["doctor", "--config-dump", "x"], &["doctor", "/nowhere"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).args(arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{arguments:?}");
    }
}
