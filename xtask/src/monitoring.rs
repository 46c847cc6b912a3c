//! The Grafana dashboard in `examples/monitoring`, and what promtool checks there.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::workspace;

/// The selectors of the dashboard's variables. A label that Prometheus does not have matches `.*`.
const SELECTED: &str = r#"namespace=~"$namespace", job=~"$job", instance=~"$instance""#;
const VARIABLES: [&str; 3] = ["namespace", "job", "instance"];

/// The width of a dashboard in Grafana's units.
const WIDTH: usize = 24;

/// A panel with one query.
struct Panel {
    title: &'static str,
    description: &'static str,
    kind: Kind,
    query: String,
    /// The label of each series, with labels of the query in double braces.
    legend: &'static str,
}

/// The form of a panel.
enum Kind {
    /// A number that is red from this value on.
    Number { red_from: f64, unit: &'static str },
    /// Requests per second over time.
    Rate,
}

/// Returns the rate of the decisions with these labels.
fn rate(labels: &str) -> String {
    format!("rate(spiffe_authz:decisions:total{{{SELECTED}, {labels}}}[5m])")
}

/// Returns the sum of a counter's increase in an hour. Without the counter, it is 0.
fn in_an_hour(metric: &str) -> String {
    format!("sum(increase({metric}{{{SELECTED}}}[1h])) or vector(0)")
}

fn panels() -> Vec<Panel> {
    let enforced = |verdict: &str| rate(&format!(r#"spiffe_authz_mode="enforce", spiffe_authz_verdict=~"{verdict}""#));
    let denied = enforced("deny");
    let shadow = rate(r#"spiffe_authz_mode="shadow", spiffe_authz_verdict="deny""#);
    let number = |red_from, unit| Kind::Number { red_from, unit };
    vec![
        Panel {
            title: "Denied requests",
            description: "The share of the requests and connections that the filter denies.",
            kind: number(0.05, "percentunit"),
            query: format!("sum({denied}) / sum({})", enforced("allow|deny")),
            legend: "",
        },
        Panel {
            title: "Denials without a decision, 5 minutes",
            description: "Denials because the filter could not decide. The deny reasons have an action for each.",
            kind: number(1.0, "short"),
            query: format!(
                r#"sum(spiffe_authz:decisions:increase5m{{{SELECTED}, spiffe_authz_mode="enforce", spiffe_authz_reason=~"not-configured|delegate-missing|filter-failed|clock-unavailable|.+-unreadable|peer-certificate-mismatch"}}) or vector(0)"#
            ),
            legend: "",
        },
        Panel {
            title: "Rejected configurations, 1 hour",
            description: "Updates of listeners and filters that Envoy rejected. It keeps the previous configuration.",
            kind: number(1.0, "short"),
            query: in_an_hour("spiffe_authz:rejected_updates:total"),
            legend: "",
        },
        Panel {
            title: "Failures of Wasm VMs, 1 hour",
            description: "Envoy denies requests until it has rebuilt the VM.",
            kind: number(1.0, "short"),
            query: in_an_hour("spiffe_authz:vm_failures:total"),
            legend: "",
        },
        Panel {
            title: "Undelivered secrets, 1 hour",
            description: "SVIDs and bundles that SPIRE did not deliver, or that Envoy rejected.",
            kind: number(1.0, "short"),
            query: in_an_hour("spiffe_authz:secret_failures:total"),
            legend: "",
        },
        Panel {
            title: "Verdicts",
            description: "The enforced verdicts.",
            kind: Kind::Rate,
            query: format!("sum by (spiffe_authz_verdict) ({})", enforced("allow|deny")),
            legend: "{{spiffe_authz_verdict}}",
        },
        Panel {
            title: "Denials by reason",
            description: "The enforced denials.",
            kind: Kind::Rate,
            query: format!("sum by (spiffe_authz_reason) ({denied})"),
            legend: "{{spiffe_authz_reason}}",
        },
        Panel {
            title: "Denials by policy",
            description: "`none` are the denials that no policy caused, such as those without an accepted identity.",
            kind: Kind::Rate,
            query: format!("sum by (spiffe_authz_policy) ({denied})"),
            legend: "{{spiffe_authz_policy}}",
        },
        Panel {
            title: "Denials by proxy",
            description: "The ten proxies with the most denials.",
            kind: Kind::Rate,
            query: format!("topk(10, sum by (namespace, job, instance) ({denied}))"),
            legend: "{{namespace}} {{job}} {{instance}}",
        },
        Panel {
            title: "Denials if shadow policies were enforced",
            description: "Without the requests that are denied anyway. Before you enforce the policies, add these callers \
                          to a policy, or decide that they must be denied.",
            kind: Kind::Rate,
            query: format!(
                "sum by (spiffe_authz_policy, spiffe_authz_reason) ({shadow}) - (sum by (spiffe_authz_policy, \
                 spiffe_authz_reason) ({denied}) or 0 * sum by (spiffe_authz_policy, spiffe_authz_reason) ({shadow}))"
            ),
            legend: "{{spiffe_authz_policy}} {{spiffe_authz_reason}}",
        },
        Panel {
            title: "Matches of AUDIT policies",
            description: "The log lines of the filter have the callers.",
            kind: Kind::Rate,
            query: format!(
                "sum by (spiffe_authz_policy) ({})",
                rate(r#"spiffe_authz_mode="enforce", spiffe_authz_verdict="audit""#)
            ),
            legend: "{{spiffe_authz_policy}}",
        },
    ]
}

/// Returns the dashboard.
fn dashboard() -> Value {
    let panels = panels();
    let (numbers, rates): (Vec<_>, Vec<_>) =
        panels.iter().enumerate().partition(|(_, panel)| matches!(panel.kind, Kind::Number { .. }));
    let width = WIDTH / numbers.len();
    let first_row = numbers.iter().enumerate().map(|(column, (index, panel))| {
        grafana_panel(*index, panel, &json!({"x": column * width, "y": 0, "w": width, "h": 4}))
    });
    let rest = rates.iter().enumerate().map(|(position, (index, panel))| {
        let (row, column) = (position / 2, position % 2);
        grafana_panel(*index, panel, &json!({"x": column * WIDTH / 2, "y": 4 + row * 8, "w": WIDTH / 2, "h": 8}))
    });
    let data_source =
        json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"});
    let variables = VARIABLES.into_iter().map(|label| {
        json!({
            "name": label,
            "type": "query",
            "datasource": data_source_variable(),
            "query": format!("label_values(spiffe_authz:decisions:total, {label})"),
            "includeAll": true,
            // Without the label, the list is empty, and only this value matches.
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
            "multi": true,
            "refresh": 2,
            "sort": 1,
        })
    });
    json!({
        "uid": "spiffe-authz",
        "title": "spiffe-authz",
        "description": "Decisions of the filter. The queries need the recording rules of rules.yaml.",
        "tags": ["envoy", "spiffe"],
        "schemaVersion": 39,
        "editable": true,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": std::iter::once(data_source).chain(variables).collect::<Vec<_>>()},
        "panels": first_row.chain(rest).collect::<Vec<_>>(),
    })
}

fn data_source_variable() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn grafana_panel(index: usize, panel: &Panel, place: &Value) -> Value {
    let Panel { title, description, kind, query, legend } = panel;
    let (kind, defaults, options) = match kind {
        Kind::Number { red_from, unit } => (
            "stat",
            json!({
                "unit": unit,
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"color": "green", "value": null}, {"color": "red", "value": red_from}],
                },
            }),
            json!({"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}),
        ),
        Kind::Rate => (
            "timeseries",
            json!({"unit": "reqps", "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}),
            json!({"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list"}}),
        ),
    };
    json!({
        "id": index + 1,
        "type": kind,
        "title": title,
        "description": description,
        "gridPos": place,
        "datasource": data_source_variable(),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [{
            "refId": "A",
            "datasource": data_source_variable(),
            "editorMode": "code",
            "expr": query,
            "legendFormat": legend,
        }],
    })
}

fn directory() -> PathBuf {
    workspace::root().join("examples/monitoring")
}

/// The recording and alert rules.
pub(crate) fn rules() -> PathBuf {
    directory().join("rules.yaml")
}

/// The tests of the rules.
pub(crate) fn rules_test() -> PathBuf {
    directory().join("rules_test.yaml")
}

/// Writes the dashboard.
pub(crate) fn write_dashboard() -> Result<()> {
    let file = directory().join("dashboard.json");
    fs::write(&file, format!("{:#}\n", dashboard()))
        .with_context(|| format!("{}: cannot write the file", file.display()))
}

/// Series of Envoys, of which each query of the dashboard must find some.
const SERIES: [&str; 7] = [
    r#"spiffe_authz_allowed{namespace="default", job="envoy", instance="a"}"#,
    r#"spiffe_authz_decisions{namespace="default", job="envoy", instance="a", spiffe_authz_mode="enforce", spiffe_authz_verdict="deny", spiffe_authz_reason="filter-failed", spiffe_authz_policy="none"}"#,
    r#"spiffe_authz_decisions{namespace="default", job="envoy", instance="a", spiffe_authz_mode="shadow", spiffe_authz_verdict="deny", spiffe_authz_reason="no-policy-allows", spiffe_authz_policy="none"}"#,
    r#"envoy_dynamicmodulescustom_spiffe_authz_decisions{job="envoy", instance="b", spiffe_authz_mode="enforce", spiffe_authz_verdict="audit", spiffe_authz_reason="none", spiffe_authz_policy="watch"}"#,
    r#"envoy_listener_manager_lds_update_rejected{job="envoy", instance="b"}"#,
    r#"envoy_wasm_spiffe_authz_vm_reload_backoff{job="envoy", instance="a"}"#,
    r#"envoy_sds_default_update_failure{job="envoy", instance="a"}"#,
];

/// Returns the queries in docs/operate.md.
fn documented() -> Result<Vec<String>> {
    let page = fs::read_to_string(workspace::root().join("docs/operate.md")).context("docs/operate.md")?;
    let blocks = page.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(blocks.map(str::to_owned).collect())
}

/// Writes a test for promtool: each query of the dashboard and of docs/operate.md returns a value other than 0 if Envoys
/// have these [`SERIES`]. Returns its path.
pub(crate) fn write_queries_test() -> Result<PathBuf> {
    let queries = panels().into_iter().map(|panel| panel.query).chain(documented()?).map(|query| {
        let query = VARIABLES.iter().fold(query, |query, name| query.replace(&format!("${name}"), ".*"));
        json!({
            "expr": format!("count(({query}) > 0) > bool 0"),
            "eval_time": "90m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        })
    });
    let test = json!({
        "rule_files": [rules()],
        "evaluation_interval": "1m",
        "tests": [{
            "name": "the queries of the dashboard and of docs/operate.md",
            "interval": "1m",
            "input_series": SERIES.map(|series| json!({"series": series, "values": "0+60x90"})),
            "promql_expr_test": queries.collect::<Vec<_>>(),
        }],
    });
    let file = workspace::target().join("dashboard_test.yaml");
    fs::create_dir_all(workspace::target())?;
    fs::write(&file, test.to_string()).with_context(|| format!("{}: cannot write the file", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
