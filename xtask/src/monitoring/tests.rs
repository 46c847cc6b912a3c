use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::Mode;
use spiffe_authz::worker::{Count, MODULE_ALLOWED_COUNTER, MODULE_COUNTER, WASM_ALLOWED_COUNTER, WASM_COUNTER};

use super::{SERIES, VARIABLES, dashboard, directory, documented, panels, rules, rules_test};

/// Envoy's own counters. tests/istio-mesh finds them in a real Envoy.
const OF_ENVOY: [&str; 4] =
    ["envoy_extension_config_discovery_", "envoy_listener_manager_lds_", "envoy_wasm_", "envoy_sds_"];

/// The labels that Prometheus adds to the series of a target, and the one that rules.yaml adds.
const OF_TARGETS: [&str; 5] = ["namespace", "job", "instance", "pod", "metric"];

/// A label of Envoy's default tags.
const RESOURCE_NAME: &str = "envoy_xds_resource_name";

/// The words of PromQL in the rules and in the dashboard.
const OF_PROMQL: [&str; 16] = [
    "__name__",
    "and",
    "avg_over_time",
    "by",
    "ignoring",
    "increase",
    "label_replace",
    "last_over_time",
    "offset",
    "or",
    "rate",
    "sum",
    "topk",
    "unless",
    "vector",
    "without",
];

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(path).expect("a file")).expect("YAML")
}

/// Returns every value with this key.
fn values<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| values(item, key)).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, field)| if name == key { vec![field] } else { values(field, key) }).collect()
        }
        _ => Vec::new(),
    }
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    values(value, key).into_iter().map(|text| text.as_str().expect("a string").to_owned()).collect()
}

/// The words of an expression, and the strings that it compares labels with.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    matchers: Vec<(String, String)>,
}

impl Words {
    fn of(expression: &str) -> Self {
        let mut found = Self::default();
        let mut rest = expression;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                let end = rest[1..].find('"').expect("the end of a string") + 1;
                let before = &expression[..expression.len() - rest.len()];
                let compared = before.trim_end_matches(['=', '~', '!', ' ']);
                // The arguments of functions follow a comma.
                if compared.len() < before.len() && !compared.ends_with(',') {
                    let label = found.words.last().expect("a label").clone();
                    found.matchers.push((label, rest[1..end].to_owned()));
                }
                rest = &rest[end + 1..];
            } else if first.is_alphanumeric() || first == '_' {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
                if !first.is_numeric() {
                    found.words.push(rest[..end].to_owned());
                }
                rest = &rest[end..];
            } else {
                rest = &rest[first.len_utf8()..];
            }
        }
        found
    }
}

/// The names in Prometheus of the counters of both adapters.
fn counters() -> Vec<String> {
    let wasm = [WASM_COUNTER, WASM_ALLOWED_COUNTER].map(|name| name.replace('.', "_"));
    let prefixed = ["", "wasmcustom_", "envoy_wasmcustom_"];
    let of_wasm = prefixed.iter().flat_map(|prefix| wasm.iter().map(move |name| format!("{prefix}{name}")));
    let of_module = [MODULE_COUNTER, MODULE_ALLOWED_COUNTER].map(|name| format!("envoy_dynamicmodulescustom_{name}"));
    of_wasm.chain(of_module).collect()
}

fn check_value(label: &str, value: &str) {
    let reasons: Vec<&str> = DenyReason::all().map(DenyReason::slug).chain(["none"]).collect();
    for one in value.split('|') {
        let known = match label {
            "spiffe_authz_mode" => [Mode::Enforce.slug(), Mode::Shadow.slug()].contains(&one),
            "spiffe_authz_verdict" => ["allow", "deny", "audit"].contains(&one),
            "spiffe_authz_reason" => match one.strip_prefix(".+") {
                Some(suffix) => reasons.iter().any(|reason| reason.ends_with(suffix)),
                None => reasons.contains(&one),
            },
            _ => true,
        };
        assert!(known, "{label} is never {one}");
    }
}

/// Checks that every metric and label of an expression exists, and that its values occur.
fn check(expression: &str, recorded: &BTreeSet<String>) {
    let Words { words, matchers } = Words::of(expression);
    for word in words.iter().map(String::as_str) {
        let known = OF_PROMQL.contains(&word)
            || OF_TARGETS.contains(&word)
            || Count::LABELS.contains(&word)
            || recorded.contains(word);
        assert!(known, "unknown: {word} in {expression}");
    }
    for (label, value) in matchers {
        check_value(&label, &value);
    }
}

fn recorded() -> BTreeSet<String> {
    texts(&yaml(&rules()), "record").into_iter().collect()
}

#[test]
fn the_dashboard_is_up_to_date() {
    let file = directory().join("dashboard.json");
    let committed: Value = serde_json::from_str(&fs::read_to_string(file).expect("the dashboard")).expect("JSON");
    assert_eq!(committed, dashboard(), "run `cargo xtask dashboard`");
}

