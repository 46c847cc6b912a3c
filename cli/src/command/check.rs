//! `spiffe-authz check`: does the filter take this configuration, and does it say what its author means?

mod output;

use std::io;
use std::path::PathBuf;

use anstream::stdout;
use clap::ValueEnum;
use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::lint::{self, Finding, Severity};

use crate::clock::now;
use crate::document::{self, Document};
use crate::exit::Ended;
use crate::options::Level;
use crate::printable::{write_json, write_pretty_json};

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

/// A diagnostic or the finding of a lint, in one form.
struct Problem {
    pointer: String,
    severity: Severity,
    code: &'static str,
    message: String,
    help: Option<String>,
    refused: bool,
}

impl From<Diagnostic> for Problem {
    fn from(Diagnostic { pointer, code, message, help }: Diagnostic) -> Self {
        Self { pointer, severity: Severity::Error, code: code.slug(), message, help: Some(help), refused: true }
    }
}

impl From<Finding> for Problem {
    fn from(Finding { lint, pointer, message }: Finding) -> Self {
        Self { pointer, severity: lint.severity(), code: lint.slug(), message, help: None, refused: false }
    }
}

impl Problem {
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
        let problems: Vec<Problem> = match Document::compile(&document::read(file)?) {
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
