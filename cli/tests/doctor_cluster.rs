//! The doctor in a cluster, with executables that act as kubectl and istioctl.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with the executables, which log their arguments.
struct Cluster(TempDir);

impl Cluster {
    /// `kubectl` answers `get pods` with this list, and `exec` with the pages of the case; it fails for other pods.
    fn new(pods: &Value, case: &str) -> Self {
        let cluster = Self(tempfile::tempdir().unwrap());
        fs::write(cluster.path("pods.json"), pods.to_string()).unwrap();
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor_cases").join(case);
        for (page, file) in [("config_dump", "config_dump.json"), ("certs", "certs.json"), ("stats", "stats.txt")] {
            fs::copy(case.join(file), cluster.path(page)).unwrap();
        }
        let kubectl = r#"
            case "$*" in
            *"get pods"*) cat "$here/pods.json" ;;
            *" broken "*) echo "Error from server (Forbidden): pods is forbidden" >&2; exit 1 ;;
            *"exec "*"--container istio-proxy -- pilot-agent request GET "*)
                echo "Defaulted container" >&2
                for page in "$@"; do :; done
                cat "$here/$page" ;;
            *) echo "unexpected: $*" >&2; exit 1 ;;
            esac"#;
        cluster.executable("kubectl", kubectl);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn executable(&self, name: &str, script: &str) {
        let here = self.0.path().display();
        let file = self.path(name);
        fs::write(&file, format!("#!/bin/sh\nhere='{here}'\necho \"{name} $*\" >> \"$here/log\"\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        command.arg("doctor").args(arguments).env("PATH", path).output().unwrap()
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let output = self.doctor(&[arguments, &["--format", "json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

fn pod(namespace: &str, workload: &str, suffix: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
    json!({
        "metadata": {
            "name": format!("{workload}-5c7d-{suffix}"), "namespace": namespace,
            "labels": {"pod-template-hash": "5c7d"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{workload}-5c7d")}]
        },
        "spec": {"containers": containers, "initContainers": [{"name": "istio-init"}]},
        "status": {"phase": "Running"}
    })
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn a_pod_is_examined() {
    let cluster = Cluster::new(&json!({"items": []}), "f15-own-id-pattern");
    let report = cluster.report(&["httpbin-0", "-n", "prod", "--context", "east"]);
    assert!(codes(&report).contains(&"svid-wrong-pattern"), "{report}");
    let expected =
        "kubectl --context east exec httpbin-0 --namespace prod --container istio-proxy -- pilot-agent request GET";
    for page in ["config_dump", "certs", "stats"] {
        assert!(cluster.log().contains(&format!("{expected} {page}\n")), "{}", cluster.log());
    }
}

#[test]
fn istioctl_is_called_if_kubectl_fails() {
    let cluster = Cluster::new(&json!({"items": []}), "f15-own-id-pattern");
    let output = cluster.doctor(&["broken", "-n", "prod"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("kubectl: ") && message.contains("pods is forbidden; istioctl: "), "{message}");

    cluster.executable("istioctl", "cat \"$here/config_dump\"");
    let report = cluster.report(&["broken", "-n", "prod"]);
    let found = codes(&report);
    assert!(found.contains(&"pages-incomplete") && found.contains(&"svid-wrong-pattern"), "{report}");
    assert!(cluster.log().contains("istioctl proxy-config all broken -o json --namespace prod\n"), "{}", cluster.log());
}

#[test]
fn a_page_that_cannot_be_read_is_unknown() {
    let cluster = Cluster::new(&json!({"items": []}), "f15-own-id-pattern");
    cluster.executable("kubectl", r#"case "$*" in *" config_dump") cat "$here/config_dump" ;; *) exit 1 ;; esac"#);
    let report = cluster.report(&["httpbin-0"]);
    let found = codes(&report);
    assert!(found.contains(&"pages-incomplete") && found.contains(&"svid-wrong-pattern"), "{report}");
}

#[test]
fn every_workload_is_summarized() {
    let mut native = pod("edge", "gateway", "a", &["app"]);
    native["spec"]["initContainers"] = json!([{"name": "istio-proxy"}]);
    let mut pending = pod("prod", "pending", "a", &["istio-proxy"]);
    pending["status"]["phase"] = json!("Pending");
    let mut broken = pod("prod", "other", "a", &["istio-proxy"]);
    broken["metadata"]["name"] = json!("broken");
    let pods = json!({"items": [
        pod("prod", "httpbin", "b", &["app", "istio-proxy"]), pod("prod", "httpbin", "a", &["istio-proxy", "app"]),
        pod("prod", "plain", "a", &["app"]), native, pending, broken,
    ]});
    let cluster = Cluster::new(&pods, "f10-remote-ip-blocks");
    let output = cluster.doctor(&["-A"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(cluster.log().contains("kubectl get pods -o json --all-namespaces\n"), "{}", cluster.log());
    for line in [
        "edge/gateway, 1 pod\n",
        "prod/httpbin, 2 pods\n",
        "  error    remote-address-untrusted: ",
        "[2 of 2 pods]\n",
        "prod/other, 1 pod\n  unknown  broken: kubectl: ",
        "\n4 pods: 3 examined, 1 unknown\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("plain") && !text.contains("pending"), "{text}");

    let report = cluster.report(&["-n", "prod", "--redact"]);
    assert!(cluster.log().contains("kubectl get pods -o json --namespace prod\n"), "{}", cluster.log());
    let workloads = report["workloads"].as_array().unwrap();
    assert_eq!(workloads.len(), 3, "{report}");
    assert_eq!(workloads[1]["pods"].as_array().unwrap().len(), 2, "{report}");
    assert!(codes(&workloads[1]["pods"][0]["report"]).contains(&"remote-address-untrusted"), "{report}");
}

#[test]
fn an_empty_answer_is_not_a_good_one() {
    let cluster = Cluster::new(&json!({"items": [pod("prod", "plain", "a", &["app"])]}), "f10-remote-ip-blocks");
    let output = cluster.doctor(&["-A"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true));
    assert!(message.contains("no running pod has a container `istio-proxy`"), "{message}");
    cluster.executable("kubectl", "echo not JSON");
    assert_eq!(cluster.doctor(&["-A"]).status.code(), Some(1));
    for wrong in [&["-A", "-n", "a"][..], &["127.0.0.1:1", "-n", "a"], &["-A", "x"]] {
        assert_eq!(cluster.doctor(wrong).status.code(), Some(1), "{wrong:?}");
    }
}

#[test]
fn reports_are_redacted() {
    let cluster = Cluster::new(&json!({"items": []}), "f15-own-id-pattern");
    let dump = fs::read_to_string(cluster.path("config_dump")).unwrap();
    fs::write(cluster.path("config_dump"), dump.replace("\"name\": \"inbound\"", "\"name\": \"10.1.2.3_8443\""))
        .unwrap();
    let shown = |arguments: &[&str]| String::from_utf8(cluster.doctor(arguments).stdout).unwrap();
    assert!(shown(&["a"]).contains("10.1.2.3_8443"));
    for arguments in [&["a", "--redact"][..], &["a", "--redact", "--format", "json"]] {
        let text = shown(arguments);
        assert!(!text.contains("10.1.2.3") && text.contains("address-1_8443"), "{text}");
        assert!(text.contains("spiffe://example.org/"), "{text}");
    }
}
