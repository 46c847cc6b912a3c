//! The problems in documents, in each output format.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use spiffe_authz::diagnostic::Code;
use spiffe_authz::lint::{Lint, Severity};

use super::Problem;
use crate::printable::{Printable, say, styled};
use crate::style::{BAD, GOOD, NOTABLE};

pub(super) fn write_human(out: &mut impl Write, file: &Path, problems: &[Problem]) -> io::Result<()> {
    for problem in problems {
        let style = if problem.severity == Severity::Error { BAD } else { NOTABLE };
        let severity = styled(style, problem.severity.slug());
        say!(out, "{}: {}: {}: {}: {}", file.display(), problem.place(), severity, problem.code, problem.text())?;
    }
    if problems.iter().any(|problem| problem.is_error) {
        return say!(out, "{}: {}", file.display(), styled(BAD, "rejected"));
    }
    say!(out, "{}: {}", file.display(), styled(GOOD, "ok"))
}

pub(super) fn as_json(file: &Path, problems: &[Problem]) -> Value {
    let findings: Vec<Value> = problems
        .iter()
        .map(|problem| {
            json!({
                "pointer": problem.pointer, "severity": problem.severity.slug(), "code": problem.code,
                "message": problem.message, "help": problem.help,
            })
        })
        .collect();
    let accepted = !problems.iter().any(|problem| problem.is_error);
    json!({"file": file.to_string_lossy(), "accepted": accepted, "findings": findings})
}

/// Returns a log in SARIF 2.1.0. The location of a problem is the file, and as a logical location the JSON pointer.
pub(super) fn as_sarif(checked: &[(&Path, Vec<Problem>)]) -> Value {
    let rules =
        Lint::all().map(|lint| (lint.slug(), lint.summary(), format!("docs/reference/lints.md#{}", lint.slug())));
    let codes = Code::all().map(|code| {
        (
            code.slug(),
            "An error for which the filter rejects the document.",
            "README.md#mistakes-in-a-configuration".to_owned(),
        )
    });
    let rules: Vec<Value> = codes
        .chain(rules)
        .map(|(id, summary, page)| {
            json!({"id": id, "shortDescription": {"text": summary}, "help": {"text": format!("See {page}.")}})
        })
        .collect();
    let results: Vec<Value> = checked
        .iter()
        .flat_map(|(file, problems)| problems.iter().map(move |problem| (file, problem)))
        .map(|(file, problem)| {
            json!({
                "ruleId": problem.code, "level": problem.severity.slug(), "message": {"text": problem.text()},
                "locations": [{
                    "physicalLocation": {"artifactLocation": {"uri": file.to_string_lossy()}},
                    "logicalLocations": [{"fullyQualifiedName": problem.pointer, "kind": "member"}],
                }],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "spiffe-authz", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": results,
        }],
    })
}

pub(super) fn write_github(out: &mut impl Write, file: &Path, problems: &[Problem]) -> io::Result<()> {
    // The escapes of GitHub's workflow commands. `Printable` has already escaped line breaks.
    let data = |text: &str| Printable(text).to_string().replace('%', "%25");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    for problem in problems {
        let command = match problem.severity {
            Severity::Note => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let file = property(&file.to_string_lossy());
        let text = data(&format!("{}: {}", problem.place(), problem.text()));
        say!(out, "::{} file={},title={}::{}", command, file, problem.code, text)?;
    }
    Ok(())
}
