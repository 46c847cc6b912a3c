//! docs/reference/json-output.md has every field of `--format json`, with its types, and no other field.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/reference/json-output.md");

/// A row of a table on the page.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Field {
    /// The types, such as `string` and `null`.
    types: BTreeSet<String>,
    /// Whether the object can lack the field.
    is_optional: bool,
}

/// The fields of a subcommand, by their paths.
type Fields = BTreeMap<String, Field>;

/// Returns the table in the section of a subcommand.
fn documented(subcommand: &str) -> Fields {
    let (_, section) = PAGE.split_once(&format!("\n## {subcommand}\n")).unwrap_or_else(|| panic!("{subcommand}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let fields = rows.map(|row| {
        let (path, rest) = row.split_once("` | ").unwrap_or_else(|| panic!("{row}"));
        let kind = rest.split(" | ").next().unwrap_or_default();
        let (kind, is_optional) = kind.strip_suffix(", optional").map_or((kind, false), |kind| (kind, true));
        let types = kind.split(" or ").map(str::to_owned).collect();
        (path.to_owned(), Field { types, is_optional })
    });
    let count = section.lines().filter(|line| line.starts_with("| `")).count();
    let fields: Fields = fields.collect();
    assert_eq!(fields.len(), count, "{subcommand}: a field has two rows");
    fields
}

/// The fields that occur in the output of a subcommand.
struct Occurring<'d> {
    documented: &'d Fields,
    fields: Fields,
    /// The number of objects with each path, and that of objects in them with each field.
    objects: BTreeMap<String, u64>,
    counts: BTreeMap<String, u64>,
}

impl Occurring<'_> {
    fn add_type(&mut self, path: &str, kind: &str) {
        self.fields.entry(path.to_owned()).or_default().types.insert(kind.to_owned());
    }

    /// Returns `true` if the page gives a field this type.
    fn is_documented(&self, path: &str, kind: &str) -> bool {
        self.documented.get(path).is_some_and(|field| field.types.contains(kind))
    }

    fn add(&mut self, path: &str, value: &Value) {
        match value {
            Value::Null => self.add_type(path, "null"),
            Value::Bool(_) => self.add_type(path, "boolean"),
            Value::Number(_) => self.add_type(path, "number"),
            Value::String(_) => self.add_type(path, "string"),
            // The names of the fields are data.
            Value::Object(_) if self.is_documented(path, "map") => self.add_type(path, "map"),
            // The same object as the output for one Envoy.
            Value::Object(_) if self.is_documented(path, "report") => {
                self.add_type(path, "report");
                self.add("", value);
            }
            Value::Object(fields) => {
                if !path.is_empty() && !path.ends_with("[]") {
                    self.add_type(path, "object");
                }
                *self.objects.entry(path.to_owned()).or_default() += 1;
                for (name, value) in fields {
                    let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    *self.counts.entry(inner.clone()).or_default() += 1;
                    self.add(&inner, value);
                }
            }
            Value::Array(items) => {
                self.fields.entry(path.to_owned()).or_default();
                for item in items {
                    match item {
                        Value::String(_) => self.add_type(path, "list of strings"),
                        Value::Object(_) => {
                            self.add_type(path, "list of objects");
                            self.add(&format!("{path}[]"), item);
                        }
                        _ => panic!("{path}: {item}"),
                    }
                }
            }
        }
    }

    /// Returns the fields, with those that not every object has.
    fn into_fields(self) -> Fields {
        let Self { mut fields, objects, counts, .. } = self;
        for (path, field) in &mut fields {
            let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            field.is_optional = counts.get(path) < objects.get(parent);
        }
        fields
    }
}

/// A run of the command.
struct Run {
    folder: PathBuf,
    arguments: Vec<String>,
    input: Option<PathBuf>,
}

