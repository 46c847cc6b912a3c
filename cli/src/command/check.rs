//! `spiffe-authz check`: the errors in documents, and the findings of the lints.

mod authorization_policies;
mod baseline;
mod output;
mod review;
mod settings;

pub(crate) use review::review;

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::ValueEnum;
use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::lint::{self, Finding, Severity};
use spiffe_authz::policy::Proxy;

use crate::clock::now;
use crate::document::Document;
use crate::exit::{self, Ended};
use crate::input;
use crate::lines::Lines;
use crate::located::positions::Positions;
use crate::located::{Located, Position};
use crate::mesh::{Mesh, MeshOptions};
use crate::options::{Level, Output};
use crate::placed::Placed;
use crate::printable::{say, write_json, write_pretty_json};
use crate::source::Source;
use crate::stream::stderr;
use baseline::Baseline;
use settings::Settings;

/// Checks documents and reports lints
///
/// The filter accepts each document without errors. docs/reference/lints.md describes the lints. A document can also be in
/// a WasmPlugin, a TrafficExtension, an EnvoyFilter, or a configuration or dump of Envoy. AuthorizationPolicies are checked
/// together: those of the workload that `--namespace` and `--label` name, or all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz check policy.yaml
  spiffe-authz check --format sarif --output lints.sarif policies/
  kubectl get wasmplugins -A -o yaml | spiffe-authz check -
  kubectl get authorizationpolicies -A -o yaml |
    spiffe-authz check --trust-domain example.org -

Exit status:
  0  no errors, and no findings of the fail level or above
  1  the command could not run
  3  an error in a document, or a finding of the fail level or above")]
pub(crate) struct Arguments {
    /// Files with documents or AuthorizationPolicies in JSON or YAML, or directories with such files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: CheckFormat,
    #[command(flatten)]
    output: Output,
    /// Omits documents without problems from human-readable output
    #[arg(short, long)]
    quiet: bool,
    /// The lowest severity of a finding for which the exit status is 3; a document with an error always fails
    #[arg(long, value_enum, default_value = "warning")]
    fail_level: Level,
    /// The filter or proxy that enforces the policies
    #[arg(long, value_enum, default_value = "http")]
    target: Target,
    #[command(flatten)]
    mesh: MeshOptions,
    #[command(flatten)]
    settings: settings::Options,
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
    /// One Code Quality report of GitLab
    Gitlab,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The HTTP filter
    Http,
    /// The TCP filter
    Tcp,
    /// The HTTP filter, and Istio's ztunnel
    Ztunnel,
}

/// A diagnostic or the finding of a lint, in one form.
struct Problem {
    position: Option<Position>,
    /// The JSON pointer in the document, or in the AuthorizationPolicy.
    pointer: String,
    /// The place in words, if it is in an AuthorizationPolicy.
    subject: Option<String>,
    /// The name of the policy, unless the problem is about the document.
    policy: Option<String>,
    severity: Severity,
    code: &'static str,
    message: String,
    help: String,
    /// Whether the filter rejects the document because of it.
    is_error: bool,
}

impl From<Placed> for Problem {
    fn from(Placed { position, diagnostic }: Placed) -> Self {
        let Diagnostic { pointer, code, message, help } = diagnostic;
        let (severity, code) = (Severity::Error, code.slug());
        Self { position, pointer, subject: None, policy: None, severity, code, message, help, is_error: true }
    }
}

impl Problem {
    /// Returns `None` if the lint is not reported.
    fn of_finding(
        Finding { lint, pointer, message }: Finding,
        document: &Located,
        positions: &Positions<'_>,
        settings: &Settings,
    ) -> Option<Self> {
        let severity = settings.severity(lint)?;
        let position = Some(positions.at(&pointer, false));
        let policy = policy_name(&pointer, document);
        let (code, message, help) = (lint.slug(), named(&message, document), lint.remedy().to_owned());
        Some(Self { position, pointer, subject: None, policy, severity, code, message, help, is_error: false })
    }

    /// Returns `true` if the exit status is 3 because of this problem.
    fn fails(&self, level: Level) -> bool {
        self.is_error || level.is_reached(self.severity)
    }

    /// Returns the message with the next step, which the message of a lint can already contain.
    fn text(&self) -> String {
        let has_step = self.help.is_empty() || (self.message.ends_with(')') && !self.is_error);
        if has_step { self.message.clone() } else { format!("{} ({})", self.message, phrase(&self.help)) }
    }

