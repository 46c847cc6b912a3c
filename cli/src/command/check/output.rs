//! The problems in documents, in each output format.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum as _;
use serde_json::{Value, json};
use spiffe_authz::diagnostic::Code;
use spiffe_authz::lint::{Lint, Severity};

use super::{Checked, Problem};
use crate::excerpt;
use crate::exit::errors_in_words;
use crate::located::{Position, place};
use crate::options::Level;
use crate::printable::{Printable, say, styled};
use crate::sarif::{self, relative};
use crate::style::{BAD, GOOD, NOTABLE};

pub(super) fn write_human(out: &mut impl Write, checked: &Checked, level: Level) -> io::Result<()> {
    let Checked { file, text, position, problems } = checked;
    for problem in problems {
        let style = if problem.severity == Severity::Error { BAD } else { NOTABLE };
        let severity = styled(style, problem.severity.slug());
        let at = place(file.display(), problem.position);
        say!(out, "{}: {}: {}: {}: {}", at, problem.place(), severity, problem.code, problem.text())?;
        // A line does not explain a problem of the whole document, except for its notation.
        let has_excerpt =
            !problem.pointer.is_empty() || problem.subject.is_some() || problem.code == Code::Syntax.slug();
        if let Some(position) = problem.position.filter(|_| has_excerpt) {
            excerpt::write(out, text, position)?;
        }
    }
    let at = place(file.display(), *position);
    let errors = problems.iter().filter(|problem| problem.is_error).count();
    if errors > 0 {
        return say!(out, "{}: {}: {}", at, styled(BAD, "rejected"), errors_in_words(errors));
    }
    if problems.iter().any(|problem| problem.fails(level)) {
        let option = level.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        return say!(
            out,
            "{}: {}, {} (fails at `--fail-level {}`)",
            at,
            styled(NOTABLE, "accepted"),
            counts(problems),
            option
        );
    }
    say!(out, "{}: {}", at, styled(GOOD, "ok"))
}

/// Returns the number of problems of each severity, such as `1 error, 3 warnings`.
fn counts(problems: &[Problem]) -> String {
    let counted = [Severity::Error, Severity::Warning, Severity::Note].into_iter().filter_map(|severity| {
        let count = problems.iter().filter(|problem| problem.severity == severity).count();
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {}{plural}", severity.slug()))
    });
    counted.collect::<Vec<_>>().join(", ")
}

pub(super) fn as_json(Checked { file, position, problems, .. }: &Checked) -> Value {
    let findings: Vec<Value> = problems
        .iter()
        .map(|problem| {
            let mut finding = json!({
                "pointer": problem.pointer, "severity": problem.severity.slug(), "code": problem.code,
                "message": problem.message, "help": problem.help, "policy": problem.policy,
            });
            if let Some(Position { line, column }) = problem.position {
                finding["line"] = json!(line);
                finding["column"] = json!(column);
            }
            finding
        })
        .collect();
    let accepted = !problems.iter().any(|problem| problem.is_error);
    let mut answer = json!({"file": file.to_string_lossy(), "accepted": accepted, "findings": findings});
    if let Some(Position { line, .. }) = position {
        answer["line"] = json!(line);
    }
    answer
}

/// Returns a log in SARIF 2.1.0. The location of a problem is its region in the file, and as a logical location the JSON
/// pointer.
pub(super) fn as_sarif(checked: &[Checked]) -> Value {
    let lints = Lint::all().map(|lint| {
        let page = format!("docs/reference/lints.md#{}", lint.slug());
        (lint.slug(), lint.summary(), lint.severity(), lint.remedy(), page)
    });
    let codes = Code::all()
        .map(|code| (code.slug(), code.summary(), Severity::Error, "", "docs/reference/diagnostics.md".to_owned()));
    let rules: Vec<Value> = codes
        .chain(lints)
        .map(|(id, summary, severity, remedy, page)| {
            let help = format!("{remedy} See {page}.").trim_start().to_owned();
            json!({
                "id": id, "shortDescription": {"text": summary}, "help": {"text": help},
                "defaultConfiguration": {"level": severity.slug()},
            })
        })
        .collect();
    let results: Vec<Value> = each(checked)
        .map(|Reported { file, problem, fingerprint }| {
            let mut location = json!({"artifactLocation": {"uri": sarif::uri(file)}});
            if let Some(Position { line, column }) = problem.position {
                location["region"] = json!({"startLine": line, "startColumn": column});
            }
            json!({
                "ruleId": problem.code, "level": problem.severity.slug(), "message": {"text": problem.text()},
                "locations": [{
                    "physicalLocation": location,
                    "logicalLocations": [{"fullyQualifiedName": problem.pointer, "kind": "member"}],
                }],
                "partialFingerprints": {"problem/v1": fingerprint},
            })
        })
        .collect();
    sarif::log(&rules, &results)
}

/// Returns a Code Quality report of GitLab.
pub(super) fn as_gitlab(checked: &[Checked]) -> Value {
    let issues = each(checked).map(|Reported { file, problem, fingerprint }| {
        let severity = match problem.severity {
            Severity::Note => "info",
            Severity::Warning => "minor",
            Severity::Error => "major",
        };
        let line = problem.position.map_or(1, |position| position.line);
        json!({
            "description": format!("{}: {}", problem.place(), problem.text()), "check_name": problem.code,
            "fingerprint": fingerprint, "severity": severity,
            "location": {"path": file.to_string_lossy(), "lines": {"begin": line}},
        })
    });
    Value::Array(issues.collect())
}

/// A problem in a report about all files.
struct Reported<'c> {
    file: &'c Path,
    problem: &'c Problem,
    /// A string that no other problem in the report has.
    fingerprint: String,
}

fn each(checked: &[Checked]) -> impl Iterator<Item = Reported<'_>> {
    let mut seen = HashMap::<u64, u32>::new();
    let problems =
        checked.iter().flat_map(|checked| checked.problems.iter().map(|problem| (relative(&checked.file), problem)));
    problems.map(move |(file, problem)| {
        let hash = hash(file, problem);
        // Two documents in a file can have the same problem.
        let count = seen.entry(hash).or_default();
        *count += 1;
        let fingerprint = if *count == 1 { format!("{hash:016x}") } else { format!("{hash:016x}:{count}") };
        Reported { file, problem, fingerprint }
    })
}

/// Returns a number that identifies a problem although lines move: FNV-1a of its file, code, place and message.
fn hash(file: &Path, problem: &Problem) -> u64 {
    let file = file.to_string_lossy();
    sarif::hash(&[&file, problem.code, &problem.pointer, &problem.message])
}

pub(super) fn write_github(out: &mut impl Write, Checked { file, problems, .. }: &Checked) -> io::Result<()> {
    // The escapes of GitHub's workflow commands. `Printable` has already escaped line breaks.
    let data = |text: &str| Printable(text).to_string().replace('%', "%25");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    for problem in problems {
        let command = match problem.severity {
            Severity::Note => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let mut place = format!("file={}", property(&relative(file).to_string_lossy()));
        if let Some(Position { line, column }) = problem.position {
            place.push_str(&format!(",line={line},col={column}"));
        }
        let text = data(&format!("{}: {}", problem.place(), problem.text()));
        say!(out, "::{} {},title={}::{}", command, place, problem.code, text)?;
    }
    Ok(())
}
