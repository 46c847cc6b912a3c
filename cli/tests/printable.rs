//! No value reaches a terminal unescaped, whichever subcommand prints it and wherever the value comes from.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

/// A color, a bell, a CSI and a line break of ISO 8859, a bidirectional override, a line separator and a line break.
const HOSTILE: &str = "\u{1b}[31m\u{7}\u{9b}\u{85}\u{202e}\u{2028}\nx";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// A part of it, escaped.
const ESCAPED: &str = "\\u{7}\\u{9b}\\u{85}";
/// As invalid as the hostile value where a field has a form.
const HARMLESS: &str = "Harm less";

/// A run of the command: arguments, standard input, and files in the current directory.
struct Run {
    arguments: Vec<String>,
    input: String,
    files: Vec<(String, String)>,
}

fn run(arguments: &[&str], input: impl Into<String>, files: &[(&str, String)]) -> Run {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    Run { arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), input: input.into(), files }
}

impl Run {
    fn output(&self) -> Output {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in &self.files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
            .args(&self.arguments)
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Standard output and standard error.
    fn text(&self) -> String {
        let output = self.output();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
    }
}

fn is_hostile(character: char) -> bool {
    character.is_control() && character != '\n' || matches!(character, '\u{202e}' | '\u{2028}')
}

/// Runs a command with a harmless value and with the hostile one: the value appears, escaped, on as many lines.
#[track_caller]
fn check(make: impl Fn(&str) -> Run) {
    let harmless = make(HARMLESS).text();
    assert!(harmless.contains(HARMLESS), "{harmless}");
    let run = make(HOSTILE);
    let hostile = run.text();
    assert!(!hostile.contains(is_hostile), "{:?}: {hostile:?}", run.arguments);
    // TAP has a backslash of its own before each.
    assert!(hostile.replace("\\\\", "\\").contains(ESCAPED), "{:?}: {hostile}", run.arguments);
    assert_eq!(hostile.lines().count(), harmless.lines().count(), "{:?}: {hostile}\n{harmless}", run.arguments);
}

/// JSON that YAML reads, too: YAML forbids most control characters unless they are escaped.
fn ascii(value: &Value) -> String {
    let escaped = |character: char| {
        let units = character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
        if character.is_ascii() { character.to_string() } else { units }
    };
    value.to_string().chars().map(escaped).collect()
}

/// A document with a policy of this name, and with this value of a rule.
fn document(name: &str, header: &str) -> String {
    let rule = json!({"when": [{"key": "request.headers[x]", "values": [header]}]});
    json!({"trustDomain": "example.org", "policies": [{"name": name, "rules": [rule]}]}).to_string()
}

fn policy() -> (&'static str, String) {
    ("policy.json", document("p", "v"))
}

#[test]
fn checks_are_clean() {
    let with_name = |value: &str| {
        json!({"trustDomain": "example.org", "policies": [
            {"name": value, "rules": [{}]}, {"name": value, "rules": [{}]}
        ]})
    };
    check(|value| run(&["check", "-"], with_name(value).to_string(), &[]));
    check(|value| run(&["check", "-"], json!({"trustDomain": value, "policies": []}).to_string(), &[]));
    check(|value| run(&["check", "-"], json!({value: 1}).to_string(), &[]));
    let action = |value: &str| {
        json!({"trustDomain": "example.org", "policies": [{"name": "p", "action": value, "rules": [{}]}]}).to_string()
    };
    check(|value| run(&["check", "-"], action(value), &[]));
    check(|value| run(&["check", "--format", "github", "-"], action(value), &[]));
    check(|value| run(&["check", value], "", &[(value, document("p", "v"))]));
    check(|value| run(&["check", "--format", "github", value], "", &[(value, action("x"))]));
}

#[test]
fn explanations_are_clean() {
    let explain =
        |arguments: &[&str]| run(&[&["explain", "--policy", "policy.json"], arguments].concat(), "", &[policy()]);
    for option in ["--peer", "--method", "--path"] {
        check(|value| explain(&[option, value]));
    }
    check(|value| explain(&["--peer", "spiffe://example.org/ns/a/sa/b", "--header", &format!("x: {value}")]));
    check(|value| explain(&["--layer", "tcp", "--sni", value]));
    check(|value| run(&["explain", "--policy", "d"], "", &[("d", document(value, "v"))]));
    let known = ["explain", "--policy", "d", "--peer", "spiffe://example.org/ns/a/sa/b"];
    check(|value| run(&known, "", &[("d", document("p", value))]));
}

/// A line of a log that an attacker may have shaped.
fn line(field: &str, value: &str) -> String {
    let mut line = json!({"verdict": "allow", "peer": "spiffe://example.org/ns/a/sa/b", "method": "GET", "path": "/"});
    line[field] = json!(value);
    line.to_string()
}

#[test]
fn logs_are_clean() {
    for field in ["peer", "method", "path"] {
        check(|value| run(&["explain", "--policy", "policy.json", "--log"], line(field, value), &[policy()]));
    }
    let tcp = ["explain", "--policy", "policy.json", "--layer", "tcp", "--log"];
    check(|value| run(&tcp, line("sni", value), &[policy()]));
    // Headers are unknown to a log, so a policy without them decides.
    let deny = json!({"trustDomain": "example.org", "policies": [{"name": "p", "action": "DENY", "rules": [{}]}]});
    let deny = || ("policy.json", deny.to_string());
    for field in ["peer", "method", "path"] {
        check(|value| run(&["replay", "--policy", "policy.json", "-"], line(field, value), &[deny()]));
    }
    check(|value| run(&["replay", "--policy", "policy.json", value], "", &[deny(), (value, line("path", "/"))]));
    let named = |value: &str| {
        json!({"trustDomain": "example.org", "policies": [{"name": value, "action": "DENY", "rules": [{}]}]})
            .to_string()
    };
    check(|value| run(&["replay", "--policy", "d", "-"], line("path", "/"), &[("d", named(value))]));
}

#[test]
fn learned_policies_are_clean() {
    let learn = ["learn", "--trust-domain", "example.org", "--output", "policy", "-"];
    let request = |field: &str, value: &str| {
        // A request that is used, so that the command gets to its report.
        [line("path", "/a"), line(field, value)].join("\n")
    };
    for field in ["peer", "method", "path"] {
        let [hostile, harmless] = [HOSTILE, HARMLESS].map(|value| run(&learn, request(field, value), &[]).text());
        assert!(!hostile.contains(is_hostile), "{hostile:?}");
        assert_eq!(hostile, harmless, "{field}: the value is not used in both");
        assert!(hostile.contains("not used: 1 request "), "{hostile}");
    }
    // Other characters stay as they are.
    let text = run(&["learn", "--trust-domain", "example.org", "-"], line("path", "/\u{e9}'&<b>"), &[]).text();
    assert!(text.contains("/\u{e9}'&<b>"), "{text}");
    check(|value| run(&["learn", "--trust-domain", "example.org", value], "", &[]));
    check(|value| run(&["learn", "--policy", value, "-"], line("path", "/"), &[]));
    let outputs =
        |value: &str| json!({"trustDomain": "example.org", "outputs": {value: 1}, "policies": []}).to_string();
    check(|value| run(&["learn", "--policy", "d", "-"], line("path", "/"), &[("d", outputs(value))]));
}

#[test]
fn usage_of_rules_is_clean() {
    let unused = |value: &str| json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [{"when": [{"key": "request.headers[x]", "values": [value]}]}]}]});
    // Values of rules are not shown.
    let text = run(&["prune", "d", "-"], line("path", "/"), &[("d", unused(HOSTILE).to_string())]).text();
    assert!(!text.contains(is_hostile) && text.contains("not decided"), "{text}");
    check(|value| run(&["prune", value, "-"], line("path", "/"), &[(value, document("p", "v"))]));
    check(|value| run(&["prune", "d", value], "", &[("d", document("p", "v"))]));
    check(|value| run(&["prune", "d", "-"], line("path", "/"), &[("d", document(value, "v"))]));
}

