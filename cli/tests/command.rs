//! The command as a user runs it.

use std::ffi::OsStr;
use std::io::Write as _;
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
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn outcome(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let output = run(&arguments, input);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn id_tells_the_parts() {
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
fn id_tells_where_it_breaks_and_goes_on() {
    let odd = OsStr::from_bytes(b"spiffe://td/\xff");
    let output = run(&["id".as_ref(), "--format".as_ref(), "json".as_ref(), odd, "spiffe://td/x".as_ref()], "");
    assert_eq!(output.status.code(), Some(3));
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["reason"], &lines[0]["offset"]), (&"spiffe-id-path-character".into(), &12.into()));
    assert_eq!(lines[1]["valid"], true);
}

#[test]
fn id_holds_against_a_pattern() {
    let (status, out) = outcome(&["id", "--pattern", "istio", "spiffe://td/x"], "");
    assert_eq!(
        (status, out.as_str()),
        (Some(3), "spiffe://td/x: wrong-pattern: the path does not have the form wanted\n")
    );
    assert_eq!(outcome(&["id", "--pattern", "/a//b", "spiffe://td/x"], "").0, Some(1));
}

#[test]
fn check_reports_every_mistake_and_its_place() {
    let (status, out) = outcome(&["check", "-"], r#"{"trustDomain":"Example.org","policys":[]}"#);
    assert_eq!(status, Some(3));
    for line in ["-: /policys: unknown-field: ", "-: /trustDomain: invalid-value: ", "-: /policies: missing-field: "] {
        assert!(out.lines().any(|found| found.starts_with(line)), "{line} in {out}");
    }
    assert_eq!(out.lines().count(), 3);
}

#[test]
fn check_accepts_and_says_so() {
    let good = r#"{"trustDomain":"example.org","policies":[]}"#;
    assert_eq!(outcome(&["check", "-"], good), (Some(0), "-: ok\n".to_owned()));
    let (status, out) = outcome(&["check", "--format", "json", "-"], good);
    assert_eq!((status, out.as_str()), (Some(0), "{\"diagnostics\":[],\"file\":\"-\",\"ok\":true}\n"));
}

#[test]
fn what_cannot_run_exits_1() {
    assert_eq!(outcome(&["check", "/does/not/exist"], "").0, Some(1));
    assert_eq!(outcome(&["check"], "").0, Some(1));
    assert_eq!(outcome(&["nonsense"], "").0, Some(1));
    assert_eq!(outcome(&["--help"], "").0, Some(0));
}
