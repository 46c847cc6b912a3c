//! The command on saved pages of real situations. Each folder of `doctor_cases` contains the pages and an `expect.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::RegexBuilder;
use serde::Deserialize;
use serde_json::Value;

const LAYERS: [&str; 7] = ["envoy", "secrets", "identity", "trust", "handshake", "request", "filter"];

/// A case. The expressions are loose on purpose: names and wording can change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Expected {
    /// The pages, in words.
    situation: String,
    /// The expected report, in words.
    right: String,
    /// The arguments of the command, which runs in the folder.
    arguments: Vec<String>,
    /// The exit statuses that are allowed.
    #[serde(default = "answered")]
    exit: Vec<i32>,
    /// Findings that must exist.
    #[serde(default)]
    find: Vec<Wanted>,
    /// Findings that must not exist.
    #[serde(default)]
    lacks: Vec<Wanted>,
    /// Expressions that no line of `fine` matches.
    #[serde(default)]
    fine_lacks: Vec<String>,
    /// Expressions that the output matches.
    #[serde(default)]
    output: Vec<String>,
    /// Expressions that the output does not match.
    #[serde(default)]
    output_lacks: Vec<String>,
}

/// A finding of at least this severity, in one of these layers, whose code, message or help matches.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    severity: String,
    #[serde(default = "all_layers")]
    layers: Vec<String>,
    #[serde(default)]
    says: String,
    /// Whether it must be in the first layer that has an error.
    #[serde(default)]
    first: bool,
}

fn answered() -> Vec<i32> {
    vec![0, 3]
}

fn all_layers() -> Vec<String> {
    LAYERS.map(str::to_owned).to_vec()
}

fn matches(expression: &str, text: &str) -> bool {
    RegexBuilder::new(expression).case_insensitive(true).build().unwrap().is_match(text)
}

fn severity(name: &str) -> usize {
    let severities = ["note", "warning", "error"];
    severities.iter().position(|&severity| severity == name).unwrap_or_else(|| panic!("severity {name}"))
}

fn text<'v>(finding: &'v Value, field: &str) -> &'v str {
    finding[field].as_str().unwrap_or_else(|| panic!("{field} of {finding}"))
}

impl Wanted {
    fn is(&self, finding: &Value, first: Option<&str>) -> bool {
        let layer = text(finding, "layer");
        let words = ["code", "message", "help"].map(|field| text(finding, field)).join(" ");
        severity(text(finding, "severity")) >= severity(&self.severity)
            && self.layers.iter().any(|wanted| wanted == layer)
            && (!self.first || first == Some(layer))
            && matches(&self.says, &words)
    }
}

fn list<'v>(report: &'v Value, field: &str) -> &'v [Value] {
    report[field].as_array().map_or(&[], Vec::as_slice)
}

/// Returns each difference from what is expected.
fn differences(folder: &Path) -> Vec<String> {
    let expected = fs::read_to_string(folder.join("expect.json")).unwrap();
    let Expected { situation, right, arguments, exit, find, lacks, fine_lacks, output, output_lacks } =
        serde_json::from_str(&expected).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let run = Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).args(&arguments).current_dir(folder).output().unwrap();
    let whole = [&*run.stdout, &*run.stderr].map(String::from_utf8_lossy).concat();
    let mut differences = Vec::new();
    if !run.status.code().is_some_and(|status| exit.contains(&status)) {
        differences.push(format!("status {:?}: {whole}", run.status));
    }
    differences
        .extend(output.iter().filter(|wanted| !matches(wanted, &whole)).map(|wanted| format!("says no {wanted}")));
    differences
        .extend(output_lacks.iter().filter(|unwanted| matches(unwanted, &whole)).map(|said| format!("says {said}")));
    let needs_report = !(find.is_empty() && lacks.is_empty() && fine_lacks.is_empty());
    let report: Value = match serde_json::from_slice(&run.stdout) {
        Ok(report) => report,
        Err(error) if needs_report => return vec![format!("{error}: {whole}")],
        Err(_) => return differences,
    };
    let findings = list(&report, "findings");
    let has_error = |layer: &&str| {
        findings.iter().any(|finding| text(finding, "layer") == *layer && text(finding, "severity") == "error")
    };
    let first = LAYERS.into_iter().find(has_error);
    for wanted in &find {
        if !findings.iter().any(|finding| wanted.is(finding, first)) {
            differences.push(format!("lacks {wanted:?}"));
        }
    }
    for unwanted in &lacks {
        differences
            .extend(findings.iter().filter(|finding| unwanted.is(finding, first)).map(|found| format!("has {found}")));
    }
    for unwanted in &fine_lacks {
        let fine = list(&report, "fine").iter().filter(|fine| matches(unwanted, text(fine, "message")));
        differences.extend(fine.map(|fine| format!("has {fine}")));
    }
    if !differences.is_empty() {
        differences.push(format!("{situation} {right}"));
    }
    differences
}

#[test]
fn every_case_gets_the_right_answer() {
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor_cases")).unwrap();
    let folders: Vec<PathBuf> = folders.map(|folder| folder.unwrap().path()).collect();
    let mut wrong = Vec::new();
    for folder in &folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        wrong.extend(differences(folder).into_iter().map(|difference| format!("{name}: {difference}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(folders.len() >= 10, "{}", folders.len());
}
