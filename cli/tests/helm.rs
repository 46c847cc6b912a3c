//! The Helm chart of the controller, compared with the kustomization. Helm does not run: its templates have only values,
//! which the test inserts as text.

use std::fs;
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn of_chart(file: &str) -> String {
    fs::read_to_string(examples().join("helm/spiffe-authz-controller").join(file)).unwrap()
}

fn of_kustomization(file: &str) -> String {
    fs::read_to_string(examples().join("istio/5-authorization/controller").join(file)).unwrap()
}

/// Returns a template with the default values, for a release in the namespace of the kustomization.
fn rendered(template: &str) -> String {
    let mut text = of_chart(template).replace("{{ .Release.Namespace }}", "spiffe-authz");
    for line in of_chart("values.yaml").lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(": ").unwrap();
        let used = format!("{{{{ .Values.{name} }}}}");
        text = text.replace(&used, value);
    }
    assert!(!text.contains("{{"), "{template}: {text}");
    text
}

#[test]
fn the_chart_has_the_manifests_of_the_kustomization() {
    assert_eq!(of_chart("crds/definition.yaml"), of_kustomization("definition.yaml"));
    assert_eq!(rendered("templates/rights.yaml"), of_kustomization("rights.yaml"));
    let controller = of_kustomization("controller.yaml");
    // Helm creates the namespace.
    let (namespace, rest) = controller.split_once("---\n").unwrap();
    assert!(namespace.contains("kind: Namespace"), "{namespace}");
    assert_eq!(rendered("templates/controller.yaml"), rest);
    let templates = fs::read_dir(examples().join("helm/spiffe-authz-controller/templates")).unwrap();
    assert_eq!(templates.count(), 2, "a template is not compared");
}

#[test]
fn the_chart_uses_every_value() {
    let templates = of_chart("templates/rights.yaml") + &of_chart("templates/controller.yaml");
    let values = of_chart("values.yaml");
    let names: Vec<&str> =
        values.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.split(':').next()).collect();
    assert_eq!(names, ["image", "replicas", "istioNamespace", "meshConfig", "resource"]);
    for name in names {
        assert!(templates.contains(&format!("{{{{ .Values.{name} }}}}")), "{name}");
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
