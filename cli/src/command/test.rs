//! `spiffe-authz test`: tables of requests with the expected outcomes.

mod coverage;
mod output;

use std::io;
use std::path::{Path, PathBuf};

use anstream::stdout;
use clap::ValueEnum;
use serde::Deserialize;
use spiffe_authz::case::Case;
use spiffe_authz::policy::Layer;
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

use crate::document::Document;
use crate::exit::Ended;
use crate::exit::Failure;
use crate::input;
use crate::yaml;
use coverage::Coverage;

/// Tests documents with tables of requests and expected outcomes
///
/// A table, in YAML or JSON, has `policy` (a file, relative to the table) or `configuration` (a document), and `cases`. Each
/// case has a `name`, a `request`, and the outcome to `expect`. With `layer: tcp`, the requests are TCP connections.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status:\n  0  every case passed\n  1  the command could not run\n  3  a case failed, or the coverage is too low"
)]
pub(crate) struct Arguments {
    /// Tables in YAML or JSON; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The output format
    #[arg(long, value_enum, default_value = "human")]
    format: TestFormat,
    /// Reports the rules that no case matches
    #[arg(long)]
    coverage: bool,
    /// Fails if the cases of a table match a smaller percentage of its rules
    #[arg(long, value_name = "PERCENT", requires = "coverage", value_parser = clap::value_parser!(u8).range(0..=100))]
    coverage_threshold: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TestFormat {
    /// Human-readable text
    Human,
    /// One JSON object per table
    Json,
    /// One JUnit XML document
    Junit,
    /// Test Anything Protocol, version 14
    Tap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Table {
    policy: Option<PathBuf>,
    configuration: Option<serde_json::Value>,
    #[serde(default)]
    layer: Layer,
    cases: Vec<Case>,
    /// A comment for readers of the table.
    #[serde(default, rename = "description")]
    _description: Option<String>,
}

/// The results of a table.
struct Results<'t> {
    file: &'t Path,
    cases: Vec<CaseResult>,
    coverage: Coverage,
}

struct CaseResult {
    name: String,
    /// The differences from the expected outcome; none for a case that passes.
    differences: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let tables = arguments.files.iter().map(|file| run_table(file)).collect::<io::Result<Vec<_>>>()?;
    let mut out = stdout().lock();
    match arguments.format {
        TestFormat::Human => output::write_human(&mut out, &tables, arguments.coverage)?,
        TestFormat::Json => output::write_json(&mut out, &tables, arguments.coverage)?,
        TestFormat::Junit => output::write_junit(&mut out, &tables)?,
        TestFormat::Tap => output::write_tap(&mut out, &tables)?,
    }
    let failed = tables.iter().flat_map(|table| &table.cases).any(|case| !case.differences.is_empty());
    let uncovered = arguments
        .coverage_threshold
        .is_some_and(|threshold| tables.iter().any(|table| table.coverage.percent() < u32::from(threshold)));
    Ok(if failed || uncovered { Ended::WithFindings } else { Ended::Well })
}

fn run_table(file: &Path) -> io::Result<Results<'_>> {
    let of_file = |message: String| io::Error::other(format!("{}: {message}", file.display()));
    let text = String::from_utf8(input::read(file)?).map_err(|error| of_file(error.to_string()))?;
    let table: Table = yaml::from_str(&text).map_err(|error| of_file(yaml::message(&error)))?;
    let document = match (&table.policy, &table.configuration) {
        (Some(policy), None) => {
            let policy = file.parent().unwrap_or(Path::new("")).join(policy);
            let text = input::read(&policy).map_err(|error| of_file(format!("`policy`: {error}")))?;
            Document::compile(&text).map_err(|diagnostics| {
                io::Error::other(Failure::of_document(&policy.display().to_string(), &diagnostics))
            })?
        }
        (None, Some(configuration)) => {
            Document::compile(configuration.to_string().as_bytes()).map_err(|diagnostics| {
                let place = format!("{}: `configuration`", file.display());
                io::Error::other(Failure::of_document(&place, &diagnostics))
            })?
        }
        (Some(_), Some(_)) => return Err(of_file("`policy` and `configuration` cannot be combined".to_owned())),
        (None, None) => return Err(of_file("missing field `policy` or `configuration`".to_owned())),
    };
    let document = document.on(table.layer);
    if table.cases.is_empty() {
        return Err(of_file("`cases` is empty (expected at least one case)".to_owned()));
    }
    let lacks_time = |case: &&Case| document.policy.depends_on_time() && case.request.time.is_none();
    if let Some(case) = table.cases.iter().find(lacks_time) {
        let message = "needs a `time` in its `request`, because a policy has `notBefore` or `expires`";
        return Err(of_file(format!("the case `{}` {message}", case.name)));
    }
    let mut coverage = Coverage::of(&document);
    let cases = table.cases.into_iter().map(|case| run_case(case, &document, &mut coverage)).collect();
    Ok(Results { file, cases, coverage })
}

fn run_case(case: Case, Document { policy, .. }: &Document, coverage: &mut Coverage) -> CaseResult {
    let subject = policy.subject(case.request.identity(policy.identity()));
    let mut differences = Vec::new();
    // Without a `time`, no policy depends on it.
    let time = case.request.time.unwrap_or(Timestamp::from_seconds(0));
    match policy.explain(&subject, &Request::new(&case.request, time)) {
        Ok(explanation) => {
            differences = case.expect.differences(&explanation.outcome);
            coverage.add(&explanation);
        }
        Err(_) => differences.push("the request cannot be read".to_owned()),
    }
    CaseResult { name: case.name, differences }
}