impl Run {
    /// Returns the JSON values on standard output, or for `import` and `learn` on standard error.
    fn values(&self) -> Vec<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        command.args(&self.arguments).current_dir(&self.folder).stdin(Stdio::null());
        if let Some(input) = &self.input {
            command.stdin(fs::File::open(self.folder.join(input)).unwrap());
        }
        // The folder can have a `kubectl`.
        command.env("PATH", format!("{}:/usr/bin:/bin", self.folder.display()));
        let output = command.output().unwrap();
        let is_report = ["import", "learn"].contains(&&*self.arguments[0]);
        let text = if is_report { &output.stderr } else { &output.stdout };
        let text = String::from_utf8_lossy(text);
        // The command reports its own errors as text.
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

#[derive(Deserialize)]
struct PolicyCase {
    arguments: Vec<String>,
    input: Option<PathBuf>,
}

#[derive(Deserialize)]
struct DoctorCase {
    arguments: Vec<String>,
}

fn cases(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder)
}

/// Returns the runs of the cases in `policy_cases` and `doctor_cases`.
fn runs_of_cases() -> Vec<Run> {
    let folder = cases("policy_cases");
    let text = fs::read_to_string(folder.join("cases.yaml")).unwrap();
    let policy_cases: Vec<PolicyCase> = serde_saphyr::from_str(&text).unwrap();
    let mut runs: Vec<Run> = policy_cases
        .into_iter()
        .filter(|case| !case.arguments.iter().any(|argument| ["-f", "--format"].contains(&&**argument)))
        .map(|PolicyCase { mut arguments, input }| {
            arguments.extend(["--format", "json"].map(str::to_owned));
            Run { folder: folder.clone(), arguments, input }
        })
        .collect();
    for folder in fs::read_dir(cases("doctor_cases")).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(folder.join("expect.json")).unwrap();
        let DoctorCase { arguments } = serde_json::from_str(&text).unwrap();
        runs.push(Run { folder, arguments, input: None });
    }
    runs
}

/// A document with every kind of policy.
const POLICY: &str = "trustDomain: example.org
policies:
- name: audited
  action: AUDIT
  rules: [{to: [{operation: {paths: [/audit]}}]}]
- name: all
  rules: [{from: [{source: {notNamespaces: [b]}}]}]
- name: trial
  action: DENY
  mode: shadow
  rules: [{to: [{operation: {methods: [PUT]}}]}]
";
/// A document whose shadow policy allows less than no policy.
const SHADOW: &str = "trustDomain: example.org
policies: [{name: trial, mode: shadow, rules: [{to: [{operation: {paths: [/a]}}]}]}]
";
/// A document that decides requests with many groups differently, and has a field that no request shows.
const CHANGED: &str = "trustDomain: example.org
identity: {requireValidated: true}
policies:
- name: all
  rules:
  - from: [{source: {notNamespaces: [c]}}]
    when: [{key: 'request.auth.claims[g]', values: [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t]}]
- name: not-here
  action: DENY
  rules: [{to: [{operation: {paths: [/a*], notPaths: [/ab]}}]}]
";
/// Statements that hold, fail or are not decided, depending on the document.
const INVARIANTS: &str = "invariants:
- name: nothing-at-ab
  never: {from: [{source: {notNamespaces: [d]}}], to: [{operation: {paths: [/ab]}}]}
- name: foreign
  always: {from: [{source: {principals: [example.net/a]}}]}
- name: everything
  always: {from: [{source: {notNamespaces: [d]}}], to: [{operation: {methods: [GET]}}]}
";
/// Policies of several workloads.
const SCOPED: &str = "trustDomain: example.org
scope: {rootNamespace: istio-system}
policies:
- name: gateway
  namespace: a
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]
  rules: [{to: [{operation: {paths: [/ab]}}]}]
";
/// A document for which the matrix has no answer.
const UNDECIDED: &str = "trustDomain: example.org
policies: [{name: a, rules: [{when: [{key: 'request.headers[:path]', values: [/a]}]}]}]
";
/// A request with every attribute.
const TABLE: &str = "policy: policy.yaml
cases:
- name: allowed
  request:
    peer: spiffe://example.org/ns/a/sa/b
    time: 2026-01-01T00:00:00Z
    host: a
    port: 1
    headers: {a: b}
    sourceIp: 10.0.0.1
    remoteIp: 10.0.0.1
    destinationIp: 10.0.0.1
    sni: a
    claims: {iss: a, sub: b}
    metadata: {a: {b: c}}
  expect: {verdict: deny}
- name: denied without a rule
  expect: {verdict: allow}
