//! The reports of `spiffe-authz check` for other programs follow the formats of those programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Returns a directory with documents that have problems of every severity, with and without a position.
fn documents() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy_cases");
    for file in fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).filter(|file| file.is_file()) {
        fs::copy(&file, directory.path().join(file.file_name().unwrap())).unwrap();
    }
    // The same problem in two documents of a file.
    let twice = "trustDomain: example.org\npolicies: []\n---\ntrustDomain: example.org\npolicies: []\n";
    fs::write(directory.path().join("twice.yaml"), twice).unwrap();
    fs::write(directory.path().join("nothing.json"), "").unwrap();
    fs::create_dir(directory.path().join("a folder")).unwrap();
    let name = "a folder/100% \u{e4}:#?.yaml";
    fs::write(directory.path().join(name), "trustDomain: \u{1f600} # \u{1f600}\npolcies: {\u{1f600}: 1}\n").unwrap();
    directory
}

fn report(directory: &TempDir, format: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let command = command.args(["check", "--format", format, "."]).current_dir(directory.path());
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value}"))
}

/// Asserts that no two problems have the same fingerprint, because programs show only one of them.
fn assert_unique<'r>(fingerprints: impl Iterator<Item = &'r Value>) {
    let mut seen = BTreeSet::new();
    for fingerprint in fingerprints {
        let fingerprint = fingerprint.as_str().unwrap();
        assert!(!fingerprint.is_empty() && seen.insert(fingerprint), "{fingerprint}");
    }
    assert!(seen.len() > 50, "{}", seen.len());
}

#[test]
fn sarif_logs_are_valid() {
    let directory = documents();
    let log = report(&directory, "sarif");
    let schema: Value = serde_json::from_str(include_str!("sarif/sarif-2.1.0-rtm.5.json")).unwrap();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors = |log: &Value| -> Vec<String> {
        schema.iter_errors(log).map(|error| format!("{}: {error}", error.instance_path)).collect()
    };
    assert_eq!(errors(&log), [""; 0]);
    let mut wrong = log.clone();
    wrong["runs"][0]["results"][0]["level"] = json!("fatal");
    assert_eq!(errors(&wrong).len(), 1);

    // The rules of SARIF 2.1.0 that a schema cannot express.
    let run = &log["runs"][0];
    // Section 3.14.27: a run with results says what its columns count.
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    // A result names a rule by its ID (section 3.27.5), so the ID occurs once.
    let rules: Vec<&str> =
        list(&run["tool"]["driver"]["rules"]).iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert_eq!(rules.iter().collect::<BTreeSet<_>>().len(), rules.len());
    let results = list(&run["results"]);
    for result in results {
        assert!(rules.contains(&result["ruleId"].as_str().unwrap()), "{result}");
        let [location] = list(&result["locations"]) else { panic!("{result}") };
        let uri = location["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
        // Section 3.4.3: a URI reference of RFC 3986; here, one without dot segments.
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte);
        assert!(uri.bytes().all(is_allowed) && !uri.split('/').any(|part| [".", ".."].contains(&part)), "{uri}");
    }
    assert_unique(results.iter().map(|result| &result["partialFingerprints"]["problem/v1"]));
    let levels: BTreeSet<&str> = results.iter().map(|result| result["level"].as_str().unwrap()).collect();
    assert_eq!(levels, BTreeSet::from(["error", "note", "warning"]));
    assert!(results.iter().any(|result| result["locations"][0]["physicalLocation"]["region"].is_null()));
}

/// <https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format>
#[test]
fn gitlab_reports_are_valid() {
    let directory = documents();
    let report = report(&directory, "gitlab");
    let issues = list(&report);
    for issue in issues {
        for field in ["description", "check_name", "fingerprint"] {
            assert!(issue[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {issue}");
        }
        let severity = issue["severity"].as_str().unwrap();
        assert!(["info", "minor", "major", "critical", "blocker"].contains(&severity), "{issue}");
        // A relative path without a prefix.
        let path = issue["location"]["path"].as_str().unwrap();
        assert!(!path.starts_with("./") && directory.path().join(path).exists(), "{path}");
        assert!(issue["location"]["lines"]["begin"].as_u64().is_some_and(|line| line >= 1), "{issue}");
    }
    assert_unique(issues.iter().map(|issue| &issue["fingerprint"]));
}
