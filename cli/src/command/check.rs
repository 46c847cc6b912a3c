//! `spiffe-authz check`: the errors in documents, and the findings of the lints.

mod output;

use std::io;
use std::path::PathBuf;

use anstream::stdout;
use clap::ValueEnum;
use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::lint::{self, Finding, Severity};

use crate::clock::now;
use crate::document::Document;
use crate::exit::Ended;
use crate::input;
use crate::options::Level;
use crate::printable::{write_json, write_pretty_json};

/// Checks documents and reports lints
///
/// The filter accepts each document without errors. docs/reference/lints.md describes the lints.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status:\n  0  no errors, and no findings of the fail level or above\n  1  the command could not run\n  3  an error in a document, or a finding of the fail level or above"
)]
pub(crate) struct Arguments {
    /// Documents in JSON or YAML; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The output format
    #[arg(long, value_enum, default_value = "human")]
    format: CheckFormat,
    /// The lowest severity of a finding for which the exit status is 3; a document with an error always fails
    #[arg(long, value_enum, default_value = "warning")]
    fail_level: Level,
    /// The filter or proxy that enforces the policies
    #[arg(long, value_enum, default_value = "http")]
    target: Target,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// Human-readable text
    Human,
    /// One JSON object per document
    Json,
    /// One SARIF 2.1.0 log
    Sarif,
    /// Workflow commands of GitHub Actions
    Github,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The HTTP filter
    Http,
    /// The TCP filter
    Tcp,
    /// The TCP filter, and Istio's ztunnel
    Ztunnel,
}

/// A diagnostic or the finding of a lint, in one form.
struct Problem {
    pointer: String,
    severity: Severity,
    code: &'static str,
    message: String,
    help: Option<String>,
    /// Whether the filter rejects the document because of it.
    is_error: bool,
}

impl From<Diagnostic> for Problem {
    fn from(Diagnostic { pointer, code, message, help }: Diagnostic) -> Self {
        Self { pointer, severity: Severity::Error, code: code.slug(), message, help: Some(help), is_error: true }
    }
}

impl From<Finding> for Problem {
    fn from(Finding { lint, pointer, message }: Finding) -> Self {
        Self { pointer, severity: lint.severity(), code: lint.slug(), message, help: None, is_error: false }
    }
}

impl Problem {
    /// Returns `true` if the exit status is 3 because of this problem.
    fn fails(&self, level: Level) -> bool {
        self.is_error || level.is_reached(self.severity)
    }

    /// Returns the message with the next step.
    fn text(&self) -> String {
        self.help.as_ref().map_or_else(|| self.message.clone(), |help| format!("{} ({help})", self.message))
    }

    /// Returns the JSON pointer, or `/` for the whole document.
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
        let problems: Vec<Problem> = match Document::compile(&input::read(file)?) {
            Ok(document) => lint::lint(&document.root, target, now).into_iter().map(Problem::from).collect(),
            Err(diagnostics) => diagnostics.into_iter().map(Problem::from).collect(),
        };
        checked.push((file.as_path(), problems));
    }
    let mut out = stdout().lock();
    match arguments.format {
        CheckFormat::Human => {
            checked.iter().try_for_each(|(file, problems)| output::write_human(&mut out, file, problems))?;
        }
        CheckFormat::Json => {
            checked.iter().try_for_each(|(file, problems)| write_json(&mut out, &output::as_json(file, problems)))?;
        }
        CheckFormat::Sarif => write_pretty_json(&mut out, &output::as_sarif(&checked))?,
        CheckFormat::Github => {
            checked.iter().try_for_each(|(file, problems)| output::write_github(&mut out, file, problems))?;
        }
    }
    let failed = checked.iter().flat_map(|(_, problems)| problems).any(|problem| problem.fails(arguments.fail_level));
    Ok(if failed { Ended::WithFindings } else { Ended::Well })
}
