//! `spiffe-authz learn`: the least set of policies that allows the requests in logs.

mod beyond;
mod output;
mod policies;
mod seen;
mod settings;
mod table;
mod template;

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use spiffe_authz::case::ExpectedVerdict;
use spiffe_authz::policy::{Layer, PolicySet, Proxy};
use spiffe_authz::timestamp::Timestamp;

use crate::clock;
use crate::decision::request_json;
use crate::document::Document;
use crate::exit::Ended;
use crate::input;
use crate::located::{Located, parse_all};
use crate::logged_request::{self, Period};
use crate::mesh::{MeshSettings, parse_trust_domain};
use crate::options::{Format, LayerOption, Output};
use crate::printable::write_pretty_json;
use crate::stream::stderr;
use crate::yaml;
use output::Report;
use policies::Policy;
use seen::{Observed, Seen, Used};
use settings::Settings;

/// Writes the least policies that allow the requests in logs
///
/// Reads the logs that `replay` reads. Only allowed requests of callers with an accepted identity are used; the others are counted. A rule
/// has the callers, methods and paths. Paths that differ in identifiers become a template, such as `/users/{*}`: docs/policies.md has the
/// rules. The report, on standard error, shows what each template allows beyond the requests that were seen.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz learn --trust-domain example.org --output policy.yaml \\
    --table table.yaml access.log
  spiffe-authz learn --policy policy.yaml --exact access.log

Exit status:
  0  the document is written
  1  the command could not run, or a log has no request that is used")]
