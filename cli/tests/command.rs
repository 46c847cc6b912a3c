//! The command as a user runs it.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&OsStr], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command with invalid options ends before it reads its input.
    match child.stdin.take().unwrap().write_all(input.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
        _ => {}
    }
    child.wait_with_output().unwrap()
}

fn outcome(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let output = run(&arguments, input);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn id_prints_the_parts() {
    let (status, out) = outcome(&["id", "--format", "json", "spiffe://example.org/ns/default/sa/sleep"], "");
    assert_eq!(status, Some(0));
    let expected = concat!(
        r#"{"id":"spiffe://example.org/ns/default/sa/sleep","valid":true,"trustDomain":"example.org","#,
        r#""namespace":"default","serviceAccount":"sleep"}"#,
        "\n"
    );
    assert_eq!(out, expected);
}

#[test]
fn id_prints_the_position_of_an_error_and_continues() {
    let odd = OsStr::from_bytes(b"spiffe://td/\xff");
    let output = run(&["id".as_ref(), "--format".as_ref(), "json".as_ref(), odd, "spiffe://td/x".as_ref()], "");
    assert_eq!(output.status.code(), Some(3));
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["reason"], &lines[0]["offset"]), (&"spiffe-id-path-character".into(), &12.into()));
    assert_eq!(lines[1]["valid"], true);
}

#[test]
fn id_checks_the_pattern() {
    let (status, out) = outcome(&["id", "--pattern", "istio", "spiffe://td/x"], "");
    assert_eq!(
        (status, out.as_str()),
        (
            Some(3),
            "spiffe://td/x: wrong-pattern: the path does not have the form `/ns/{namespace}/sa/{serviceAccount}`\n"
        )
    );
    assert_eq!(outcome(&["id", "--pattern", "/a//b", "spiffe://td/x"], "").0, Some(1));
}

#[test]
fn check_reports_every_error_and_its_place() {
    let (status, out) = outcome(&["check", "-"], r#"{"trustDomain":"Example.org","policys":[]}"#);
    assert_eq!(status, Some(3));
    for line in [
        "1:30: /policys: error: unknown-field: ",
        "1:16: /trustDomain: error: invalid-value: ",
        "1:1: /policies: error: missing-field: ",
    ] {
        assert!(out.lines().any(|found| found.starts_with(&format!("-:{line}"))), "{line} in {out}");
    }
    assert_eq!(out.lines().last(), Some("-: rejected: 3 errors"));
    // Each error has its line, with a line above it and a mark below it.
    assert_eq!(out.lines().count(), 3 * 4 + 1);
}

#[test]
fn check_reports_lints() {
    let good = r#"{"trustDomain":"example.org","policies":[],"ignoreLints":["nothing-allowed"]}"#;
    assert_eq!(outcome(&["check", "-"], good), (Some(0), "-: ok\n".to_owned()));
    let (status, out) = outcome(&["check", "--format", "json", "-"], good);
    assert_eq!((status, out.as_str()), (Some(0), "{\"accepted\":true,\"file\":\"-\",\"findings\":[]}\n"));

    let noted = "trustDomain: example.org\npolicies: []\n";
    assert_eq!(outcome(&["check", "-"], noted).0, Some(0));
    assert_eq!(outcome(&["check", "--fail-level", "note", "-"], noted).0, Some(3));
    let (_, out) = outcome(&["check", "--format", "github", "-"], noted);
    let expected = "/policies: no ALLOW policy is enforced (add an ALLOW policy)";
    assert_eq!(out, format!("::notice file=-,line=2,col=1,title=nothing-allowed::{expected}\n"));
    let (_, out) = outcome(&["check", "--format", "sarif", "-"], noted);
    let sarif: serde_json::Value = serde_json::from_str(&out).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"nothing-allowed".into(), &"note".into()));
    let rules = sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == "nothing-allowed"));
}

const POLICY: &str = r#"
trustDomain: example.org
federatedTrustDomains: [example.io]
policies:
- name: reads
  namespace: default
  rules:
  - from: [{source: {serviceAccounts: [sleep]}}]
    to: [{operation: {methods: [GET], paths: ["/public/*"]}}]
  - when: [{key: "request.headers[x-token]", values: [secret]}]
