//! Input that the command does not understand, next to input that it does: every command fails.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The outcome of a command.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs a command in a directory with these files, with this standard input.
fn run_with(arguments: &[&str], files: &[(&str, &[u8])], input: &[u8]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let file = directory.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command can end before it reads its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran { status: output.status.code(), out, err }
}

/// Runs a command in a directory with these files.
fn run(arguments: &[&str], files: &[(&str, &str)]) -> Ran {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    run_with(arguments, &files, b"")
}

/// A document without problems.
const GOOD: &str = "trustDomain: example.org\npolicies: []\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn every_member_of_a_gzip_file_is_read() {
    let members = [gzip(GOOD), gzip("polcies: []\n")].concat();
    let Ran { status, out, .. } = run_with(&["check", "a.yaml.gz"], &[("a.yaml.gz", &members)], b"");
    assert_eq!(status, Some(3), "{out}");
    assert!(out.starts_with("a.yaml.gz:3:1: /polcies: error: unknown-field: "), "{out}");
    let rest = [gzip(GOOD), b"polcies: []\n".to_vec()].concat();
    let Ran { status, err, .. } = run_with(&["check", "a.yaml.gz"], &[("a.yaml.gz", &rest)], b"");
    assert_eq!((status, &*err), (Some(1), "error: a.yaml.gz: gzip: invalid gzip header\n"));
}

