//! `spiffe-authz diff`: the requests that two documents decide differently.

mod output;

use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{self, ChangeKind, Difference};

use crate::answer;
use crate::clock::At;
use crate::document::Document;
use crate::exit::Ended;
use crate::mesh::MeshOptions;
use crate::options::{LayerOption, Output};
use crate::printable::{write_json, write_pretty_json};

/// Shows the requests that a change of a document allows or denies
///
/// Compares the verdicts of two documents on all requests, and not on those in a log. Each change has the callers and the
/// attributes of its requests, the old and the new verdict, and one request as an example, which both documents decide.
/// Shadow and AUDIT policies do not affect verdicts. docs/review.md describes the output and its limits.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz diff old.yaml new.yaml
  git show main:policy.yaml |
    spiffe-authz diff --fail-on granted - policy.yaml
  spiffe-authz diff --format markdown --output comment.md \\
    --trust-domain example.org --namespace default old/ new/

Exit status:
  0  no verdict changes, or no change of the kind that fails
  1  the command could not run, or the difference is not decided completely
  3  a verdict changes, or a field that no request shows")]
pub(crate) struct Arguments {
    /// The old document, or AuthorizationPolicies, in JSON or YAML; a file or a directory; `-` is standard input
    old: PathBuf,
    /// The new document, in the same forms
    new: PathBuf,
    #[command(flatten)]
    mesh: MeshOptions,
    #[command(flatten)]
    at: At,
    /// The layer of the decisions
    #[arg(long, value_enum, default_value = "http")]
    layer: LayerOption,
    /// The changes for which the exit status is 3
    #[arg(long, value_enum, default_value = "any")]
    fail_on: FailOn,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: DiffFormat,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// Human-readable text
    Human,
    /// One JSON object
    Json,
    /// Markdown, for a comment on a pull request
    Markdown,
    /// One SARIF log
    Sarif,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Every change
    Any,
    /// Requests that were denied and are allowed, and fields that no request shows
    Granted,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mesh = arguments.mesh.mesh()?;
    let layer = Layer::from(arguments.layer);
    let old = Document::load(&arguments.old, &mesh)?.on(layer);
    let new = Document::load(&arguments.new, &mesh)?.on(layer);
    let now = arguments.at.time()?;
    let difference = analysis::diff(&old.policy, &new.policy, now).map_err(|reason| {
        answer::not_decided(&format!("{} and {}", arguments.old.display(), arguments.new.display()), &reason)
    })?;
    let mut results = Vec::new();
    match arguments.format {
        DiffFormat::Human => output::write_human(&mut results, &difference, layer)?,
        DiffFormat::Json => write_json(&mut results, &output::as_json(&difference, layer))?,
        DiffFormat::Markdown => output::write_markdown(&mut results, &difference, layer)?,
        DiffFormat::Sarif => write_pretty_json(&mut results, &output::as_sarif(&difference, &arguments.new, layer))?,
    }
    arguments.output.write(&results)?;
    let Difference { changes, unseen, limits } = &difference;
    // A field that no request shows, such as `requireValidated`, can decide who is accepted.
    let fails = !unseen.is_empty()
        || match arguments.fail_on {
            FailOn::Any => !changes.is_empty(),
            FailOn::Granted => changes.iter().any(|change| change.kind == ChangeKind::Granted),
        };
    Ok(if fails {
        Ended::WithFindings
    } else if limits.is_empty() {
        Ended::Well
    } else {
        Ended::WithError
    })
}