- name: no-admin
  action: DENY
  rules: [{to: [{operation: {paths: [/public/admin]}}]}]
"#;

fn policy_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), POLICY).unwrap();
    file
}

#[test]
fn explain_shows_what_is_skipped_on_tcp() {
    let file = policy_file();
    let policy = file.path().to_str().unwrap();
    let peer = "spiffe://example.org/ns/default/sa/sleep";
    let (status, out) =
        outcome(&["explain", "--layer", "tcp", "--policy", policy, "--peer", peer, "--port", "5432"], "");
    assert_eq!(status, Some(2));
    let expected = "\
deny: denied-by-policy by no-admin, rule 0
caller   spiffe://example.org/ns/default/sa/sleep
connection to port 5432, server name none
hint     A DENY policy matches the request.

DENY no-admin, rule 0: matches
  matches  to/0 paths: requires /public/admin; not evaluated on TCP

ALLOW default/reads, rule 0: skipped: a TCP connection has no HTTP attributes

ALLOW default/reads, rule 1: skipped: a TCP connection has no HTTP attributes

the connection is denied
";
    assert_eq!(out, expected);
}

#[test]
fn explain_shows_the_closest_match_first() {
    let file = policy_file();
    let policy = file.path().to_str().unwrap();
    let peer = "spiffe://example.org/ns/default/sa/other";
    let (status, out) = outcome(&["explain", "--policy", policy, "--peer", peer, "--path", "/public/a"], "");
    assert_eq!(status, Some(2));
    let expected = "\
deny: no-policy-allows
caller   spiffe://example.org/ns/default/sa/other
request  GET /public/a
hint     No ALLOW policy matches the request. If the request is intended, add a policy.

ALLOW default/reads, rule 0: no match: 1 field differs
  differs  from/0 serviceAccounts: requires sleep; got default/other
  matches  to/0 paths: requires /public/*; got /public/a
  matches  to/0 methods: requires GET; got GET

ALLOW default/reads, rule 1: no match: 1 field differs
  differs  when/0 request.headers[x-token]: requires secret; got nothing

DENY no-admin, rule 0: no match: 1 field differs
  differs  to/0 paths: requires /public/admin; got /public/a

the request is denied
";
    assert_eq!(out, expected);
    let header = ["explain", "--policy", policy, "--peer", peer, "--header", "X-Token: secret", "--format", "json"];
    let (status, out) = outcome(&header, "");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &answer["verdict"], &answer["rule"]), (Some(0), &"allow".into(), &1.into()));
    assert_eq!(answer["rules"][0]["fields"][0]["found"], serde_json::json!(["secret"]));
}

const LOG: &str = concat!(
    r#"[2026-01-01 00:00:00.000][1][warning][wasm] [source/x.cc:1] wasm log spiffe-authz: {"event":"deny","mode":"enforce","#,
    r#""reason":"denied-by-policy","peer":"spiffe://example.org/ns/default/sa/sleep","method":"GET","path":"/public/a","#,
    r#""host":"h","policy":"p","rule":0}"#,
    "\nanother line\n",
    r#"{"verdict":"allow","peer":"spiffe://example.org/ns/default/sa/sleep","method":"GET","path":"/public/admin"}"#,
    "\n",
    r#"{"verdict":"allow","peer":"spiffe://example.org/ns/default/sa/sleep","method":"GET","path":"/public/b"}"#,
    "\n",
    r#"{"verdict":"deny","reason":"foreign-trust-domain","peer":null,"method":"GET","path":"/"}"#,
    "\n",
    r#"{"verdict":"deny","peer":"spiffe://example.org/ns/default/sa/other","method":"GET","path":"/x"}"#,
    "\n",
);

#[test]
fn explain_reads_a_log_line() {
    let file = policy_file();
    let arguments = ["explain", "--policy", file.path().to_str().unwrap(), "--log"];
    let (status, out) = outcome(&arguments, LOG.lines().next().unwrap());
    assert_eq!((status, out.lines().next()), (Some(0), Some("allow by default/reads, rule 0")));
    assert_eq!(outcome(&arguments, "nothing").0, Some(1));
}

#[test]
fn replay_reports_changed_and_unknown_verdicts() {
    let file = policy_file();
    let arguments = ["replay", "--policy", file.path().to_str().unwrap(), "-"].map(OsStr::new);
    let output = run(&arguments, LOG);
    assert_eq!(output.status.code(), Some(3));
    let expected = "\
-:1: deny -> allow by default/reads, rule 0: spiffe://example.org/ns/default/sa/sleep: GET /public/a
-:3: allow -> deny (denied-by-policy) by no-admin, rule 0: spiffe://example.org/ns/default/sa/sleep: GET /public/admin
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let summary = String::from_utf8(output.stderr).unwrap();
    let expected = "5 requests: 2 would change, 2 unknown (the log lacks attributes); 1 line not understood\n";
    assert_eq!(summary, expected);
}

#[test]
fn test_reports_differences_and_coverage() {
    let file = policy_file();
    let table = |verdict: &str| {
        format!(
            "policy: {}\ncases:\n- name: a <read>\n  request: {{peer: 'spiffe://example.org/ns/default/sa/sleep', path: /public/x}}\n  \
             expect: {{verdict: {verdict}, policy: default/reads, rule: 0}}\n",
            file.path().display()
        )
    };
    let (status, out) = outcome(&["test", "--coverage", "-"], &table("allow"));
    assert_eq!(status, Some(0));
    let expected = "\
-: a <read>: ok
-: cases match 33% of the rules
  not matched: default/reads, rule 1
  not matched: no-admin, rule 0
1 passed, 0 failed
";
    assert_eq!(out, expected);
    assert_eq!(outcome(&["test", "--coverage", "--coverage-threshold", "34", "-"], &table("allow")).0, Some(3));
    assert_eq!(outcome(&["test", "--coverage", "--coverage-threshold", "33", "-"], &table("allow")).0, Some(0));

    let (status, out) = outcome(&["test", "-"], &table("deny"));
    assert_eq!(status, Some(3));
    assert!(out.contains("  verdict: expected deny, found allow\n"), "{out}");
    let (_, out) = outcome(&["test", "--format", "junit", "-"], &table("deny"));
    let failure =
        r#"name="a &lt;read&gt;" file="-" line="3"><failure message="verdict: expected deny, found allow">request "#;
    assert!(out.contains(failure), "{out}");
    let (_, out) = outcome(&["test", "--format", "tap", "-"], &table("deny"));
    assert!(out.starts_with("TAP version 14\n1..1\nnot ok 1 - -: a <read>\n# verdict: expected deny, found allow\n"));
    assert_eq!(outcome(&["test", "-"], "cases: []").0, Some(1));
    assert_eq!(outcome(&["test", "-"], &table("maybe")).0, Some(1));
}

#[test]
fn test_runs_the_corpus() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let tables: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    let arguments: Vec<&str> = ["test"].into_iter().chain(tables.iter().map(String::as_str)).collect();
    let (status, out) = outcome(&arguments, "");
    assert_eq!(status, Some(0), "{out}");
    assert!(tables.len() > 20 && out.lines().last().unwrap().ends_with(" passed, 0 failed"), "{out}");
}

/// The form that all commands have: a verb in the third person, at most 80 characters, and no full stop.
#[test]
fn help_has_one_form() {
    let (_, help) = outcome(&["--help"], "");
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let commands: Vec<&str> = commands.lines().take_while(|line| line.starts_with("  ")).collect();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands.into_iter().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
    {
        let (_, help) = outcome(&[command, "--help"], "");
        let first = help.lines().next().unwrap();
        assert!(first.len() <= 80 && first.split(' ').next().unwrap().ends_with('s'), "{command}: {first}");
        let (_, short) = outcome(&[command, "-h"], "");
        let options = short.split_once("\nOptions:\n").unwrap().1.lines().take_while(|line| !line.is_empty());
        for line in options.chain([first]) {
            assert!(!line.trim_end().ends_with('.'), "{command}: {line}");
        }
    }
}

/// Runs a command that must fail, in a directory with these files. Returns standard error.
fn error(arguments: &[&str], files: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.args(arguments).current_dir(directory.path()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn errors_say_where_and_what_to_do() {
    let policy = ("policy.yaml", "trustDomain: example.org\npolicies: []\n");
    for (arguments, files, expected) in [
        (
            &["check", "policy.yml"][..],
            &[policy][..],
            "error: policy.yml: No such file or directory (os error 2) (did you mean `policy.yaml`?)\n",
        ),
        (&["check", "other.yml"], &[policy], "error: other.yml: No such file or directory (os error 2)\n"),
        (
            &["explain", "--policy", "policy.yaml"],
            &[("policy.yaml", "trustDomain: EXAMPLE.org\npolicies: []\n")],
            "error: policy.yaml: document rejected: 1 error:\n  policy.yaml:1:14: /trustDomain: invalid-value: ",
        ),
        (
            &["test", "table.yaml"],
            &[policy, ("table.yaml", "policy: policy.yaml\ncases: []\ncaces: []\n")],
            "error: table.yaml: 2 errors:\n  table.yaml:2:8: `cases` is empty (expected at least one case)\n  table.yaml:3:1: unknown field `caces` (did you mean `cases`?)\n",
        ),
        (
            &["test", "table.yaml"],
            &[policy, ("table.yaml", "policy: polcy.yaml\ncases: [{name: a, expect: {verdict: deny}}]\n")],
            "error: table.yaml:1:9: `policy`: polcy.yaml: No such file or directory (os error 2) (did you mean `policy.yaml`?)\n",
        ),
        (
            &["test", "table.yaml"],
            &[("table.yaml", "cases: [{name: a, expect: {verdict: deny}}]\n")],
            "error: table.yaml:1:1: missing field `policy` or `configuration`\n",
        ),
        (
            &["secret", "policy.yaml"],
            &[policy],
            "error: policy.yaml: config_dump: expected a dump of Envoy's configuration or secrets, found JSON without `configs`\n",
        ),
        (
            &["doctor", "--config-dump", "policy.yaml"],
            &[policy],
            "error: policy.yaml: config_dump: expected a dump of Envoy's configuration or secrets, found JSON without `configs`\n",
        ),
        (&["doctor"], &[], "error: no Envoy to examine (give an admin interface, a pod, `--config-dump`, "),
        (
            &["explain", "--policy", "policy.yaml", "--claims", "[]"],
            &[policy],
            "error: invalid value '[]' for '--claims <JSON>': expected a JSON object: ",
        ),
        (&["chek", "policy.yaml"], &[policy], "error: unrecognized subcommand 'chek'\n\n  tip: "),
    ] {
        let message = error(arguments, files);
        assert!(message.starts_with(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn errors_exit_with_1() {
    assert_eq!(outcome(&["check", "/does/not/exist"], "").0, Some(1));
    assert_eq!(outcome(&["check"], "").0, Some(1));
    assert_eq!(outcome(&["nonsense"], "").0, Some(1));
    assert_eq!(outcome(&["--help"], "").0, Some(0));
}

#[test]
fn the_examples_in_the_help_are_valid() {
    let (_, overview) = outcome(&["--help"], "");
    let listed = overview.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut examples = 0;
    for command in listed.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help") {
        let (status, help) = outcome(&[command, "--help"], "");
        assert_eq!(status, Some(0), "{command}");
        let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1).take_while(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ").replace("|\n", "| ");
        for line in text.lines() {
            let arguments = line.rsplit_once("spiffe-authz ").unwrap().1.trim_end_matches(')');
            let arguments: Vec<&str> = arguments.split_whitespace().take_while(|word| *word != ">").collect();
            assert_eq!(arguments[0], command, "{line}");
            // The command reads every argument before `--help`.
            let (status, out) = outcome(&[&*arguments, &["--help"]].concat(), "");
            assert_eq!((status, out.is_empty()), (Some(0), false), "{line}");
            examples += 1;
        }
    }
    assert!(examples >= 20, "{examples}");
}