";
const LOG: &str = r#"{"port":5432,"received":0,"sent":0,"peer":"spiffe://example.org/ns/a/sa/b","source_ip":"10.0.0.1","sni":"a","verdict":"deny","reason":"no-policy-allows"}
{"verdict":"allow","peer":null,"method":"GET","path":"/"}
"#;
/// A log with paths that differ in numbers, and with requests that are not learned.
const TRAFFIC: &str = r#"{"time":"2026-02-11T09:30:00Z","verdict":"allow","peer":"spiffe://example.org/ns/a/sa/b","method":"GET","path":"/a/1","host":"h","port":1}
{"verdict":"allow","peer":"spiffe://example.org/ns/a/sa/b","method":"GET","path":"/a/2","host":"h","port":1}
{"verdict":"allow","peer":"spiffe://example.org/ns/a/sa/c","method":"GET","path":"/a/x","host":"h","port":1}
{"verdict":"allow","peer":"spiffe://example.net/ns/a/sa/c","method":"GET","path":"/a/x","host":"h","port":1}
{"verdict":"allow","peer":null,"method":"GET","path":"/"}
"#;
/// A log in which a template would match a sensitive path.
const SENSITIVE: &str = r#"{"verdict":"allow","peer":"spiffe://example.org/ns/a/sa/b","method":"GET","path":"/a/1"}
{"verdict":"allow","peer":"spiffe://example.org/ns/a/sa/b","method":"GET","path":"/a/2"}
{"verdict":"allow","peer":"spiffe://example.org/ns/a/sa/b","method":"PUT","path":"/a/admin"}
"#;
/// A log of the cluster's Envoy, and a pod that cannot be examined.
const KUBECTL: &str = r#"#!/bin/sh
case "$*" in
*"get pods"*) cat "${0%/*}/pods.json" ;;
*" broken "*) exit 1 ;;
*) for page in "$@"; do :; done
   cat "${0%/*}/$page" ;;
esac
"#;

/// Returns a pod with Istio's proxy.
fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"containers": [{"name": "istio-proxy"}]},
        "status": {"phase": "Running"}
    })
}

/// Returns a dump with a certificate and an authority for every trust domain.
fn secrets(certificate: &str, authority: &str) -> Value {
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let inline = |text: &str| json!({"inline_bytes": STANDARD.encode(text)});
    let certificate = json!({"@type": kind, "name": "default", "tls_certificate": {
        "certificate_chain": inline(certificate), "private_key": inline("[redacted]")
    }});
    let bundle = json!({"@type": kind, "name": "ROOTCA", "validation_context": {"trusted_ca": inline(authority)}});
    json!({"dynamic_active_secrets": [{"name": "default", "secret": certificate}, {"name": "ROOTCA", "secret": bundle}]})
}