pub(crate) struct Arguments {
    /// Logs; `-` is standard input
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// The local trust domain
    #[arg(long, value_parser = parse_trust_domain, required_unless_present = "policy")]
    trust_domain: Option<String>,
    /// A federated trust domain; can be repeated. Callers of other trust domains are not used
    #[arg(long = "federated-trust-domain", value_name = "TRUST_DOMAIN", value_parser = parse_trust_domain)]
    federated: Vec<String>,
    /// A former name of the local trust domain; can be repeated
    #[arg(long = "trust-domain-alias", value_name = "TRUST_DOMAIN", value_parser = parse_trust_domain)]
    aliases: Vec<String>,
    /// A document with the trust domains, `identity` and `outputs` of the new one. Its policies are ignored
    #[arg(long, conflicts_with_all = ["trust_domain", "federated", "aliases"])]
    policy: Option<PathBuf>,
    /// The layer. For TCP connections, a rule has the callers and the ports
    #[arg(long, value_enum, default_value = "http")]
    layer: LayerOption,
    /// Restricts each rule to the hosts that were seen
    #[arg(long)]
    hosts: bool,
    /// Restricts each rule to the local ports that were seen
    #[arg(long)]
    ports: bool,
    /// The number of different identifiers from which they become `{*}`
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    threshold: u32,
    /// Allows the paths that were seen, and no templates
    #[arg(long, conflicts_with = "threshold")]
    exact: bool,
    #[command(flatten)]
    output: Output,
    /// The notation of the document and the table
    #[arg(long, value_enum, default_value = "yaml")]
    to: Notation,
    /// The file for a test table, which is replaced: seen requests, which are allowed, and similar ones, which are denied
    #[arg(long, value_name = "FILE", requires = "output")]
    table: Option<PathBuf>,
    /// The output format of the report
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// The notation of a document.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Notation {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

/// Returns the error of a result that this command would have to prevent.
fn bug(message: &str) -> io::Error {
    io::Error::other(format!("{message}, which is a bug in this command (report it)"))
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    if arguments.table.is_some() && arguments.output.file().is_none() {
        return Err(io::Error::other("`--table` needs a file in `--output`, which the table names"));
    }
    let layer = Layer::from(arguments.layer);
    let settings = arguments.settings()?;
    let identities = settings.compile(&[])?;
    let used =
        Used { layer, hosts: arguments.hosts && layer == Layer::Http, ports: arguments.ports || layer == Layer::Tcp };
    let mut observed = Observed::new(identities.identity(), used);
    let mut period = Period::default();
    let (counts, has_error) = logged_request::read_all(&arguments.logs, |_, _, logged| {
        period.add(logged.time);
        observed.add(&logged)
    })?;
    if has_error {
        return Ok(Ended::WithError);
    }
    let (requests, denied) = (observed.requests(), observed.denied());
    if requests.is_empty() {
        let not_used = observed.not_used();
        let reasons = not_used.iter().map(|(reason, count)| format!("{count} {}", reason.text()));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        return Err(io::Error::other(format!("no request is used: {reasons}")));
    }
    let threshold = usize::try_from(arguments.threshold).ok().filter(|_| !arguments.exact && layer == Layer::Http);
    let learned = policies::learn(&requests, &denied, threshold);
    let now = clock::now()?;
    let document = settings.document(&learned.iter().map(Policy::to_located).collect::<Vec<_>>());
    let document = written(&document, arguments.to)?;
    let policies = compile(&document, layer)?;
    decide_all(&policies, &requests, ExpectedVerdict::Allow, layer, now)?;
    decide_all(&policies, &denied, ExpectedVerdict::Deny, layer, now)?;
    let generalized = beyond::all(&settings, &learned, &requests, &policies, now)?;
    let table = match (&arguments.table, arguments.output.file()) {
        (Some(table), Some(document)) => {
            let cases = table::cases(&learned, &requests, &policies, layer, now)?;
            let value = table::to_located(&cases, &table::relative(document, table)?, layer)?;
            Some((table, written(&value, arguments.to)?))
        }
        _ => None,
    };
    arguments.output.replace(&document)?;
    if let Some((file, table)) = table {
        fs::write(file, table).map_err(|error| input::named(file, &error))?;
    }
    let distinct = requests.len();
    let report = Report { policies: &learned, generalized, observed: &observed, distinct, counts, period };
    match arguments.format {
        Format::Human => report.write_human(&mut stderr())?,
        Format::Json => report.write_json(&mut stderr())?,
    }
    Ok(Ended::Well)
}

impl Arguments {
    /// Returns the settings of the document.
    fn settings(&self) -> io::Result<Settings> {
        let mesh = MeshSettings {
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: self.aliases.clone(),
            federated_trust_domains: self.federated.clone(),
            ..MeshSettings::default()
        };
        Settings::read(self.policy.as_deref(), &mesh)
    }
}

/// Returns the text of a document or a table.
fn written(value: &Located, notation: Notation) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match notation {
        Notation::Yaml => {
            text.extend(b"# Written by `spiffe-authz learn`.\n");
            yaml::write(&mut text, value)?;
        }
        Notation::Json => write_pretty_json(&mut text, value)?,
    }
    Ok(text)
}

/// Compiles the text of the document.
fn compile(text: &[u8], layer: Layer) -> io::Result<PolicySet> {
    let text = std::str::from_utf8(text).map_err(io::Error::other)?;
    let parsed = parse_all(text).map_err(|error| bug(&format!("the document cannot be read: {}", error.message)))?;
    let [document] = &parsed[..] else { return Err(bug("the document is not one document")) };
    let document = Document::compile(document, Proxy::Unknown).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(|error| error.diagnostic.to_string()).collect();
        bug(&format!("the document is rejected: {}", errors.join("; ")))
    })?;
    Ok(document.on(layer).policy)
}

/// Checks that the policies give every request this verdict.
fn decide_all(
    policies: &PolicySet,
    requests: &[Seen<'_>],
    verdict: ExpectedVerdict,
    layer: Layer,
    now: Timestamp,
) -> io::Result<()> {
    for seen in requests {
        let request = table::request(seen, policies);
        let found = request.decide(policies, now).decision.verdict.slug();
        if found != verdict.slug() {
            let request = request_json(&request, layer);
            return Err(bug(&format!("the policies give the verdict `{found}` on {request}")));
        }
    }
    Ok(())
}