#[test]
fn unknown_values_next_to_a_document_are_reported() {
    for (name, text, expected) in [
        ("a.yaml", &*format!("{GOOD}---\nfoo: 1\n"), "a.yaml:4:1: /foo: error: unknown-field: "),
        ("a.yaml", &format!("{GOOD}---\n- a\n"), "a.yaml:4:1: /: error: wrong-type: expected an object, found a list"),
        ("a.json", r#"{"trustDomain":"example.org","policies":[]} 5"#, "a.json:1:45: /: error: wrong-type: "),
        ("a.json", r#"{"trustDomain":"example.org","policies":[]} null"#, "a.json:1:45: /: error: wrong-type: "),
        ("a.yaml", &format!("{GOOD}---\nplicy: a.yaml\ncases: []\n---\nfoo: 1\n"), "a.yaml:7:1: /foo: error: "),
    ] {
        for arguments in [["check", name], ["check", "."]] {
            let Ran { status, out, .. } = run(&arguments, &[(name, text)]);
            assert_eq!(status, Some(3), "{text}: {out}");
            let place = |line: &str| line.trim_start_matches("./").to_owned();
            assert!(out.lines().any(|line| place(line).starts_with(expected)), "{text}: {out}");
        }
        let Ran { status, err, .. } = run(&["explain", "--policy", name], &[(name, text)]);
        assert_eq!(status, Some(1), "{text}: {err}");
    }
}

#[test]
fn unknown_values_next_to_a_table_are_reported() {
    let table = "policy: policy.yaml\ncases: [{name: a, expect: {verdict: deny}}]\n---\ncase: []\n";
    for arguments in [["test", "table.yaml"], ["test", "."]] {
        let Ran { status, err, .. } = run(&arguments, &[("policy.yaml", GOOD), ("table.yaml", table)]);
        assert_eq!(status, Some(1), "{err}");
        assert!(err.contains("table.yaml:4:1: unknown field `case` (did you mean `cases`?)"), "{err}");
    }
    let Ran { status, out, .. } = run(&["check", "table.yaml"], &[("table.yaml", table)]);
    assert_eq!(status, Some(3), "{out}");
    assert!(out.starts_with("table.yaml:4:1: /case: error: unknown-field: "), "{out}");
}

/// A resource with the configuration of a filter, next to one with a good document.
fn plugins(kind: &str, spec: &str) -> String {
    let good = "spec: {url: 'oci://registry/authz:1', pluginConfig: {trustDomain: a, policies: []}}";
    format!("apiVersion: a/v1\nkind: WasmPlugin\n{good}\n---\napiVersion: a/v1\nkind: {kind}\nspec: {spec}\n")
}

#[test]
fn plugins_without_a_document_are_reported() {
    let field = "unknown-field: unknown field `polcies` (did you mean `policies`?)";
    for (kind, spec, expected) in [
        (
            "WasmPlugin",
            "{url: 'oci://other/a', pluginConfig: {polcies: []}}",
            &*format!("7:45: /polcies: error: {field}"),
        ),
        ("TrafficExtension", "{wasm: {pluginConfig: {polcies: []}}}", &format!("7:30: /polcies: error: {field}")),
        ("WasmPlugin", "{url: 'oci://registry/authz:1', pluginConfig: {a: 1}}", "7:54: /a: error: unknown-field: "),
        (
            "WasmPlugin",
            "{url: 'oci://other/spiffe-authz', pluginConfig: {}}",
            "7:55: /policies: error: missing-field: ",
        ),
        ("WasmPlugin", "{url: 'oci://other/spiffe-authz', pluginConfig: text}", "7:55: /: error: wrong-type: "),
        ("WasmPlugin", "{url: 'oci://other/spiffe-authz'}", "7:7: /: error: syntax: the resource has no document "),
    ] {
        let text = plugins(kind, spec);
        for arguments in [["check", "a.yaml"], ["check", "."]] {
            let Ran { status, out, .. } = run(&arguments, &[("a.yaml", &text)]);
            assert_eq!(status, Some(3), "{text}: {out}");
            assert!(out.contains(&format!("a.yaml:{expected}")), "{expected} in {out}");
        }
    }
    // The plugin of another module.
    let text = plugins("WasmPlugin", "{url: 'oci://other/waf', pluginConfig: {rules: []}}");
    assert_eq!(run(&["check", "a.yaml"], &[("a.yaml", &text)]).status, Some(0));
}

#[test]
fn documents_in_bytes_are_found() {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let bad = "{\"trustDomain\":\"Example.org\",\"policies\":[],\"ignoreLints\":[\"??>>\"]}";
    for (value, expected) in [
        (STANDARD.encode(bad), "7:12: /trustDomain: error: invalid-value: "),
        (URL_SAFE_NO_PAD.encode(bad), "7:12: /trustDomain: error: invalid-value: "),
        (STANDARD.encode("trustDomain: a\npolicies: []"), "7:12: /: error: syntax: "),
        (STANDARD.encode(b"{\"trustDomain\":\"\xff\"}"), "7:12: /: error: syntax: the bytes are not UTF-8 "),
    ] {
        for field in ["configuration", "filter_config"] {
            let text = envoy(field, "BytesValue", &value);
            let Ran { status, out, .. } = run(&["check", "a.yaml"], &[("a.yaml", &text)]);
            assert_eq!(status, Some(3), "{out}");
            assert!(out.contains(&format!("a.yaml:{}", expected)), "{expected} in {out}");
        }
    }
    let text = envoy("configuration", "BytesValue", "bm90aGluZw==");
    assert_eq!(run(&["check", "a.yaml"], &[("a.yaml", &text)]).status, Some(0));
}

/// Returns a configuration of Envoy with two filters of these adapters, the first of which has a document in a string.
fn envoy(field: &str, kind: &str, value: &str) -> String {
    format!(
        "static_resources:
- configuration:
    '@type': type.googleapis.com/google.protobuf.StringValue
    value: '{{\"trustDomain\":\"example.org\",\"policies\":[]}}'
- {field}:
    '@type': type.googleapis.com/google.protobuf.{kind}
    value: {value}
"
    )
}

#[test]
fn documents_that_a_filter_cannot_read_are_errors() {
    let document = "{trustDomain: example.org, policies: []}";
    let yaml = "|\n      trustDomain: example.org\n      policies: []";
    let twice = r#"'{"trustDomain":"a","policies":[]}{}'"#;
    for (kind, value, expected) in [
        ("Struct", document, "a.yaml:7:12: /: error: syntax: found a `google.protobuf.Struct`, which reaches "),
        ("StringValue", yaml, "a.yaml:8:10: /: error: syntax: expected "),
        ("StringValue", twice, "a.yaml:7:12: /: error: syntax: trailing characters "),
    ] {
        let text = envoy("configuration", kind, value);
        let files = [("a.yaml", &*text)];
        let Ran { status, out, .. } = run(&["check", "a.yaml"], &files);
        assert_eq!(status, Some(3), "{out}");
        assert!(out.lines().any(|line| line.starts_with(expected)), "{out}");
        let Ran { status, err, .. } = run(&["explain", "--policy", "a.yaml"], &files);
        assert_eq!(status, Some(1), "{err}");
        assert!(err.contains("error: a.yaml: document rejected: 1 error:\n  a.yaml:"), "{err}");
    }
    // Envoy passes a structure to a dynamic module as JSON.
    let text = envoy("filter_config", "Struct", "{trustDomain: Example.org, policies: []}");
    let Ran { status, out, .. } = run(&["check", "a.yaml"], &[("a.yaml", &text)]);
    assert_eq!(status, Some(3), "{out}");
    assert!(out.contains("a.yaml:7:26: /trustDomain: error: invalid-value: "), "{out}");
}

#[test]
fn a_closed_pipe_keeps_the_exit_status() {
    let policy =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: CUSTOM}\n";
    let files: [(&str, &str); 5] = [
        ("policy.yaml", policy),
        ("good.yaml", GOOD),
        ("bad.yaml", "polcies: []\n"),
        ("table.yaml", "policy: good.yaml\ncases: [{name: a, expect: {verdict: allow}}]\n"),
        ("log", r#"{"verdict":"allow","peer":null,"method":"GET","path":"/"}"#),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    for (arguments, status) in [
        (&["check", "good.yaml"][..], 0),
        (&["check", "bad.yaml"], 3),
        (&["check", "missing.yaml"], 1),
        (&["check", "table.yaml", "bad.yaml"], 3),
        (&["explain", "--policy", "good.yaml"], 2),
        (&["test", "table.yaml"], 3),
        (&["replay", "--policy", "good.yaml", "log"], 3),
        (&["id", "spiffe://a", "nothing"], 3),
        (&["cert", "good.yaml"], 3),
        (&["import", "--trust-domain", "example.org", "good.yaml"], 1),
        (&["import", "--trust-domain", "example.org", "policy.yaml"], 3),
        (&["rule"], 0),
        (&["schema"], 0),
        (&["--help"], 0),
    ] {
        let closed = || std::io::pipe().unwrap().1;
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        let command = command.args(arguments).current_dir(directory.path()).stdin(Stdio::null());
        assert_eq!(command.stdout(closed()).stderr(closed()).status().unwrap().code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn values_that_are_too_deep_are_errors() {
    let expected = "expected at most 128 objects and lists in each other";
    for (name, start, end, column) in [
        ("a.json", "[", "]", 129),
        ("a.yaml", "[", "]", 129),
        ("a.json", r#"{"a":"#, "}", 5 * 128 + 1),
        ("a.yaml", "{a: ", "}", 4 * 128 + 1),
        ("a.yaml", "- ", "", 2 * 128 + 1),
    ] {
        for count in [129, 200, 100_000] {
            let text = format!("{}1{}", start.repeat(count), end.repeat(count));
            let Ran { status, out, err } = run(&["check", name], &[(name, &text)]);
            let problem = out.lines().next().unwrap_or(&err);
            // The scanner of YAML has a limit of its own for braces.
            let is_at = |column| problem.starts_with(&format!("{name}:1:{column}: /: error: syntax: {expected} ("));
            assert!(is_at(column) || (name == "a.yaml" && is_at(4 * 255 + 1)), "{problem}");
            assert_eq!(status, Some(3));
        }
        let text = format!("{}1{}", start.repeat(127), end.repeat(127));
        let Ran { out, .. } = run(&["check", name], &[(name, &text)]);
        assert!(!out.is_empty() && !out.contains("syntax"), "{out}");
    }
}

/// A certificate that is not an X509-SVID, because it has no SPIFFE ID.
fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
}

#[test]
fn one_bad_input_does_not_hide_the_others() {
    let none = "error: standard input: no SPIFFE ID (expected one on each line)\n";
    for input in [&b""[..], b"\n \n"] {
        let Ran { status, out, err } = run_with(&["id", "-"], &[], input);
        assert_eq!((status, &*out, &*err), (Some(1), "", none));
        let Ran { status, out, err } = run_with(&["id", "-", "spiffe://a"], &[], input);
        assert_eq!((status, &*out, &*err), (Some(1), "spiffe://a: valid, trust domain a\n", none));
    }

    let files = [("a.pem", &*certificate()), ("key.pem", "-----BEGIN PRIVATE KEY-----")];
    for other in ["missing.pem", "key.pem"] {
        for arguments in [["cert", other, "a.pem"], ["cert", "a.pem", other]] {
            let Ran { status, out, err } = run(&arguments, &files);
            assert_eq!(status, Some(1), "{err}");
            assert!(out.starts_with("a.pem: not an X509-SVID: ") && err.starts_with(&format!("error: {other}: ")));
        }
    }

    let request = r#"{"verdict":"deny","reason":"no-peer-certificate","peer":null,"method":"GET","path":"/"}"#;
    let files = [("policy.yaml", GOOD), ("log", request), ("other", "a\nb\n"), ("empty", "")];
    for (other, lines) in [("other", "2 lines, none understood"), ("empty", "0 lines")] {
        let Ran { status, err, .. } = run(&["replay", "--policy", "policy.yaml", "log", other], &files);
        assert_eq!(status, Some(1), "{err}");
        assert!(err.starts_with(&format!("error: {other}: no request: {lines} (")), "{err}");
        assert!(err.contains("\n1 request: 0 would change, 0 unknown"), "{err}");
    }
}

#[test]
fn links_that_lead_nowhere_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), GOOD).unwrap();
    std::os::unix::fs::symlink("a.yaml", directory.path().join("b.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("unrelated")).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        command.args(["check", "."]).current_dir(directory.path()).output().unwrap()
    };
    assert_eq!(check().status.code(), Some(0));
    std::os::unix::fs::symlink("nowhere", directory.path().join("c.yaml")).unwrap();
    let output = check();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*err), (Some(1), "error: ./c.yaml: No such file or directory (os error 2)\n"));
    assert!(String::from_utf8(output.stdout).unwrap().contains("./b.yaml: ok"));
}

/// A line of the filter about a denied connection, without a method and a path.
const CONNECTION: &str = r#"[2026-02-11 09:30:01.500][21][warning][wasm] [x.cc:1] wasm log spiffe-authz: {"event":"deny","mode":"enforce","reason":"no-policy-allows","peer":"spiffe://example.org/ns/a/sa/b","method":null,"path":null,"host":null,"policy":null,"rule":null,"suppressed":3}"#;

#[test]
fn replay_reads_connections_and_counts_what_it_does_not_read() {
    let policy = "trustDomain: example.org\npolicies: [{name: all, rules: [{}]}, {name: gets, rules: [{to: [{operation: {methods: [GET]}}]}]}]\n";
    let damaged = r#"{"verdict":"allow","peer":null,"method":"GET","path":"/","port":"eighty"}"#;
    let log = format!("{CONNECTION}\n{damaged}\n{}\n", CONNECTION.replace(":3}", ":4}"));
    let files = [("policy.yaml", policy), ("log", &*log)];
    let Ran { status, out, err } = run(&["replay", "--policy", "policy.yaml", "log"], &files);
    let change = "deny -> allow by all, rule 0: spiffe://example.org/ns/a/sa/b: a connection\n";
    assert_eq!((status, out), (Some(3), format!("log:1: {change}log:3: {change}")));
    let expected = "2 requests: 2 would change, 0 unknown (the log lacks attributes); 1 line not understood; 7 lines suppressed by the filter\n";
    assert_eq!(err, expected);
    let Ran { out, .. } = run(&["replay", "--format", "json", "--policy", "policy.yaml", "log"], &files);
    assert!(out.contains(r#""request":{"peer":"spiffe://example.org/ns/a/sa/b"}"#), "{out}");
}

/// `explain --log` reads a line as `replay` does.
#[test]
fn explain_reads_a_line_as_replay_does() {
    let files = [("policy.yaml", GOOD.as_bytes())];
    let explain = |arguments: &[&str], line: &[u8]| {
        let arguments = [&["explain", "--policy", "policy.yaml", "--log"], arguments].concat();
        run_with(&arguments, &files, line)
    };
    let Ran { status, out, err } = explain(&[], CONNECTION.as_bytes());
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("\nconnection to "), "{out}");
    let Ran { out, .. } = explain(&["--format", "json"], CONNECTION.as_bytes());
    assert!(out.contains(r#""request":{"peer":"spiffe://example.org/ns/a/sa/b"}"#), "{out}");
    let Ran { status, err, .. } = explain(&["--layer", "http"], CONNECTION.as_bytes());
    let expected = "error: standard input: the line is about a TCP connection (omit `--layer http`)\n";
    assert_eq!((status, &*err), (Some(1), expected));
    let request = r#"{"verdict":"deny","reason":"no-peer-certificate","peer":null,"method":"GET","path":"/"}"#;
    let line = [b"\xff prefix ", request.as_bytes()].concat();
    assert_eq!(explain(&[], &line).status, Some(2));
    let Ran { status, err, .. } = explain(&[], request.replace(r#""peer":null,"#, "").as_bytes());
    assert_eq!(status, Some(1));
    assert!(
        err.starts_with("error: standard input: 0 requests; 1 line not understood (expected one line of "),
        "{err}"
    );
}

/// The filter writes no caller without an accepted identity, so the line is not one of a caller without a certificate.
#[test]
fn explain_reports_a_line_without_its_caller() {
    let known = r#"{"verdict":"deny","reason":"no-peer-certificate","peer":null,"method":"GET","path":"/"}"#;
    let without = known.replace(r#""reason":"no-peer-certificate","#, "");
    for (line, denied) in [
        (known.replace("no-peer-certificate", "foreign-trust-domain"), "denied with `foreign-trust-domain`"),
        (
            known.replace("no-peer-certificate", "svid-expired").replace("null", "\"spiffe://a\""),
            "denied with `svid-expired`",
        ),
        (without, "denied without a reason"),
    ] {
        let arguments = ["explain", "--policy", "policy.yaml", "--log"];
        let Ran { status, out, err } = run_with(&arguments, &[("policy.yaml", GOOD.as_bytes())], line.as_bytes());
        let expected = format!(
            "error: standard input: the line does not contain the caller, who is {denied} (use `--peer`, `--method` and `--path` instead of `--log`)\n"
        );
        assert_eq!((status, &*out, err), (Some(1), "", expected));
    }
}

#[test]
fn a_connection_in_a_table_has_no_method() {
    let case = "{name: a, request: {port: 1}, expect: {verdict: allow}}";
    let table = format!("policy: policy.yaml\nlayer: tcp\ncases: [{case}]\n");
    let files = [("policy.yaml", GOOD), ("table.yaml", &table)];
    let Ran { out, .. } = run(&["test", "table.yaml"], &files);
    assert!(out.contains("\n  request   a connection from a caller without an identity\n"), "{out}");
    let Ran { out, .. } = run(&["test", "table.yaml", "--format", "json"], &files);
    assert!(out.contains(r#""request":{"port":1}"#), "{out}");
}

#[test]
fn mistakes_in_tables_are_placed_and_have_the_words_of_the_format() {
    for (request, column, expected) in [
        ("[]", 22, "expected an object, found a list"),
        ("null", 22, "expected an object, found null"),
        ("{method: GET, method: POST}", 36, "duplicate field `method` (remove one of the two)"),
        ("{headers: {a: b, a: c}}", 39, "duplicate field `a` (remove one of the two)"),
        ("{claims: {a: {b: 1, b: 2}}}", 42, "duplicate field `b` (remove one of the two)"),
        ("{headers: {a: 1}}", 36, "expected a string, found a number"),
        ("{headers: {a: [b, 1]}}", 40, "expected a string, found a number"),
        ("{headers: [a]}", 32, "expected an object, found a list"),
        ("{port: x}", 29, "expected an integer from 0 to 65535, found a string"),
        ("{port: 1.5}", 29, "expected an integer from 0 to 65535, found 1.5"),
        ("{path: null}", 29, "expected a string, found null"),
    ] {
        let table =
            format!("policy: policy.yaml\ncases:\n- {{name: a, request: {request}, expect: {{verdict: deny}}}}\n");
        let Ran { status, err, .. } = run(&["test", "table.yaml"], &[("policy.yaml", GOOD), ("table.yaml", &table)]);
        assert_eq!((status, err), (Some(1), format!("error: table.yaml:3:{column}: {expected}\n")), "{request}");
    }
    for (table, expected) in [
        ("- {policy: policy.yaml}", "1:1: expected an object with `policy` and `cases`, found a list"),
        ("policy: policy.yaml\ncases: [[a, {}, {verdict: deny}]]", "2:9: expected an object, found a list"),
        ("policy: policy.yaml\ncases: [{name: a, expect: [deny]}]", "2:27: expected an object, found a list"),
        (
            "policy: policy.yaml\nlayer: {tcp: 1}\ncases: [{name: a, expect: {verdict: allow}}]",
            "2:8: expected a string, found an object",
        ),
    ] {
        let Ran { status, err, .. } = run(&["test", "table.yaml"], &[("policy.yaml", GOOD), ("table.yaml", table)]);
        assert_eq!((status, err), (Some(1), format!("error: table.yaml:{expected}\n")), "{table}");
    }
}

#[test]
fn errors_name_the_file_and_the_next_step() {
    let request = r#"{"verdict":"allow","peer":null,"method":"GET","path":"/"}"#;
    let log = gzip(&format!("{request}\n").repeat(100));
    let cut = &log[..log.len() - 4];
    let table = b"policy: ''\ncases: [{name: a, expect: {verdict: deny}}]\n";
    let files =
        [("policy.yaml", GOOD.as_bytes()), ("folder/a", b""), ("table.yaml", table), ("latin.yaml", b"a: \xe9")];
    for (arguments, expected) in [
        (&["replay", "--policy", "policy.yaml", "folder"][..], "error: folder: Is a directory (os error 21)\n"),
        (&["replay", "--policy", "policy.yaml", "-"], "error: standard input:101: "),
        (&["explain", "--policy", "policy.yaml", "--log"], "error: standard input:101: "),
        (&["check", "-"], "error: standard input: gzip: "),
        (&["test", "-"], "error: standard input: gzip: "),
        (&["secret", "-"], "error: standard input: config_dump: gzip: "),
        (&["test", "table.yaml"], "error: table.yaml:1:9: expected the name of a file, found an empty string\n"),
        (
            &["check", "latin.yaml"],
            "error: latin.yaml: the file is neither UTF-8 nor UTF-16 (save the file as UTF-8)\n",
        ),
        (
            &["doctor", "--config-dump", "latin.yaml"],
            "error: latin.yaml: config_dump: the page is neither UTF-8 nor UTF-16 (save the page as UTF-8)\n",
        ),
    ] {
        let Ran { status, err, .. } = run_with(arguments, &files, cut);
        assert_eq!(status, Some(1), "{arguments:?}: {err}");
        assert!(err.starts_with(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn a_hyphen_is_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let policy = "trustDomain: example.org\npolicies: []\nignoreLints: [nothing-allowed]\n";
    std::fs::write(directory.path().join("policy.yaml"), policy).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.args(["check", "policy.yaml", "-o", "-"]).current_dir(directory.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "policy.yaml: ok\n");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
