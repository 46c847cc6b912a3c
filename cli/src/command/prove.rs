//! `spiffe-authz prove`: whether statements hold for every request.

mod invariants;
mod output;

use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{self, Counterexample};

use crate::answer;
use crate::clock::At;
use crate::document::Document;
use crate::exit::Ended;
use crate::mesh::MeshOptions;
use crate::options::{LayerOption, Output};
use crate::printable::{write_json, write_pretty_json};
use invariants::Invariants;

/// Proves that statements hold for all requests, or shows a counterexample
///
/// The file of invariants, in YAML or JSON, has a list `invariants`. Each one has a `name`, and `never` or `always`: a rule
/// with `from`, `to` and `when`, as in a policy. The document must deny or allow every request that the rule matches. `never`
/// is read like a rule of a DENY policy, and `always` like one of an ALLOW policy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz prove --invariants invariants.yaml policy.yaml
  spiffe-authz prove --invariants invariants.yaml --format junit \\
    --output results.xml policies/a.yaml policies/b.yaml

Exit status:
  0  every invariant holds
  1  the command could not run, or an invariant is not decided
  3  an invariant does not hold")]
pub(crate) struct Arguments {
    /// Documents, or AuthorizationPolicies, in JSON or YAML; files or directories; `-` is standard input
    #[arg(required = true)]
    documents: Vec<PathBuf>,
    /// The file of invariants
    #[arg(long)]
    invariants: PathBuf,
    #[command(flatten)]
    mesh: MeshOptions,
    #[command(flatten)]
    at: At,
    /// The layer of the decisions
    #[arg(long, value_enum, default_value = "http")]
    layer: LayerOption,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: ProveFormat,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProveFormat {
    /// Human-readable text
    Human,
    /// One JSON object per document
    Json,
    /// One JUnit XML document
    Junit,
    /// One SARIF log
    Sarif,
}

/// The results for a document.
struct Proved {
    file: PathBuf,
    results: Vec<Proof>,
}

/// The result for an invariant.
struct Proof {
    name: String,
    outcome: ProofOutcome,
}

enum ProofOutcome {
    Holds,
    /// The limits on the values that were considered.
    NotDecided(Vec<String>),
    Fails(Box<Counterexample>),
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mesh = arguments.mesh.mesh()?;
    let layer = Layer::from(arguments.layer);
    let now = arguments.at.time()?;
    let invariants = Invariants::read(&arguments.invariants)?;
    let mut proved = Vec::new();
    for file in &arguments.documents {
        let document = Document::load(file, &mesh)?;
        let statements = invariants.for_document(&document)?.on(layer);
        let policies = document.policy.on(layer);
        let statements = analysis::prove(&policies, &statements, now)
            .map_err(|reason| answer::not_decided(&file.display().to_string(), &reason))?;
        let results = statements.into_iter().map(|statement| {
            let outcome = match statement.counterexample {
                Some(counterexample) => ProofOutcome::Fails(Box::new(counterexample)),
                None if statement.limits.is_empty() => ProofOutcome::Holds,
                None => ProofOutcome::NotDecided(statement.limits),
            };
            Proof { name: statement.name, outcome }
        });
        proved.push(Proved { file: file.clone(), results: results.collect() });
    }
    let mut results = Vec::new();
    match arguments.format {
        ProveFormat::Human => output::write_human(&mut results, &proved, layer)?,
        ProveFormat::Json => {
            proved.iter().try_for_each(|proved| write_json(&mut results, &output::as_json(proved, layer)))?;
        }
        ProveFormat::Junit => output::write_junit(&mut results, &proved, layer)?,
        ProveFormat::Sarif => write_pretty_json(&mut results, &output::as_sarif(&proved, layer))?,
    }
    arguments.output.write(&results)?;
    let any = |is: fn(&ProofOutcome) -> bool| {
        proved.iter().flat_map(|proved| &proved.results).any(|proof| is(&proof.outcome))
    };
    Ok(if any(|outcome| matches!(outcome, ProofOutcome::Fails(_))) {
        Ended::WithFindings
    } else if any(|outcome| matches!(outcome, ProofOutcome::NotDecided(_))) {
        Ended::WithError
    } else {
        Ended::Well
    })
}
