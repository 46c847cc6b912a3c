//! `spiffe-authz test`: tables of requests with the expected outcomes.

mod coverage;
mod output;
mod table;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use serde_json::Value;
use spiffe_authz::case::{Case, CaseRequest};
use spiffe_authz::policy::Layer;
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

use crate::claims;
use crate::decision::{DecisionLine, decision_json};
use crate::document::Document;
use crate::exit::{self, Ended, Failure};
use crate::input;
use crate::located::{Located, Position};
use crate::options::Output;
use crate::source::Source;
use coverage::Coverage;
use table::Table;

/// Tests documents with tables of requests and expected outcomes
///
/// A table, in YAML or JSON, has `policy` (a file or directory, relative to the table) or `configuration` (a document), and
/// `cases`. If `policy` has AuthorizationPolicies, `mesh` has the settings of the mesh, such as `trustDomain`, and
/// `workload` the `namespace` and `labels` of the workload. Each case has a `name`, a `request`, and the outcome to
/// `expect`. With `layer: tcp`, the requests are TCP connections.
/// `spaceDelimitedClaims` lists the claims that Envoy splits at spaces (`scope` and `permission` by default, as in Istio).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz test tests/
  spiffe-authz test --coverage-threshold 90 --format junit \\
    --output results.xml table.yaml
  spiffe-authz test --run partner --verbose table.yaml

Exit status:
  0  every case passed
  1  the command could not run
  3  a case failed, or the coverage is too low")]
pub(crate) struct Arguments {
    /// Files with tables in YAML or JSON, or directories with such files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: TestFormat,
    #[command(flatten)]
    output: Output,
    /// Omits passing cases from human-readable output
    #[arg(short, long)]
    quiet: bool,
    /// Shows the request and the decision of passing cases, and durations, in human-readable output
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Runs only the cases whose name contains this text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["coverage", "coverage_threshold"])]
    run: Option<String>,
    /// Reports the rules that no case matches
    #[arg(long)]
    coverage: bool,
    /// Fails if the cases of a table match a smaller percentage of its rules; implies `--coverage`
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
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

/// The results of a table.
struct Results {
    file: PathBuf,
    cases: Vec<CaseResult>,
    /// The rules that cases match, if they are counted.
    coverage: Option<Coverage>,
    /// The duration in seconds.
    seconds: f64,
    /// The error if the table cannot be run.
    error: Option<String>,
}

struct CaseResult {
    name: String,
    position: Position,
    /// The differences from the expected outcome; none for a case that passes.
    differences: Vec<String>,
    /// The request and its decision, for a case that fails or whose details are shown.
    details: Option<Details>,
}

impl CaseResult {
    /// Returns the details of a case that fails.
    fn failure(&self) -> Option<&Details> {
        self.details.as_ref().filter(|_| !self.differences.is_empty())
    }
}

/// The request of a case, and how it is decided.
struct Details {
    request: CaseRequest,
    layer: Layer,
    /// The decision in words.
    decision: String,
    /// The decision as JSON.
    json: Value,
}

impl Results {
    /// Returns the percentage of rules that cases match, if it is too low.
    fn insufficient(&self, threshold: Option<u8>) -> Option<u32> {
        let percent = self.coverage.as_ref()?.percent();
        (percent < u32::from(threshold?)).then_some(percent)
    }

    fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.differences.is_empty()).count()
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let threshold = arguments.coverage_threshold;
    let with_coverage = arguments.coverage || threshold.is_some();
    let named: HashSet<&PathBuf> = arguments.files.iter().collect();
    let mut errors = Vec::new();
    let mut results = Vec::new();
    let mut unreadable = Vec::new();
    for file in input::expand(&arguments.files, &mut unreadable) {
        let is_named = named.contains(&file);
        match run_file(&file, is_named, arguments, with_coverage) {
            Ok(found) => {
                for found in found {
                    match found {
                        Ok(found) => results.push(found),
                        Err(error) => errors.push((file.clone(), error)),
                    }
                }
            }
            Err(error) => errors.push((file, error)),
        }
    }
    errors.extend(unreadable.into_iter().map(|(path, error)| {
        let error = input::named(&path, &error);
        (path, error)
    }));
    if results.is_empty() && errors.is_empty() {
        return Err(io::Error::other("no table found (expected objects with `cases`)"));
    }
    if let Some(text) = &arguments.run
        && errors.is_empty()
        && results.iter().all(|table| table.cases.is_empty())
    {
        return Err(io::Error::other(format!("no case has a name that contains `{text}`")));
    }
    // Machine formats stay complete: a table with mistakes has no result, and an error.
    results.extend(errors.iter().map(|(file, error)| Results {
        file: file.clone(),
        cases: Vec::new(),
        coverage: None,
        seconds: 0.0,
        error: Some(exit::text(error)),
    }));
    let mut out = Vec::new();
    match arguments.format {
        TestFormat::Human => output::write_human(&mut out, &results, arguments)?,
        TestFormat::Json => output::write_json(&mut out, &results, threshold)?,
        TestFormat::Junit => output::write_junit(&mut out, &results, threshold)?,
        TestFormat::Tap => output::write_tap(&mut out, &results, threshold)?,
    }
    arguments.output.write(&out)?;
    for (_, error) in &errors {
        exit::report(error);
    }
    if !errors.is_empty() {
        return Ok(Ended::WithError);
    }
    let failed = results.iter().any(|table| table.failed() > 0 || table.insufficient(threshold).is_some());
    Ok(if failed { Ended::WithFindings } else { Ended::Well })
}