fn table(name: &str, expected: &str) -> String {
    let case = json!({"name": name, "request": {}, "expect": {"verdict": "deny", "policy": expected}});
    ascii(&json!({"policy": "policy.json", "cases": [case]}))
}

#[test]
fn tables_are_clean() {
    for format in ["human", "tap"] {
        let test = ["test", "--coverage", "--format", format, "-"];
        check(|value| run(&test, table(value, "p"), &[policy()]));
        check(|value| run(&test, table("case", value), &[policy()]));
        check(|value| run(&["test", "--format", format, value], "", &[policy(), (value, table("case", "p"))]));
    }
    let document = |value: &str| ("policy.json", document(value, "v"));
    check(|value| run(&["test", "--coverage", "-"], table("case", "p"), &[document(value)]));
    let wrong = |value: &str| ascii(&json!({"configuration": {value: 1}, "cases": []}));
    check(|value| run(&["test", "-"], wrong(value), &[]));
    check(|value| run(&["test", "-"], ascii(&json!({value: 1})), &[]));
}

#[test]
fn answers_about_all_requests_are_clean() {
    let claim = |value: &str| {
        let rule = json!({"when": [{"key": "request.auth.claims[c]", "values": [value]}]});
        json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]}).to_string()
    };
    for format in ["human", "markdown", "sarif"] {
        let diff = ["diff", "--format", format, "policy.json", "d"];
        let escaped = |value: &str| run(&diff, "", &[policy(), ("d", claim(value))]);
        if format == "human" {
            check(escaped);
        } else {
            let (hostile, harmless) = (escaped(HOSTILE).text(), escaped(HARMLESS).text());
            assert!(!hostile.contains(is_hostile) && harmless.contains(HARMLESS), "{hostile}");
            assert_eq!(hostile.lines().count(), harmless.lines().count(), "{hostile}");
        }
    }
    check(|value| run(&["diff", value, value], "", &[]));
    check(|value| run(&["who", "d"], "", &[("d", claim(value))]));
    check(|value| run(&["matrix", "d"], "", &[("d", claim(value))]));
    let invariants = |value: &str| {
        let never = json!({"when": [{"key": "request.auth.claims[c]", "values": [value]}]});
        ascii(&json!({"invariants": [{"name": "i", "never": never}]}))
    };
    for format in ["human", "junit"] {
        let prove = ["prove", "--format", format, "--invariants", "i", "d"];
        let hostile = run(&prove, "", &[("i", invariants(HOSTILE)), ("d", claim(HOSTILE))]).text();
        let harmless = run(&prove, "", &[("i", invariants(HARMLESS)), ("d", claim(HARMLESS))]).text();
        assert!(!hostile.contains(is_hostile) && harmless.contains(HARMLESS), "{hostile}");
        assert_eq!(hostile.lines().count(), harmless.lines().count(), "{hostile}");
    }
    let wrong = |value: &str| ascii(&json!({"invariants": [{"name": "i", "never": {}, value: 1}]}));
    check(|value| run(&["prove", "--invariants", "i", "d"], "", &[("i", wrong(value)), ("d", claim("a"))]));
}

