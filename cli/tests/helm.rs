//! The values and the version of the controller's Helm chart. `tests/istio-mesh` compares its objects with the kustomization.

use std::fs;
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn of_chart(file: &str) -> String {
    fs::read_to_string(examples().join("helm/spiffe-authz-controller").join(file)).unwrap()
}

#[test]
fn the_chart_uses_every_value() {
    let templates =
        ["rights", "controller", "webhook"].map(|name| of_chart(&format!("templates/{name}.yaml"))).concat();
    let values = of_chart("values.yaml");
    let names: Vec<&str> =
        values.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.split(':').next()).collect();
    assert_eq!(names, ["image", "replicas", "istioNamespace", "meshConfig", "webhook", "resource"]);
    for name in names {
        assert!(templates.contains(&format!(".Values.{name} }}}}")), "{name}");
    }
}

#[test]
fn the_chart_has_the_version_of_the_command() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = of_chart("Chart.yaml");
    for field in ["version", "appVersion"] {
        assert!(chart.contains(&format!("\n{field}: {version}\n")), "{field}: {chart}");
    }
}