/// Returns the runs for fields that occur in no case. Their files are in this directory.
fn other_runs(directory: &Path) -> Vec<Run> {
    let certificate = rcgen::CertificateParams::default().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    write("empty.yaml", "");
    write("policy.yaml", POLICY);
    write("shadow.yaml", SHADOW);
    write("changed.yaml", CHANGED);
    write("open.yaml", "trustDomain: example.org\npolicies: []\n");
    write("scoped.yaml", SCOPED);
    write("undecided.yaml", UNDECIDED);
    let of_service = include_str!("../../examples/policy/mesh.yaml")
        .replace("selector: {matchLabels: {app: database}}", "targetRef: {kind: Service, name: database}");
    write("mesh.yaml", &of_service);
    write("invariants.yaml", INVARIANTS);
    write("table.yaml", TABLE);
    let connection = "{name: a, request: {port: 1}, expect: {verdict: allow}}";
    write("tcp.yaml", &format!("policy: policy.yaml\nlayer: tcp\ncases: [{connection}]\n"));
    write("log", LOG);
    write("traffic", TRAFFIC);
    write("sensitive", SENSITIVE);
    write("tcp.log", &LOG.replace(r#""verdict":"deny","reason":"no-policy-allows""#, r#""verdict":"allow""#));
    let istio = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "a", "namespace": "a"},
        "spec": {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
    });
    write("istio.yaml", &istio.to_string());
    write("a.pem", &certificate.pem());
    write("secrets.json", &secrets(&certificate.pem(), &certificate.pem()).to_string());
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    write("unreadable.json", &secrets(damaged, damaged).to_string());
    write("listeners.json", r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump"}]}"#);
    write("pods.json", &json!({"items": [pod("web"), pod("broken")]}).to_string());
    write("kubectl", KUBECTL);
    fs::set_permissions(directory.join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
    for (page, file) in [("config_dump", "config_dump.json"), ("certs", "certs.json"), ("stats", "stats.txt")] {
        fs::copy(cases("doctor_cases/f15-own-id-pattern").join(file), directory.join(page)).unwrap();
    }
    let caller = "--peer=spiffe://example.org/ns/a/sa/b";
    let lines: [&[&str]; 32] = [
        &["check", "empty.yaml"],
        &["explain", "--policy=policy.yaml"],
        &["explain", "--policy=policy.yaml", caller, "--path=/audit"],
        &["explain", "--policy=policy.yaml", caller, "--method=PUT", "--source-ip=::1", "--destination-ip=::1"],
        &["explain", "--policy=shadow.yaml", caller, "--path=/b", "--remote-ip=::1", "--sni=a"],
        &["explain", "--policy=policy.yaml", caller, "--layer=tcp"],
        &["test", "table.yaml"],
        &["test", "table.yaml", "--coverage"],
        &["test", "tcp.yaml"],
        &["replay", "--policy=policy.yaml", "log"],
        &["diff", "policy.yaml", "changed.yaml"],
        &["diff", "changed.yaml", "policy.yaml"],
        &["who", "changed.yaml"],
        &["who", "open.yaml", "policy.yaml"],
        &["matrix", "changed.yaml", "scoped.yaml", "undecided.yaml", "mesh.yaml", "--trust-domain=example.org"],
        &["prove", "changed.yaml", "policy.yaml", "--invariants=invariants.yaml"],
        &["prove", "open.yaml", "--invariants=invariants.yaml"],
        &["learn", "--trust-domain=example.org", "--threshold=2", "traffic"],
        &["learn", "--trust-domain=example.org", "--threshold=2", "--hosts", "--ports", "traffic"],
        &["learn", "--trust-domain=example.org", "--threshold=2", "sensitive"],
        &["learn", "--trust-domain=example.org", "--layer=tcp", "tcp.log"],
        &["prune", "policy.yaml", "traffic", "log"],
        &["prune", "istio.yaml", "--trust-domain=example.org", "log"],
        &["id", "spiffe://example.org/ns/a/sa/b", "--pattern=istio"],
        &["cert", "a.pem"],
        &["doctor", "--config-dump=listeners.json"],
        &["doctor", "-A"],
        &["secret", "secrets.json"],
        &["secret", "unreadable.json"],
        &["secret", "listeners.json"],
        &["rule"],
        &["version"],
    ];
    let run = |arguments: &&[&str]| Run {
        folder: directory.to_owned(),
        arguments: arguments.iter().copied().chain(["--format", "json"]).map(str::to_owned).collect(),
        input: None,
    };
    lines.iter().map(run).collect()
}

#[test]
fn the_page_has_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let mut runs = runs_of_cases();
    runs.extend(other_runs(directory.path()));
    let mut wrong = Vec::new();
    for subcommand in [
        "check", "explain", "test", "import", "replay", "diff", "who", "matrix", "prove", "learn", "prune", "id",
        "cert", "doctor", "secret", "rule", "version",
    ] {
        let documented = documented(subcommand);
        let mut occurring = Occurring {
            documented: &documented,
            fields: Fields::new(),
            objects: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        for run in runs.extract_if(.., |run| run.arguments[0] == subcommand) {
            run.values().iter().for_each(|value| occurring.add("", value));
        }
        // Only some builds have a commit.
        if subcommand == "version" {
            ["string", "null"].iter().for_each(|kind| occurring.add_type("commit", kind));
        }
        let occurring = occurring.into_fields();
        let paths: BTreeSet<&String> = documented.keys().chain(occurring.keys()).collect();
        for path in paths {
            let (expected, found) = (documented.get(path), occurring.get(path));
            if expected != found {
                wrong.push(format!("{subcommand}: {path}: on the page {expected:?}, in the output {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
