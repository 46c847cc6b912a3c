//! `spiffe-authz matrix`: who can do what at each workload of a mesh.

mod csv;
mod groups;
mod markdown;
mod mermaid;
mod page;
mod services;
mod text;
mod workloads;

use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{CallerKind, Permission, Requests};

use crate::answer;
use crate::clock::At;
use crate::decision::request_json;
use crate::exit::Ended;
use crate::mesh::SettingsOptions;
use crate::options::{LayerOption, Output};
use crate::printable::write_json;
use workloads::{Entry, Outcome, entries};

/// Shows who can do what at each workload of a mesh
///
/// Reads the AuthorizationPolicies of a mesh, documents, or both. For each workload that the policies distinguish, it shows the
/// callers that can do something, their requests, and the rule that allows them. Callers of federated trust domains,
/// callers without an identity, and rules for every caller stand out.
///
/// A document without `scope` is one workload. docs/review.md describes the workloads and the limits of the answers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kubectl get authorizationpolicies -A -o yaml |
    spiffe-authz matrix --trust-domain example.org --format html -o matrix.html -
  spiffe-authz matrix --format csv web.yaml database.yaml

Exit status:
  0  the matrix is complete
  1  the command could not run, or a part of the matrix is not decided")]
pub(crate) struct Arguments {
    /// Documents, or AuthorizationPolicies, in JSON or YAML; files or directories; `-` is standard input
    #[arg(required = true)]
    documents: Vec<PathBuf>,
    #[command(flatten)]
    settings: SettingsOptions,
    #[command(flatten)]
    at: At,
    /// The layer of the decisions
    #[arg(long, value_enum, default_value = "http")]
    layer: LayerOption,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: MatrixFormat,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MatrixFormat {
    /// Human-readable text
    Human,
    /// One JSON object per workload
    Json,
    /// Comma-separated values, one row per permission
    Csv,
    /// Markdown tables
    Markdown,
    /// A Mermaid flowchart of callers and workloads
    Mermaid,
    /// One self-contained HTML page
    Html,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let layer = Layer::from(arguments.layer);
    let now = arguments.at.time()?;
    let entries = entries(&arguments.documents, arguments.settings.settings(), layer, now)?;
    let mut results = Vec::new();
    match arguments.format {
        MatrixFormat::Human => text::write(&mut results, &entries, layer)?,
        MatrixFormat::Json => {
            entries.iter().try_for_each(|entry| write_json(&mut results, &as_json(entry, layer)))?;
        }
        MatrixFormat::Csv => csv::write(&mut results, &entries, layer)?,
        MatrixFormat::Markdown => markdown::write(&mut results, &entries, layer)?,
        MatrixFormat::Mermaid => mermaid::write(&mut results, &entries, layer)?,
        MatrixFormat::Html => page::write(&mut results, &entries, layer)?,
    }
    arguments.output.write(&results)?;
    Ok(if entries.iter().all(Entry::is_complete) { Ended::Well } else { Ended::WithError })
}

/// Returns the kinds of the callers of a permission, such as `local and federated`.
fn kinds(permission: &Permission) -> String {
    permission.kinds.iter().map(|kind| kind.slug()).collect::<Vec<_>>().join(" and ")
}

/// Returns `true` if the callers of a permission must stand out.
fn stands_out(permission: &Permission) -> bool {
    permission.has_every_caller || permission.kinds.iter().any(|kind| *kind != CallerKind::Local)
}

/// Returns the conditions of requests on one line.
fn operation(requests: &Requests, layer: Layer) -> String {
    if requests.conditions.is_empty() {
        return if layer == Layer::Tcp { "every connection" } else { "every request" }.to_owned();
    }
    let conditions = requests.conditions.iter().map(|condition| {
        let note = if condition.is_opaque { " (written by another filter)" } else { "" };
        format!("{} {}{note}", condition.attribute, answer::patterns(&condition.values))
    });
    conditions.collect::<Vec<_>>().join(", ")
}

/// Returns a policy and the position of its rule as text.
fn rule(permission: &Permission) -> String {
    match &permission.rule {
        Some((policy, rule)) => format!("{policy}, rule {rule}"),
        None => "no ALLOW policy".to_owned(),
    }
}

/// Returns the numbers of workloads and permissions.
fn counts(entries: &[Entry]) -> String {
    let count = |count: usize, one: &str, several: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    };
    let undecided = entries.iter().filter(|entry| entry.permissions().is_none()).count();
    let permissions = entries.iter().filter_map(Entry::permissions).map(<[Permission]>::len).sum();
    let sum = format!(
        "{}, {}",
        count(entries.len(), "workload", "workloads"),
        count(permissions, "permission", "permissions")
    );
    if undecided == 0 { sum } else { format!("{sum}, {undecided} not decided") }
}

fn as_json(entry: &Entry, layer: Layer) -> Value {
    let Entry { workload, outcome } = entry;
    let permissions = entry.permissions().unwrap_or_default().iter().map(|permission| {
        let Permission { rule, requests, kinds, has_every_caller, witness, .. } = permission;
        let mut object = json!({
            "policy": rule.as_ref().map(|(policy, _)| policy), "rule": rule.as_ref().map(|(_, rule)| rule),
            "trustDomains": kinds.iter().map(|kind| kind.slug()).collect::<Vec<_>>(), "everyCaller": has_every_caller,
            "witness": request_json(witness, layer),
        });
        answer::add_requests(&mut object, requests);
        object
    });
    let permissions: Vec<Value> = permissions.collect();
    let not_decided = match &**outcome {
        Outcome::NotDecided(reason) => Some(reason),
        Outcome::Decided { .. } => None,
    };
    json!({
        "workload": workload.name(), "file": workload.file, "namespace": workload.namespace, "labels": workload.labels,
        "gateway": workload.gateway, "service": workload.service, "proxy": workload.proxy.slug(), "permissions": permissions,
        "limits": entry.limits(), "notDecided": not_decided,
    })
}
