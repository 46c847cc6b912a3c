//! examples/istio and docs/install-in-istio.md name the same files, and values that occur twice in them are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const GUIDE: &str = include_str!("../../docs/install-in-istio.md");

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/istio")
}

/// Every file below examples/istio, by its path from there.
fn files() -> BTreeSet<String> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                collect(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    collect(&examples(), &mut found);
    found.iter().map(|path| path.strip_prefix(examples()).unwrap().to_str().unwrap().to_owned()).collect()
}

fn text(file: &str) -> String {
    fs::read_to_string(examples().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The YAML documents of a file.
fn documents(file: &str) -> Vec<Value> {
    let text = text(file);
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{file}: {e}")))
        .collect()
}

/// Every Kubernetes resource, with its file.
fn resources(kind: &str) -> Vec<(String, Value)> {
    let yaml = files().into_iter().filter(|file| file.ends_with(".yaml"));
    yaml.flat_map(|file| documents(&file).into_iter().map(move |document| (file.clone(), document)))
        .filter(|(_, document)| document["kind"] == kind)
        .collect()
}

/// Every configuration of the filter in a manifest, with its file.
fn configurations() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (file, plugin) in resources("WasmPlugin") {
        found.insert(file, plugin["spec"]["pluginConfig"].clone());
    }
    for (file, extension) in resources("TrafficExtension") {
        found.insert(file, extension["spec"]["wasm"]["pluginConfig"].clone());
    }
    for (file, filter) in resources("EnvoyFilter") {
        for patch in filter["spec"]["configPatches"].as_array().unwrap() {
            let config = &patch["patch"]["value"]["typed_config"];
            let text = [&config["config"]["configuration"]["value"], &config["filter_config"]["value"]];
            if let Some(text) = text.into_iter().find_map(Value::as_str) {
                found.insert(file.clone(), serde_json::from_str(text).unwrap());
            }
        }
    }
    found
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).args(arguments).output().unwrap()
}

#[test]
fn the_guide_names_every_file_and_no_other() {
    let files = files();
    for file in files.iter().filter(|file| *file != "README.md") {
        assert!(
            GUIDE.contains(&format!("`{file}`")) || GUIDE.contains(&format!("({file})")),
            "{file} is not in docs/install-in-istio.md"
        );
    }
    let starts_with_step = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains("-");
    let code = GUIDE.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let named: BTreeSet<&str> =
        code.filter(|word| starts_with_step(word) && (word.ends_with(".yaml") || word.ends_with(".sh"))).collect();
    for file in &named {
        assert!(files.contains(*file), "docs/install-in-istio.md names {file}, which does not exist");
    }
    assert!(named.len() > 30, "{named:?}");
}

#[test]
fn every_configuration_is_one_of_the_policy_files() {
    let mut configurations = configurations();
    let policies: Vec<(String, Value)> = files()
        .into_iter()
        .filter(|file| file.starts_with("5-authorization/policies/") && !file.ends_with("_test.yaml"))
        .map(|file| (file.clone(), documents(&file).remove(0)))
        .collect();
    for (file, configuration) in &mut configurations {
        let target = if file.contains("/tcp/") { "tcp" } else { "http" };
        assert_eq!(check(configuration, target), None, "{file}");
        // The source of the identity is specific to the deployment, and the policies are not.
        configuration.as_object_mut().unwrap().remove("identity");
        assert!(policies.iter().any(|(_, policy)| policy == configuration), "{file} does not contain a policy file");
    }
    for (file, policy) in &policies {
        assert!(configurations.values().any(|configuration| configuration == policy), "no manifest contains {file}");
    }
    assert!(configurations.len() >= 8, "{configurations:?}");
}

