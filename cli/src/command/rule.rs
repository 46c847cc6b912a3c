//! `spiffe-authz rule`: the meaning of deny reasons, diagnostics, lints and findings.

use std::io::{self, Write as _};

use serde_json::json;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::diagnostic::Code;
use spiffe_authz::lint::Lint;

use crate::exit::Ended;
use crate::finding::FindingCode;
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::stream::stdout;
use crate::style::HEADING;
use crate::suggestion::similar;

const REASONS: &str = include_str!("../../../docs/reference/reasons.md");
const LINTS: &str = include_str!("../../../docs/reference/lints.md");

/// Explains deny reasons, diagnostics, lints, and findings of the doctor
///
/// The names are those in logs, metrics and reports, such as `wrong-pattern`. Without a name, lists all names.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz rule wrong-pattern

Exit status:
  0  every name is known
  1  the command could not run, or a name is unknown")]
pub(crate) struct Arguments {
    /// The names to explain
    names: Vec<String>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// The meaning of a name.
struct Entry {
    name: &'static str,
    kind: &'static str,
    severity: Option<&'static str>,
    summary: &'static str,
    /// The next step, with a paragraph on each line.
    advice: String,
}

/// Returns every name. A name can have several meanings.
fn entries() -> Vec<Entry> {
    let reasons = DenyReason::all().map(|reason| Entry {
        name: reason.slug(),
        kind: "deny reason",
        severity: None,
        summary: reason.summary(),
        advice: action(reason.slug()),
    });
    let codes = Code::all().map(|code| Entry {
        name: code.slug(),
        kind: "diagnostic",
        severity: Some("error"),
        summary: code.summary(),
        advice: "The filter rejects the document.".to_owned(),
    });
    let lints = Lint::all().map(|lint| Entry {
        name: lint.slug(),
        kind: "lint",
        severity: Some(lint.severity().slug()),
        summary: lint.summary(),
        advice: [lint.remedy().to_owned(), section(lint.slug(), lint.summary())].join("\n"),
    });
    let findings = FindingCode::ALL.iter().map(|finding| Entry {
        name: finding.slug(),
        kind: "finding",
        severity: Some(finding.severity().slug()),
        summary: finding.summary(),
        advice: finding.remedy().to_owned(),
    });
    reasons.chain(codes).chain(lints).chain(findings).collect()
}

/// Returns the next step after a denial with this reason, or an empty string.
pub(crate) fn action(slug: &str) -> String {
    let row = REASONS.lines().find(|line| line.starts_with(&format!("| `{slug}` |")));
    let cells: Vec<&str> = row.unwrap_or_default().split(" | ").collect();
    cells.get(2).map(|cell| plain(cell.trim_end_matches('|').trim())).unwrap_or_default()
}

/// Returns the paragraphs of a lint's section after its summary.
fn section(slug: &str, summary: &str) -> String {
    let section = LINTS.split("\n## ").find(|section| section.lines().next() == Some(slug)).unwrap_or_default();
    let paragraphs = section.split("\n\n").skip(1).map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let paragraphs = paragraphs.map(|paragraph| {
        let is_block = paragraph.starts_with('|') || paragraph.starts_with("```");
        plain(&if is_block { paragraph.to_owned() } else { paragraph.replace('\n', " ") })
    });
    paragraphs.filter(|paragraph| paragraph != summary).collect::<Vec<_>>().join("\n")
}

/// Returns Markdown with the names of its links instead of the links.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (_, after) = after.split_once(')').unwrap_or(("", after));
        let (outside, name) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(outside);
        plain.push_str(name);
        rest = after;
    }
    plain + rest
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let known = entries();
    let unknown = arguments.names.iter().find(|name| !known.iter().any(|entry| entry.name == **name));
    if let Some(name) = unknown {
        let next = match similar(name, known.iter().map(|entry| entry.name)) {
            Some(closest) => format!("did you mean `{closest}`?"),
            None => "`spiffe-authz rule` lists all names".to_owned(),
        };
        return Err(io::Error::other(format!("unknown name `{name}` ({next})")));
    }
    let mut out = stdout();
    let is_list = arguments.names.is_empty();
    let is_wanted = |entry: &&Entry| is_list || arguments.names.iter().any(|name| name == entry.name);
    for Entry { name, kind, severity, summary, advice } in known.iter().filter(is_wanted) {
        match arguments.format {
            Format::Json => {
                let entry = json!({
                    "name": name, "kind": kind, "severity": severity, "summary": summary, "advice": advice,
                });
                write_json(&mut out, &entry)?;
            }
            Format::Human => {
                let severity = severity.map(|severity| format!(", {severity}")).unwrap_or_default();
                if is_list {
                    say!(out, "{}: {}{}", name, kind, severity)?;
                    continue;
                }
                say!(out, "{}: {}{}", styled(HEADING, name), kind, severity)?;
                let lines = [*summary].into_iter().chain(advice.lines());
                lines.filter(|line| !line.is_empty()).try_for_each(|line| say!(out, "  {}", line))?;
            }
        }
    }
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use super::{entries, plain};

    #[test]
    fn links_are_replaced_by_their_texts() {
        assert_eq!(plain("Use [a](b.md#c) and `d[e]`."), "Use a and `d[e]`.");
        assert_eq!(plain("no link"), "no link");
    }

    #[test]
    fn every_lint_and_finding_has_advice() {
        let entries = entries();
        let silent = entries.iter().filter(|entry| entry.severity.is_some() && entry.advice.is_empty());
        assert_eq!(silent.map(|entry| entry.name).collect::<Vec<_>>(), [""; 0]);
        let pattern = entries.iter().find(|entry| entry.name == "wrong-pattern").unwrap();
        assert!(pattern.advice.starts_with("Register the workload"), "{}", pattern.advice);
    }
}
