//! `check` with a selection of lints, and with a baseline of accepted findings.

use std::fs;
use std::path::Path;
use std::process::Command;

const DOCUMENT: &str = "\
trustDomain: example.org
federatedTrustDomains: [partner.example]
policies:
- name: open
  namespace: default
  rules:
  - to: [{operation: {methods: [get]}}]
";

struct Outcome {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs `check ARGUMENTS… document.yaml` in a directory.
fn check(directory: &Path, arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .current_dir(directory)
        .arg("check")
        .args(arguments)
        .arg("document.yaml")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("document.yaml", DOCUMENT)].iter().chain(files) {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// The codes of the findings in human-readable output.
fn codes(out: &str) -> Vec<&str> {
    let problems = out.lines().filter(|line| line.starts_with("document.yaml:") && line.contains(": /policies/"));
    problems.filter_map(|line| line.split(": ").nth(3)).collect()
}

#[test]
fn lints_are_selected_by_options_and_by_a_file() {
    let config = "ignore: [any-caller]\nseverity: {improbable-value: error}\n";
    let directory = directory(&[("lints.yaml", config), ("only.json", r#"{"select": ["any-caller"]}"#)]);
    for (arguments, status, expected) in [
        (&[][..], 3, &["improbable-value", "any-caller"][..]),
        (&["--ignore", "improbable-value"], 0, &["any-caller"]),
        (&["--ignore", "improbable-value,any-caller"], 0, &[]),
        (&["--select", "any-caller"], 0, &["any-caller"]),
        (&["--select", "any-caller", "--severity", "any-caller=error"], 3, &["any-caller"]),
        (&["--severity", "improbable-value=note"], 0, &["improbable-value", "any-caller"]),
        (&["--config", "lints.yaml", "--fail-level", "error"], 3, &["improbable-value"]),
        (&["--config", "lints.yaml", "--severity", "improbable-value=note"], 0, &["improbable-value"]),
        (&["--config", "lints.yaml", "--ignore", "improbable-value"], 0, &["any-caller"]),
        (&["--config", "only.json"], 0, &["any-caller"]),
    ] {
        let Outcome { status: found, out, err } = check(directory.path(), arguments);
        assert_eq!((found, codes(&out)), (Some(status), expected.to_vec()), "{arguments:?}: {out}{err}");
    }
}

#[test]
fn a_wrong_setting_is_an_error_with_its_place() {
    let directory = directory(&[
        ("field.yaml", "ignore: []\nselcet: []\n"),
        ("lint.yaml", "ignore:\n- any-calller\n"),
        ("severity.yaml", "severity:\n  any-caller: fatal\n"),
        ("two.yaml", "ignore: []\n---\nselect: []\n"),
        ("accepted.json", r#"{"accepted": [{"file": "a"}]}"#),
    ]);
    for (arguments, expected) in [
        (&["--ignore", "any-calller"][..], "unknown lint `any-calller` (did you mean `any-caller`?)"),
        (&["--ignore", "x"], "unknown lint `x` (`spiffe-authz rule` lists all)"),
        (&["--severity", "any-caller"], "expected a lint and a severity, such as `any-caller=error`"),
        (&["--severity", "any-caller=fatal"], "unknown severity `fatal` (expected one of `note`, `warning`, `error`)"),
        (&["--config", "none.yaml"], "none.yaml: "),
        (&["--config", "field.yaml"], "field.yaml:2:1: unknown field `selcet` (did you mean `select`?)"),
        (&["--config", "lint.yaml"], "lint.yaml:2:3: unknown lint `any-calller` (did you mean `any-caller`?)"),
        (&["--config", "severity.yaml"], "severity.yaml:2:15: unknown severity `fatal`"),
        (&["--config", "two.yaml"], "two.yaml: expected one object, found 2"),
        (&["--baseline", "none.json"], "none.json: "),
        (&["--baseline", "accepted.json"], "accepted.json:1:15: missing field `lint`"),
        (&["--update-baseline"], "`--update-baseline` needs a file (add `--baseline FILE`)"),
    ] {
        let Outcome { status, out, err } = check(directory.path(), arguments);
        assert_eq!((status, &*out), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn accepted_findings_are_not_reported_and_new_ones_are() {
    let directory = directory(&[("lints.yaml", "baseline: accepted.json\n")]);
    let accept = ["--baseline", "accepted.json", "--update-baseline"];
    let Outcome { status, out, err } = check(directory.path(), &accept);
    assert_eq!((status, &*out, &*err), (Some(0), "", "accepted.json: accepted findings: 2\n"));
    for arguments in [["--baseline", "accepted.json"], ["--config", "lints.yaml"]] {
        let Outcome { status, out, err } = check(directory.path(), &arguments);
        assert_eq!((status, &*out, &*err), (Some(0), "document.yaml: ok\n", ""));
    }

    // A policy before it, and the same mistake again.
    let moved = DOCUMENT.replace("policies:\n", "policies:\n- {name: none, namespace: default}\n");
    let twice = moved.replace("[get]", "[get, get]");
    for (text, expected) in [(&moved, &[][..]), (&twice, &["improbable-value"])] {
        fs::write(directory.path().join("document.yaml"), text).unwrap();
        let Outcome { out, .. } = check(directory.path(), &["--baseline", "accepted.json"]);
        assert_eq!(codes(&out), expected, "{out}");
    }

    let corrected = DOCUMENT.replace("[get]", "[GET]");
    fs::write(directory.path().join("document.yaml"), corrected).unwrap();
    let Outcome { status, err, .. } = check(directory.path(), &["--baseline", "accepted.json"]);
    let told = "accepted.json: accepted findings that no longer occur: 1 (add `--update-baseline`)\n";
    assert_eq!((status, &*err), (Some(0), told));
}

#[test]
fn an_error_cannot_be_accepted() {
    let directory = directory(&[]);
    fs::write(directory.path().join("document.yaml"), DOCUMENT.replace("methods", "method")).unwrap();
    let accept = ["--baseline", "accepted.json", "--update-baseline"];
    let Outcome { status, err, .. } = check(directory.path(), &accept);
    assert_eq!((status, err.contains("has errors, which cannot be accepted")), (Some(1), true), "{err}");
    assert!(!directory.path().join("accepted.json").exists());
}