    /// Returns the place in the document: the JSON pointer, or `/` for the whole document.
    fn place(&self) -> &str {
        match &self.subject {
            Some(subject) => subject,
            None if self.pointer.is_empty() => "/",
            None => &self.pointer,
        }
    }
}

/// Returns a sentence in the form of a next step: in lower case, without the full stop.
fn phrase(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut characters = sentence.chars();
    let first = characters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    first + characters.as_str()
}

/// Returns a message with the name of the policy after each pointer to a rule.
fn named(message: &str, document: &Located) -> String {
    let words = message.split(' ').map(|word| match policy_name(word, document) {
        Some(name) => format!("{word} ({name})"),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the name of the policy that contains this place.
fn policy_name(pointer: &str, document: &Located) -> Option<String> {
    let position: usize = pointer.strip_prefix("/policies/")?.split('/').next()?.parse().ok()?;
    let policy = document.field("policies")?.items().get(position)?;
    let text = |name: &str| policy.field(name).and_then(Located::text);
    let name = text("name")?;
    Some(text("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}")))
}

/// The problems in a document.
struct Checked {
    file: PathBuf,
    /// The text of the file, for excerpts.
    text: Rc<Lines>,
    /// The position of the document, if the file has several.
    position: Option<Position>,
    problems: Vec<Problem>,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let target = match arguments.target {
        Target::Http => lint::Target::Http,
        Target::Tcp => lint::Target::Tcp,
        Target::Ztunnel => lint::Target::Ztunnel,
    };
    let settings = Settings::read(&arguments.settings)?;
    let now = now()?;
    let named: HashSet<&PathBuf> = arguments.files.iter().collect();
    let mut unreadable = Vec::new();
    let files = input::expand(&arguments.files, &mut unreadable);
    let mut errors: Vec<io::Error> = unreadable.into_iter().map(|(path, error)| input::named(&path, &error)).collect();
    let mesh = arguments.mesh.mesh()?;
    let lint = |document: &Document| lint::lint(&document.root, target, now);
    let mut checked = Vec::new();
    let mut sources = Vec::new();
    for path in files {
        let is_named = named.contains(&path);
        match Source::read(&path) {
            Ok(Ok(source)) => sources.push(File { path, is_named, source }),
            Ok(Err((text, unusable))) => checked.push(whole(&path, text, unusable)),
            Err(error) => errors.push(error),
        }
    }
    for file in &sources {
        checked.extend(check_documents(file, &mesh, &settings, lint)?);
    }
    if mesh.has_trust_domain() && sources.iter().any(|file| file.source.has_policies()) {
        match authorization_policies::check(&sources, &mesh, &settings, lint) {
            Ok(found) => checked.extend(found),
            Err(error) => errors.push(error),
        }
    }
    if checked.is_empty() && errors.is_empty() {
        let message =
            "no document found (expected objects with `trustDomain` and `policies`, or AuthorizationPolicies)";
        errors.push(io::Error::other(message));
    }
    if let Some(baseline) = &settings.baseline {
        if arguments.settings.update_baseline {
            return update_baseline(baseline, &checked, &errors);
        }
        let unused = Baseline::read(baseline)?.remove_accepted(&mut checked);
        if unused > 0 {
            let at = baseline.display();
            say!(stderr(), "{}: accepted findings that no longer occur: {} (add `--update-baseline`)", at, unused)?;
        }
    }
    let mut out = Vec::new();
    let level = arguments.fail_level;
    match arguments.format {
        CheckFormat::Human => {
            let shown = checked.iter().filter(|checked| !arguments.quiet || !checked.problems.is_empty());
            shown.into_iter().try_for_each(|checked| output::write_human(&mut out, checked, level))?;
        }
        CheckFormat::Json => {
            checked.iter().try_for_each(|checked| write_json(&mut out, &output::as_json(checked)))?;
        }
        CheckFormat::Sarif => write_pretty_json(&mut out, &output::as_sarif(&checked))?,
        CheckFormat::Github => checked.iter().try_for_each(|checked| output::write_github(&mut out, checked))?,
        CheckFormat::Gitlab => write_pretty_json(&mut out, &output::as_gitlab(&checked))?,
    }
    arguments.output.write(&out)?;
    for error in &errors {
        exit::report(error);
    }
    if !errors.is_empty() {
        return Ok(Ended::WithError);
    }
    let failed = checked.iter().flat_map(|checked| &checked.problems).any(|problem| problem.fails(level));
    Ok(if failed { Ended::WithFindings } else { Ended::Well })
}

/// Accepts all findings. Errors cannot be accepted.
fn update_baseline(file: &Path, checked: &[Checked], unreadable: &[io::Error]) -> io::Result<Ended> {
    let rejected: Vec<&Checked> =
        checked.iter().filter(|checked| checked.problems.iter().any(|problem| problem.is_error)).collect();
    for error in unreadable {
        exit::report(error);
    }
    for checked in &rejected {
        say!(stderr(), "error: {}: the document has errors, which cannot be accepted", checked.file.display())?;
    }
    if !unreadable.is_empty() || !rejected.is_empty() {
        return Ok(Ended::WithError);
    }
    let count = Baseline::write(file, checked)?;
    say!(stderr(), "{}: accepted findings: {}", file.display(), count)?;
    Ok(Ended::Well)
}

/// Returns the result for a file with one problem.
fn whole(file: &Path, text: Rc<Lines>, error: Placed) -> Checked {
    Checked { file: file.to_owned(), text, position: None, problems: vec![error.into()] }
}

/// A file with everything that it contains.
struct File {
    path: PathBuf,
    /// Whether the user named it, and not only its directory.
    is_named: bool,
    source: Source,
}

/// Checks the documents in a file. One that the user named must have a document or an AuthorizationPolicy.
fn check_documents(
    File { path: file, is_named, source }: &File,
    mesh: &Mesh,
    settings: &Settings,
    lint: impl Fn(&Document) -> Vec<Finding>,
) -> io::Result<Vec<Checked>> {
    if source.has_policies() && !mesh.has_trust_domain() {
        let position = source.policies.first().map(|(policy, _)| policy.position);
        let message = "AuthorizationPolicies need the mesh's trust domain".to_owned();
        let help = "use `--trust-domain`".to_owned();
        let diagnostic = Diagnostic { pointer: String::new(), code: Code::MissingField, message, help };
        return Ok(vec![whole(file, Rc::clone(&source.text), Placed { position, diagnostic })]);
    }
    let documents = source.documents(*is_named);
    if documents.is_empty() && source.rejected.is_empty() {
        if source.has_policies() {
            return Ok(Vec::new());
        }
        let Placed { position, diagnostic } = source.without_document();
        if !source.tables.is_empty() {
            say!(stderr(), "{}: skipped: {} ({})", file.display(), diagnostic.message, diagnostic.help)?;
        }
        if !is_named || !source.tables.is_empty() {
            return Ok(Vec::new());
        }
        return Ok(vec![whole(file, Rc::clone(&source.text), Placed { position, diagnostic })]);
    }
    let is_several = documents.len() + source.rejected.len() > 1 || source.has_policies();
    let text = Rc::clone(&source.text);
    let checked = |position: Option<Position>, problems| Checked {
        file: file.to_owned(),
        text: Rc::clone(&text),
        position: position.filter(|_| is_several),
        problems,
    };
    let compiled = documents.iter().map(|document| {
        let positions = Positions::of(document);
        let problems = match Document::compile(document, Proxy::Every) {
            Ok(compiled) => lint(&compiled)
                .into_iter()
                .filter_map(|finding| Problem::of_finding(finding, document, &positions, settings))
                .collect(),
            Err(errors) => {
                let mut problems: Vec<Problem> = errors.into_iter().map(Problem::from).collect();
                let mut pointers: HashSet<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
                for finding in lint::lint_values(&document.to_node()) {
                    // The compiler has already rejected such a value.
                    if !pointers.contains(&finding.pointer)
                        && let Some(problem) = Problem::of_finding(finding, document, &positions, settings)
                    {
                        pointers.insert(problem.pointer.clone());
                        problems.push(problem);
                    }
                }
                problems
            }
        };
        checked(Some(document.position), problems)
    });
    let compiled: Vec<Checked> = compiled.collect();
    let rejected = source.rejected.iter().map(|error| checked(error.position, vec![error.clone().into()]));
    Ok(compiled.into_iter().chain(rejected).collect())
}
