//! Pages of the cases, changed, and in the forms that tools write.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::delivered::{CONNECTED, Delivered};
use crate::{all_codes, codes, doctor_of, set};

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

/// Renames the listeners and the filter state as in a waypoint, and adds filter chains for TCP.
fn to_waypoint(dump: &mut Value) {
    let mut text = dump.to_string();
    assert!(text.contains("envoy.hashable_string"), "{text}");
    for (from, to) in [
        ("\"tunnel\"", "\"connect_terminate\""),
        ("\"inbound\"", "\"main_internal\""),
        ("envoy.hashable_string", "istio.hashable_string"),
    ] {
        text = text.replace(from, to);
    }
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
    // The forms of `istioctl proxy-config bootstrap` and `ecds` with `-o json`.
    let bootstrap =
        r#"{"bootstrap": {"node": {"userAgentBuildVersion": {"version": {"majorNumber": 1, "minorNumber": 38}}}}}"#;
    assert_eq!(doctor_of(bootstrap, None, None)["envoy"], "1.38.0");
    let discovered = r#"{"ecdsFilters": [{"ecdsFilter": {"name": "a", "typedConfig": {}}}]}"#;
    assert!(found(discovered).contains("filter-unknown"), "{:?}", found(discovered));
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

#[test]
fn wrong_pages_beside_a_good_dump_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let dump = Delivered::sound("server").dump().to_string();
    let [config_dump, page] = ["config_dump", "page"].map(|name| directory.path().join(name));
    std::fs::write(&config_dump, &dump).unwrap();
    for (option, text, expected) in [
        ("--certs", &*dump, "page: certs: expected Envoy's page `certs`, found JSON without `certificates`"),
        ("--certs", CONNECTED, "page: certs: expected "),
        ("--stats", "{\"stats\": []}", "page: stats: expected counters, found none"),
        ("--stats", "port: 80\n", "page: stats: expected counters, found none"),
    ] {
        std::fs::write(&page, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        let output = command.args(["doctor", "--config-dump"]).arg(&config_dump).arg(option).arg(&page).output();
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{option} {text}");
        assert!(error.contains(expected), "{error}");
    }
}