/// Returns the problems that `spiffe-authz check` reports in a configuration, including notes, or `None`.
fn check(configuration: &Value, target: &str) -> Option<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), configuration.to_string()).unwrap();
    let output = command(&["check", "--fail-level", "note", "--target", target, file.path().to_str().unwrap()]);
    (!output.status.success()).then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_tables_of_the_policies_pass() {
    let tables = files().into_iter().filter(|file| file.ends_with("_test.yaml"));
    for table in tables {
        let output =
            command(&["test", "--coverage", "--coverage-threshold", "100", examples().join(&table).to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_filter_has_the_phase_authz_and_fails_closed() {
    for (file, resource) in [resources("WasmPlugin"), resources("TrafficExtension")].concat() {
        let spec = &resource["spec"];
        let wasm = if resource["kind"] == "WasmPlugin" { spec } else { &spec["wasm"] };
        assert_eq!(wasm["failStrategy"], "FAIL_RELOAD", "{file}");
        assert_eq!(wasm["sha256"].as_str().map(str::len), Some(64), "{file}");
        let of_http = wasm["type"] != "NETWORK";
        assert_eq!(spec["phase"], "AUTHZ", "{file}");
        // The listeners of a gateway have the mode CLIENT. Those of a waypoint have no port, and no outbound side.
        let is_sidecar = spec["selector"]["matchLabels"]["istio"] != "ingressgateway" && spec["targetRefs"].is_null();
        assert_eq!(spec["match"][0]["mode"] == "SERVER", is_sidecar, "{file}");
        assert!(of_http || is_sidecar, "{file}");
    }
}

#[test]
fn every_registration_has_the_class_and_a_selector() {
    let values = documents("1-spire/values.yaml").remove(0);
    assert_eq!(values["spire-server"]["controllerManager"]["watchClassless"], false);
    let registrations = resources("ClusterSPIFFEID");
    assert!(registrations.len() >= 3);
    for (file, resource) in [registrations.clone(), resources("ClusterFederatedTrustDomain")].concat() {
        assert_eq!(resource["spec"]["className"], "spire-server-spire", "{file}");
    }
    for (file, resource) in registrations {
        assert!(resource["spec"]["podSelector"].is_object(), "{file}");
        let template = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";
        assert_eq!(resource["spec"]["spiffeIDTemplate"], template, "{file}");
    }
}

#[test]
fn spire_and_istio_agree() {
    let spire = documents("1-spire/values.yaml").remove(0);
    let istio = documents("3-istio/istio.yaml").remove(0);
    let mesh = &istio["spec"]["meshConfig"];
    assert_eq!(spire["global"]["spire"]["trustDomain"], mesh["trustDomain"]);
    assert!(mesh["trustDomainAliases"].is_null());
    let sds = &spire["spire-agent"]["sds"];
    assert_eq!(sds["enabled"], true);
    for (name, value) in
        [("defaultSVIDName", "default"), ("defaultBundleName", "null"), ("defaultAllBundlesName", "ROOTCA")]
    {
        assert_eq!(sds[name], value, "{name}");
    }
    let federated: BTreeSet<String> = resources("ClusterFederatedTrustDomain")
        .iter()
        .map(|(_, resource)| resource["spec"]["trustDomain"].as_str().unwrap().to_owned())
        .collect();
    let of_mesh =
        mesh["caCertificates"].as_array().unwrap().iter().flat_map(|entry| entry["trustDomains"].as_array().unwrap());
    assert_eq!(of_mesh.map(|name| name.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), federated);
    for configuration in configurations().values() {
        assert_eq!(configuration["trustDomain"], mesh["trustDomain"]);
        let names = configuration["federatedTrustDomains"].as_array().unwrap().iter();
        assert_eq!(names.map(|name| name.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), federated);
    }

    let helm = documents("3-istio/helm/istiod.yaml").remove(0);
    assert_eq!(&helm["meshConfig"], mesh);
    assert_eq!(helm["sidecarInjectorWebhook"], istio["spec"]["values"]["sidecarInjectorWebhook"]);
}

#[test]
fn scripts_without_arguments_print_their_usage() {
    for (script, arguments) in [
        ("5-authorization/render.sh", &["oci://r.example/x:1"][..]),
        ("6-federation/bundle.sh", &["example-io"]),
        ("7-verify/svid.sh", &[]),
        ("8-clean-up/clean-up.sh", &[]),
    ] {
        let output = Command::new(examples().join(script)).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{script} {arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: "), "{script}: {output:?}");
    }
}

/// Runs the clean-up with programs that write down their arguments, instead of with a cluster. Returns its exit status
/// and the commands that change the cluster or SPIRE.
fn clean_up(arguments: &[&str], answer: &str, istiods: &str, left: &str) -> (Option<i32>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    fs::write(&log, "").unwrap();
    let write = |name: &str, body: &str| {
        let file = directory.path().join(name);
        fs::write(&file, format!("#!/bin/sh\necho {name} \"$@\" >>{}\n{body}\n", log.display())).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let answers = format!(
        "case \"$*\" in 'get deployments'*) echo '{istiods}' ;; 'get clusterspiffeids,'*) printf '{left}' ;; esac"
    );
    for (name, body) in [("kubectl", &*answers), ("helm", ""), ("istioctl", ""), ("spire-server", "")] {
        write(name, body);
    }
    let mut child = Command::new(examples().join("8-clean-up/clean-up.sh"))
        .args(arguments)
        .env("PATH", format!("{}:{}", directory.path().display(), env!("PATH")))
        .env("SPIRE_SERVER", directory.path().join("spire-server"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A script that does not ask can end before it reads.
    let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
    let status = child.wait().unwrap().code();
    let changes = |line: &&str| ["delete", "uninstall", "apply"].iter().any(|verb| line.contains(verb));
    (status, fs::read_to_string(&log).unwrap().lines().filter(changes).map(str::to_owned).collect())
}

const ISTIOD: &str = "istio-system/istiod";

#[test]
fn the_clean_up_asks_before_it_deletes() {
    for answer in ["", "n\n", "\n"] {
        assert_eq!(clean_up(&["all"], answer, ISTIOD, ""), (Some(1), Vec::new()), "{answer:?}");
    }
    assert_eq!(clean_up(&[], "y\n", ISTIOD, ""), (Some(2), Vec::new()));
    let (status, changes) = clean_up(&["4"], "y\n", ISTIOD, "");
    assert_eq!((status, changes.len()), (Some(0), 1), "{changes:?}");
    let (status, changes) = clean_up(&["--yes", "all"], "", ISTIOD, "");
    assert_eq!(status, Some(0), "{changes:?}");
    for part in ["istioctl uninstall", "helm delete -n spire-server spire", "-k 2-registration", "crd clusterspiffeids"]
    {
        assert!(changes.iter().any(|line| line.contains(part)), "{part}: {changes:?}");
    }
}

#[test]
fn the_clean_up_removes_the_named_steps_only() {
    let (status, changes) = clean_up(&["--yes", "5", "6"], "", ISTIOD, "");
    assert_eq!(status, Some(0));
    for part in ["uninstall", "helm", "namespace", "4-workloads", "delete --ignore-not-found --wait -k 2-registration"]
    {
        assert!(!changes.iter().any(|line| line.contains(part)), "{part}: {changes:?}");
    }
    // Objects that others installed stop it.
    let others = format!("{ISTIOD}\nistio-canary/istiod");
    assert_eq!(clean_up(&["--yes", "all"], "", &others, ""), (Some(1), Vec::new()));
    assert_eq!(clean_up(&["--yes", "1"], "", ISTIOD, "clusterspiffeid/other"), (Some(1), Vec::new()));
}

/// Runs render.sh in a copy of its folder, with this command.
fn render(arguments: &[&str]) -> (tempfile::TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("5-authorization");
    let copied = Command::new("cp").arg("-r").arg(examples().join("5-authorization")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let built = Path::new(env!("CARGO_BIN_EXE_spiffe-authz")).parent().unwrap();
    let path = format!("{}:{}", built.display(), env!("PATH"));
    let output = Command::new(copy.join("render.sh")).args(arguments).env("PATH", path).output().unwrap();
    (directory, output)
}

/// The files with objects in a directory, with their YAML.
fn objects(directory: &Path) -> BTreeMap<String, String> {
    let mut objects = BTreeMap::new();
    for folder in ["wasmplugin", "trafficextension", "envoyfilter", "dynamic-module", "waypoint", "tcp"] {
        for entry in fs::read_dir(directory.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if ["kind: WasmPlugin", "kind: TrafficExtension", "kind: EnvoyFilter"]
                .iter()
                .any(|kind| text.contains(kind))
            {
                objects.insert(format!("{folder}/{}", path.file_name().unwrap().to_string_lossy()), text);
            }
        }
    }
    objects
}

#[test]
fn the_manifests_are_rendered_from_the_policies() {
    let (directory, output) = render(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered = objects(&directory.path().join("5-authorization"));
    let committed = objects(&examples().join("5-authorization"));
    assert_eq!((rendered.len(), committed.len()), (9, 9));
    for (file, text) in rendered {
        assert!(text.starts_with("# Written by `spiffe-authz render`.\n"), "{file}");
        assert!(committed.get(&file) == Some(&text), "{file} is not what render.sh writes (run it)");
    }
}

#[test]
fn the_arguments_replace_the_image_in_every_manifest() {
    let digest = "0123456789abcdef".repeat(4);
    let (_directory, output) = render(&["oci://r.example/x:1", "sha256:0123"]);
    assert!(!output.status.success());
    let (directory, output) = render(&["oci://r.example/x:1", &format!("sha256:{digest}")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = objects(&directory.path().join("5-authorization"));
    let with_image: Vec<&String> = objects.values().filter(|text| text.contains("url: ")).collect();
    assert_eq!(with_image.len(), 6);
    for text in with_image {
        assert!(text.contains("url: oci://r.example/x:1\n") && text.contains(&digest), "{text}");
    }
}