#[test]
fn imports_are_clean() {
    let import = ["import", "--trust-domain", "example.org", "-"];
    let resource = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "default", "annotations": {"istio.io/dry-run": name}});
        let version = "security.istio.io/v1";
        ascii(&json!({"apiVersion": version, "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}))
    };
    let remarks = |run: Run| String::from_utf8(run.output().stderr).unwrap();
    let specs: [fn(&str) -> Value; 3] = [
        |value| json!({value: 1}),
        |value| json!({"action": value, "rules": [{}]}),
        |value| json!({"rules": [{"from": [{"source": {"principals": [format!("cluster.local/ns/{value}/sa/a")]}}]}]}),
    ];
    for spec in specs {
        // The document on standard output has the name, too, in JSON.
        let of = |value| remarks(run(&import, resource(value, spec(value)), &[]));
        let (harmless, hostile) = (of(HARMLESS), of(HOSTILE));
        assert!(!hostile.contains(is_hostile) && hostile.contains(ESCAPED), "{hostile:?}");
        assert_eq!(hostile.lines().count(), harmless.lines().count(), "{hostile}\n{harmless}");
    }
    check(|value| run(&["import", "--trust-domain", value, "-"], "", &[]));
}

#[test]
fn ids_certificates_and_secrets_are_clean() {
    check(|value| run(&["id", &format!("spiffe://example.org/{value}")], "", &[]));
    check(|value| run(&["id", "--pattern", value, "spiffe://example.org/x"], "", &[]));
    check(|value| run(&["cert", value], "", &[(value, "no certificate".to_owned())]));
    check(|value| run(&["man", value], "", &[]));
    check(|value| run(&["secret", "--svid-secret", value, "-"], "{\"dynamicActiveSecrets\": []}", &[]));
    check(|value| run(&["secret", "--bundle-secret", value, "-"], "{\"dynamicActiveSecrets\": []}", &[]));
    // Names that a federated trust domain has chosen.
    let pool = |value: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, value);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let context = json!({"trustedCa": {"inlineString": pem}});
        let certificate = json!({"certificateChain": {"inlineString": pem}});
        json!({"dynamicActiveSecrets": [
            {"name": "ROOTCA", "secret": {"validationContext": context}},
            {"name": "default", "secret": {"tlsCertificate": certificate}},
        ]})
    };
    check(|value| run(&["secret", "-"], pool(value).to_string(), &[]));
}

#[test]
fn the_doctor_is_clean() {
    let doctor = ["doctor", "--config-dump", "dump", "--certs", "certs", "--stats", "stats"];
    let dump = |listener: Value| {
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {}, "last_updated": "2026-01-01T00:00:00Z"},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [listener]},
        ]})
    };
    let of = |listener: Value| {
        let files =
            [("dump", dump(listener).to_string()), ("certs", "{}".into()), ("stats", "server.uptime: 5".into())];
        run(&doctor, "", &files)
    };
    check(|value| of(json!({"warming_state": {"listener": {"name": value}}})));
    check(|value| of(json!({"error_state": {"failed_configuration": {"name": "l"}, "details": value}})));
    let unreadable = json!([{"name": "c", "filters": [{"typed_config": {"@type": MANAGER, "http_filters": 1}}]}]);
    check(|value| of(json!({"active_state": {"listener": {"name": value, "filter_chains": unreadable}}})));
    check(|value| run(&["doctor", &format!("unix:{value}")], "", &[]));
}