/// Runs the tables in a file. One that the user named must have a table.
fn run_file(
    file: &Path,
    is_named: bool,
    arguments: &Arguments,
    with_coverage: bool,
) -> io::Result<Vec<io::Result<Results>>> {
    let source = match Source::read(file)? {
        Ok(source) => source,
        Err((_, unusable)) => {
            let message = unusable.diagnostic.message;
            return Err(Failure::of_file(&file.display().to_string(), &[(unusable.position, message)]));
        }
    };
    let mut tables: Vec<&Located> = source.tables.iter().collect();
    if tables.is_empty() && is_named {
        if let Some((policy, _)) = source.policies.first() {
            let message =
                "this is an AuthorizationPolicy of Istio, and not a table (name its file in `policy` of a table)";
            return Err(Failure::of_file(&file.display().to_string(), &[(Some(policy.position), message.to_owned())]));
        }
        if let Some(document) = source.documents.first() {
            let message = "this is a document, and not a table (expected an object with `policy` and `cases`)";
            return Err(Failure::of_file(
                &file.display().to_string(),
                &[(Some(document.position), message.to_owned())],
            ));
        }
        if source.unknown.is_empty() {
            let message = "the file has no table (expected an object with `policy` and `cases`)";
            return Err(Failure::of_file(&file.display().to_string(), &[(None, message.to_owned())]));
        }
    }
    // Probably tables with a mistake in the name of a field.
    if is_named || !tables.is_empty() {
        tables.extend(&source.unknown);
    }
    Ok(tables.into_iter().map(|table| run_table(table, file, arguments, with_coverage)).collect())
}

fn run_table(table: &Located, file: &Path, arguments: &Arguments, with_coverage: bool) -> io::Result<Results> {
    let start = Instant::now();
    let Table { document, layer, cases, space_delimited } = Table::read(table, file)?;
    let mut coverage = with_coverage.then(|| Coverage::of(&document));
    let is_selected = |case: &Case| arguments.run.as_ref().is_none_or(|text| case.name.contains(text));
    let cases = cases.into_iter().filter(|(case, _)| is_selected(case)).map(|(case, position)| {
        let request = claims::split(&case.request, &space_delimited);
        run_case(case, &request, layer, position, &document, arguments.verbose, coverage.as_mut())
    });
    let cases = cases.collect();
    let seconds = start.elapsed().as_secs_f64();
    Ok(Results { file: file.to_owned(), cases, coverage, seconds, error: None })
}

fn run_case(
    case: Case,
    request: &CaseRequest,
    layer: Layer,
    position: Position,
    Document { policy, .. }: &Document,
    with_details: bool,
    coverage: Option<&mut Coverage>,
) -> CaseResult {
    let subject = policy.subject(request.identity(policy.identity()));
    // Without a `time`, no policy depends on it.
    let time = request.time.unwrap_or(Timestamp::from_seconds(0));
    let request = Request::new(request, time);
    // Only coverage needs every rule that matches.
    let outcome = match coverage {
        None => policy.decide(&subject, &request),
        Some(coverage) => match policy.explain(&subject, &request) {
            Ok(explanation) => {
                coverage.add(&explanation);
                explanation.outcome
            }
            Err(_) => policy.decide(&subject, &request),
        },
    };
    let differences = case.expect.differences(&outcome);
    let details = (with_details || !differences.is_empty()).then(|| Details {
        request: case.request.clone(),
        layer,
        decision: DecisionLine(&outcome.decision).text(),
        json: decision_json(&outcome.decision),
    });
    CaseResult { name: case.name, position, differences, details }
}
