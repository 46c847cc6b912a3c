//! `spiffe-authz check`: does the filter take this configuration, and does it say what its author means?

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anstream::stdout;
use clap::ValueEnum;
use serde_json::{Value, json};
use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::lint::{self, Finding, Lint, Severity};

use crate::clock::now;
use crate::document;
use crate::exit::Ended;
use crate::options::Level;
use crate::printable::{Printable, say, styled, write_json, write_pretty_json};
use crate::style::{BAD, GOOD, NOTABLE};

/// Compiles configuration documents as the filter does, and lints those that compile.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Configuration documents in JSON or YAML; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How results are written.
    #[arg(long, value_enum, default_value = "human")]
    format: CheckFormat,
    /// The lightest finding that makes the exit status 3; a configuration that is refused always does.
    #[arg(long, value_enum, default_value = "warning")]
    fail_level: Level,
    /// Where the policies are to be enforced.
    #[arg(long, value_enum, default_value = "http")]
    target: Target,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// For people.
    Human,
    /// One JSON object per document.
    Json,
    /// One SARIF 2.1.0 log.
    Sarif,
    /// Workflow commands of GitHub Actions.
    Github,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// A filter for HTTP.
    Http,
    /// A filter for TCP.
    Tcp,
    /// Istio's ztunnel, besides.
    Ztunnel,
}

/// What a diagnostic or a finding says, in one form.
struct Report {
    pointer: String,
    severity: Severity,
    code: &'static str,
    message: String,
    help: Option<String>,
    refused: bool,
}

impl From<Diagnostic> for Report {
    fn from(Diagnostic { pointer, code, message, help }: Diagnostic) -> Self {
        Self { pointer, severity: Severity::Error, code: code.slug(), message, help: Some(help), refused: true }
    }
}

impl From<Finding> for Report {
    fn from(Finding { lint, pointer, message }: Finding) -> Self {
        Self { pointer, severity: lint.severity(), code: lint.slug(), message, help: None, refused: false }
    }
}

impl Report {
    fn fails(&self, level: Level) -> bool {
        self.refused || level.is_reached(self.severity)
    }

    fn text(&self) -> String {
        self.help.as_ref().map_or_else(|| self.message.clone(), |help| format!("{} ({help})", self.message))
    }

    fn place(&self) -> &str {
        if self.pointer.is_empty() { "/" } else { &self.pointer }
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let target = match arguments.target {
        Target::Http => lint::Target::Http,
        Target::Tcp => lint::Target::Tcp,
        Target::Ztunnel => lint::Target::Ztunnel,
    };
    let now = now()?;
    let mut checked = Vec::new();
    for file in &arguments.files {
        let reports: Vec<Report> = match document::compile(&document::read(file)?) {
            Ok(document) => lint::lint(&document.root, target, now).into_iter().map(Report::from).collect(),
            Err(diagnostics) => diagnostics.into_iter().map(Report::from).collect(),
        };
        checked.push((file.as_path(), reports));
    }
    let mut out = stdout().lock();
    match arguments.format {
        CheckFormat::Human => checked.iter().try_for_each(|(file, reports)| write_human(&mut out, file, reports))?,
        CheckFormat::Json => {
            checked.iter().try_for_each(|(file, reports)| write_json(&mut out, &as_json(file, reports)))?;
        }
        CheckFormat::Sarif => write_pretty_json(&mut out, &as_sarif(&checked))?,
        CheckFormat::Github => checked.iter().try_for_each(|(file, reports)| write_github(&mut out, file, reports))?,
    }
    let failed = checked.iter().flat_map(|(_, reports)| reports).any(|report| report.fails(arguments.fail_level));
    Ok(if failed { Ended::WithFindings } else { Ended::Well })
}

fn write_human(out: &mut impl Write, file: &Path, reports: &[Report]) -> io::Result<()> {
    for report in reports {
        let style = if report.severity == Severity::Error { BAD } else { NOTABLE };
        let severity = styled(style, report.severity.slug());
        say!(out, "{}: {}: {}: {}: {}", file.display(), report.place(), severity, report.code, report.text())?;
    }
    if reports.iter().any(|report| report.refused) {
        return say!(out, "{}: {}", file.display(), styled(BAD, "refused"));
    }
    say!(out, "{}: {}", file.display(), styled(GOOD, "ok"))
}

fn as_json(file: &Path, reports: &[Report]) -> Value {
    let findings: Vec<Value> = reports
        .iter()
        .map(|report| {
            json!({
                "pointer": report.pointer, "severity": report.severity.slug(), "code": report.code,
                "message": report.message, "help": report.help,
            })
        })
        .collect();
    let accepted = !reports.iter().any(|report| report.refused);
    json!({"file": file.to_string_lossy(), "accepted": accepted, "findings": findings})
}

/// SARIF 2.1.0. Findings are placed by file and, as a logical location, by JSON pointer.
fn as_sarif(checked: &[(&Path, Vec<Report>)]) -> Value {
    let page = |lint: &Lint| format!("docs/reference/lints.md#{}", lint.slug());
    let rules = Lint::all().map(|lint| (lint.slug(), lint.summary(), page(lint)));
    let codes = Code::all().map(|code| {
        (
            code.slug(),
            "A mistake for which the filter refuses the configuration.",
            "docs/reference/diagnostics.md".to_owned(),
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
        .flat_map(|(file, reports)| reports.iter().map(move |report| (file, report)))
        .map(|(file, report)| {
            json!({
                "ruleId": report.code, "level": report.severity.slug(), "message": {"text": report.text()},
                "locations": [{
                    "physicalLocation": {"artifactLocation": {"uri": file.to_string_lossy()}},
                    "logicalLocations": [{"fullyQualifiedName": report.pointer, "kind": "member"}],
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

fn write_github(out: &mut impl Write, file: &Path, reports: &[Report]) -> io::Result<()> {
    // GitHub's own escapes for workflow commands. Those for line breaks are not needed after `Printable`.
    let data = |text: &str| Printable(text).to_string().replace('%', "%25");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    for report in reports {
        let command = match report.severity {
            Severity::Note => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let file = property(&file.to_string_lossy());
        let text = data(&format!("{}: {}", report.place(), report.text()));
        say!(out, "::{} file={},title={}::{}", command, file, report.code, text)?;
    }
    Ok(())
}
