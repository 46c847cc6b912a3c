//! The command on policies, documents, tables and logs of real situations. `policy_cases/cases.yaml` has each command with
//! its expected outcome.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde::Deserialize;

/// A case. The expressions are loose on purpose: wording can change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The input, in words.
    situation: String,
    arguments: Vec<String>,
    /// A file with the standard input.
    #[serde(default)]
    input: Option<PathBuf>,
    #[serde(default)]
    exit: i32,
    /// Whether `import` writes a document. The document of a case compiles.
    #[serde(default)]
    document: bool,
    /// Expressions that the output matches.
    #[serde(default)]
    says: Vec<String>,
    /// Expressions that the output does not match.
    #[serde(default)]
    lacks: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy_cases")
}

fn matches(expression: &str, text: &str) -> bool {
    Regex::new(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).is_match(text)
}

impl Case {
    /// Returns each difference from what is expected.
    fn differences(&self) -> Vec<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        command.args(&self.arguments).current_dir(folder());
        if let Some(input) = &self.input {
            command.stdin(fs::File::open(folder().join(input)).unwrap());
        }
        let output = command.output().unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let whole = format!("{out}{err}");
        let mut differences = Vec::new();
        if output.status.code() != Some(self.exit) {
            differences.push(format!("status {:?}", output.status));
        }
        differences.extend(self.says.iter().filter(|said| !matches(said, &whole)).map(|said| format!("lacks {said}")));
        differences.extend(self.lacks.iter().filter(|said| matches(said, &whole)).map(|said| format!("says {said}")));
        let is_import = self.arguments.first().is_some_and(|command| command == "import");
        if is_import && out.is_empty() == self.document {
            differences.push(format!("document expected: {}", self.document));
        }
        if !differences.is_empty() {
            differences.push(format!("{} {:?}\n{whole}", self.situation, self.arguments));
        }
        differences
    }
}

#[test]
fn every_case_has_the_right_outcome() {
    let cases = fs::read_to_string(folder().join("cases.yaml")).unwrap();
    let cases: Vec<Case> = serde_saphyr::from_str(&cases).unwrap_or_else(|error| panic!("{error}"));
    let wrong: Vec<String> = cases.iter().flat_map(Case::differences).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() > 40, "{}", cases.len());
}

/// Every file in the folder belongs to a case.
#[test]
fn every_file_is_used() {
    // Tables name documents, too.
    let tables = ["cases.yaml", "failing_test.yaml"].map(|file| fs::read_to_string(folder().join(file)).unwrap());
    let cases = tables.concat();
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let unused: Vec<String> = files.filter(|file| file != "cases.yaml" && !cases.contains(&**file)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// An import that fails keeps the file of an earlier one.
#[test]
fn results_are_written_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    let import = |input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
        command.args(["import", "--trust-domain", "example.org", "-n", "a", input, "-o"]).arg(&file);
        command.current_dir(folder()).output().unwrap().status.code()
    };
    assert_eq!(import("json-lines.json"), Some(0));
    let document = fs::read_to_string(&file).unwrap();
    assert!(document.starts_with("{\n  \"trustDomain\": \"example.org\","), "{document}");
    assert_eq!(import("only-custom.yaml"), Some(3));
    assert_eq!(fs::read_to_string(&file).unwrap(), document);
}