#[test]
fn rules_and_dashboard_use_names_that_exist() {
    let (rules, recorded) = (yaml(&rules()), recorded());
    let expressions = texts(&rules, "expr");
    assert!(expressions.len() > 12, "{expressions:?}");
    for expression in &expressions {
        check(expression, &recorded);
    }
    let reasons = |expression: &str| {
        let matchers = Words::of(expression).matchers.into_iter();
        matchers.filter(|(label, _)| label == "spiffe_authz_reason").map(|(_, value)| value).collect::<Vec<_>>()
    };
    let of_rules: Vec<String> = expressions.iter().flat_map(|expression| reasons(expression)).collect();
    for panel in panels() {
        check(&panel.query, &recorded);
        assert!(reasons(&panel.query).iter().all(|value| of_rules.contains(value)), "{}: no alert has it", panel.title);
        for label in panel.legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(Count::LABELS.contains(&label) || OF_TARGETS.contains(&label), "{label} in {}", panel.title);
        }
    }
    let documented = documented().expect("the page");
    assert!(documented.len() >= 2, "{documented:?}");
    for query in &documented {
        check(query, &recorded);
    }
    for variable in VARIABLES {
        assert!(OF_TARGETS.contains(&variable), "{variable}");
    }
    // The labels of allowed requests, which the counter does not have.
    let added = values(&rules, "labels").into_iter().find(|labels| labels["severity"].is_null()).expect("labels");
    let added = added.as_object().expect("labels");
    assert!(Count::LABELS.iter().all(|label| added.contains_key(*label)) && added.len() == Count::LABELS.len());
    for (label, value) in added {
        check_value(label, value.as_str().expect("a value"));
    }
    for text in texts(&rules, "description").iter().chain(&texts(&rules, "summary")) {
        for label in text.split("$labels.").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap_or_default()) {
            assert!(Count::LABELS.contains(&label) || OF_TARGETS.contains(&label), "{label} in {text}");
        }
    }
}

#[test]
fn unknown_names_are_found() {
    let recorded = recorded();
    for wrong in [
        "sum by (reason) (spiffe_authz:decisions:rate5m)",
        "spiffe_authz_denials",
        r#"spiffe_authz:decisions:total{spiffe_authz_reason="denied"}"#,
        r#"spiffe_authz:decisions:total{spiffe_authz_reason =~ "svid-expired|.+-unheard"}"#,
        r#"spiffe_authz:decisions:total{spiffe_authz_mode!="enforced"}"#,
    ] {
        let checked = std::panic::catch_unwind(|| check(wrong, &recorded));
        assert!(checked.is_err(), "{wrong}");
    }
}

/// The tests of rules and dashboard have series of the filter and of Envoy only, so they show that the rules match these.
#[test]
fn the_tested_series_exist() {
    let test = yaml(&rules_test());
    let series: Vec<String> = texts(&test, "series").into_iter().chain(SERIES.map(str::to_owned)).collect();
    assert!(series.len() > 20, "{series:?}");
    let counters = counters();
    let mut seen = BTreeSet::new();
    for one in &series {
        let (name, labels) = one.split_once('{').expect("labels");
        let of_envoy = OF_ENVOY.iter().any(|prefix| name.starts_with(prefix));
        assert!(of_envoy || counters.iter().any(|counter| counter == name), "{name} does not exist");
        seen.insert(name);
        let Words { words, matchers } = Words::of(labels);
        let is_known = |word: &str| {
            OF_TARGETS.contains(&word) || Count::LABELS.contains(&word) || of_envoy && word == RESOURCE_NAME
        };
        assert!(words.iter().all(|word| is_known(word)), "{one}");
        for (label, value) in matchers {
            check_value(&label, &value);
        }
        let of_filter = words.iter().filter(|word| Count::LABELS.contains(&&***word)).count();
        assert_eq!(of_filter, if name.ends_with("_decisions") { Count::LABELS.len() } else { 0 }, "{one}");
    }
    assert!(OF_ENVOY.iter().all(|prefix| seen.iter().any(|name| name.starts_with(prefix))), "{seen:?}");
}

#[test]
fn every_alert_is_tested() {
    let alerts: BTreeSet<String> = texts(&yaml(&rules()), "alert").into_iter().collect();
    let test = yaml(&rules_test());
    let cases = values(&test, "alert_rule_test").into_iter().flat_map(|cases| cases.as_array().into_iter().flatten());
    let name = |case: &Value| case["alertname"].as_str().expect("a name").to_owned();
    let (fires, does_not): (Vec<&Value>, Vec<&Value>) = cases.partition(|case| case["exp_alerts"].is_array());
    assert_eq!(fires.into_iter().map(name).collect::<BTreeSet<_>>(), alerts);
    let silent: BTreeSet<String> = does_not.into_iter().map(name).collect();
    let never_silent: Vec<&String> = alerts.difference(&silent).collect();
    assert!(never_silent.is_empty(), "{never_silent:?}");
}