#[test]
fn errors_are_clean() {
    for command in ["check", "cert", "secret", "test"] {
        check(|value| run(&[command, value], "", &[]));
    }
    check(|value| run(&["explain", "--policy", "d"], "", &[("d", json!({value: 1}).to_string())]));
    check(|value| run(&[value], "", &[]));
    check(|value| run(&["rule", value], "", &[]));
    check(|value| run(&["check", &format!("--{value}"), "-"], "", &[]));
    check(|value| run(&["check", "--format", value, "-"], "", &[]));
    check(|value| run(&["explain", "--policy", "d", "--port", value], "", &[]));
}

/// The same values in formats for programs: valid there, and no control of a terminal either.
#[test]
fn machine_output_is_valid_and_clean() {
    let hostile = format!("{HOSTILE}\u{fffe}\u{ffff}");
    let documents = [
        run(&["check", "--format", "json", "-"], json!({&hostile: 1}).to_string(), &[]),
        run(&["check", "--format", "sarif", "-"], json!({&hostile: 1}).to_string(), &[]),
        run(&["explain", "--policy", "policy.json", "--path", &hostile, "--format", "json"], "", &[policy()]),
        run(&["test", "--format", "json", "-"], table(&hostile, "p"), &[policy()]),
        run(&["id", "--format", "json", &hostile], "", &[]),
        run(&["cert", "--format", "json", &hostile], "", &[(&hostile, String::new())]),
        run(&["secret", "--format", "json", "--svid-secret", &hostile, "-"], "{\"dynamicActiveSecrets\": []}", &[]),
    ];
    for run in documents {
        let text = String::from_utf8(run.output().stdout).unwrap();
        assert!(!text.contains(is_hostile), "{text:?}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value.to_string().contains("\u{9b}\u{85}\u{202e}\u{2028}\\nx\u{fffe}"), "{value}");
    }
    for (name, shown) in
        [(HARMLESS, HARMLESS), (&*hostile, "\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}&#x202e;&#x2028; x\u{fffd}\u{fffd}")]
    {
        let text = run(&["test", "--format", "junit", "-"], table(name, "p"), &[policy()]).text();
        assert!(text.contains(&format!("name=\"{shown}\"")), "{text}");
        // XML 1.0 section 2.2.
        let is_xml = |character: char| matches!(character, '\n' | ' '..='\u{fffd}' | '\u{10000}'..);
        assert!(text.chars().all(is_xml) && !text.contains(is_hostile), "{text:?}");
    }
}

#[test]
fn the_controller_is_clean() {
    check(|value| run(&["controller", "--listen", value], "", &[]));
}

#[test]
fn renderings_are_clean() {
    let arguments = ["render", "--to", "ecds", "--wasm", "/f.wasm", "--proxies", "sidecars:default", "-"];
    check(|value| run(&arguments, json!({"trustDomain": value, "policies": []}).to_string(), &[]));
    let document = |value: &str| {
        let rule = json!({"when": [{"key": "request.headers[x]", "values": [value]}]});
        json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": [rule]}]}).to_string()
    };
    let plugin = [
        "render",
        "--to",
        "wasm-plugin",
        "--proxies",
        "sidecars:default",
        "--image",
        "oci://a",
        "--sha256",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "-",
    ];
    for arguments in [&arguments[..], &plugin] {
        let output = run(arguments, document(HOSTILE), &[]).output();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !text.contains(is_hostile), "{text:?}");
        let parsed: Value = serde_saphyr::from_str(&text).unwrap();
        let written = parsed.to_string();
        assert!(written.contains("\u{9b}") || written.contains("\\u009b"), "{written}");
    }
}

/// Every subcommand that prints values is above.
#[test]
fn every_subcommand_is_tested() {
    let help = run(&["--help"], "", &[]).text();
    let commands = help.split_once("\nCommands:\n").unwrap().1.lines().take_while(|line| line.starts_with("  "));
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/printable.rs")).unwrap();
    let mut count = 0;
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        // These print constants only.
        if !["schema", "version", "completions", "help"].contains(&command) {
            assert!(source.contains(&format!("\"{command}\"")), "{command}");
            count += 1;
        }
    }
    assert!(count >= 9, "{count}");
}
