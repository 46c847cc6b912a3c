//! `spiffe-authz who`: the callers that can do something, and what a caller can do.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{self, Permission, Permissions, Question};

use crate::answer;
use crate::attributes::Attributes;
use crate::clock::At;
use crate::decision::request_json;
use crate::document::Document;
use crate::exit::Ended;
use crate::mesh::MeshOptions;
use crate::options::{Format, LayerOption};
use crate::printable::{say, styled, write_json};
use crate::stream::stdout;
use crate::style::{GOOD, NOTABLE};

/// Shows which callers can do something, or what a caller can do
///
/// Without options, shows every request that a document allows: for each rule, the callers, the other attributes, and one
/// request as an example, which the document decides. Options fix attributes; the others can have any value.
/// docs/review.md describes the output and its limits.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz who --method POST --path /admin policy.yaml
  spiffe-authz who --peer spiffe://example.io/ns/web/sa/shop policy.yaml
  kubectl get authorizationpolicies -A -o yaml |
    spiffe-authz who --trust-domain example.org --namespace default -

Exit status:
  0  the answer is complete
  1  the command could not run, or the answer is not decided completely")]
pub(crate) struct Arguments {
    /// Documents, or AuthorizationPolicies, in JSON or YAML; files or directories; `-` is standard input
    #[arg(required = true)]
    documents: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshOptions,
    #[command(flatten)]
    at: At,
    /// The layer of the decisions
    #[arg(long, value_enum, default_value = "http")]
    layer: LayerOption,
    /// The SPIFFE ID of the caller
    #[arg(long)]
    peer: Option<String>,
    /// The HTTP method
    #[arg(long)]
    method: Option<String>,
    /// The path
    #[arg(long)]
    path: Option<String>,
    #[command(flatten)]
    attributes: Attributes,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mesh = arguments.mesh.mesh()?;
    let layer = Layer::from(arguments.layer);
    let now = arguments.at.time()?;
    let Attributes { host, port, headers, source_ip, remote_ip, sni, claims } = &arguments.attributes;
    let mut names = HashSet::new();
    if let Some((name, _)) = headers.iter().find(|(name, _)| !names.insert(name)) {
        let message = format!("`--header {name}` is repeated (the answers are about headers with one line)");
        return Err(io::Error::other(message));
    }
    let question = Question {
        peer: arguments.peer.clone(),
        method: arguments.method.clone(),
        path: arguments.path.clone(),
        host: host.clone(),
        port: *port,
        source_ip: *source_ip,
        remote_ip: *remote_ip,
        sni: sni.clone(),
        headers: headers.clone(),
        claims: claims.clone(),
    };
    let mut out = stdout();
    let mut is_complete = true;
    for file in &arguments.documents {
        let document = Document::load(file, &mesh)?.on(layer);
        let permissions = analysis::who(&document.policy, &question, now)
            .map_err(|reason| answer::not_decided(&file.display().to_string(), &reason))?;
        is_complete &= permissions.limits.is_empty();
        match arguments.format {
            Format::Human => write_human(&mut out, file, &permissions, layer)?,
            Format::Json => write_json(&mut out, &as_json(file, &permissions, layer))?,
        }
    }
    Ok(if is_complete { Ended::Well } else { Ended::WithError })
}

fn write_human(out: &mut impl Write, file: &Path, permissions: &Permissions, layer: Layer) -> io::Result<()> {
    let Permissions { permissions, limits } = permissions;
    for Permission { rule, requests, witness, .. } in permissions {
        say!(out, "{} {}", styled(GOOD, "allow"), answer::reason(rule.as_ref()))?;
        answer::write_requests(out, requests, witness, layer)?;
    }
    for limit in limits {
        say!(out, "{}: not every value is considered: {}", styled(NOTABLE, "note"), limit)?;
    }
    match permissions.len() {
        0 => say!(out, "{}: no caller", file.display()),
        1 => say!(out, "{}: 1 permission", file.display()),
        count => say!(out, "{}: {} permissions", file.display(), count),
    }
}

fn as_json(file: &Path, Permissions { permissions, limits }: &Permissions, layer: Layer) -> Value {
    let permissions = permissions.iter().map(|Permission { rule, requests, witness, .. }| {
        let mut object = json!({
            "policy": rule.as_ref().map(|(policy, _)| policy), "rule": rule.as_ref().map(|(_, rule)| rule),
            "witness": request_json(witness, layer),
        });
        answer::add_requests(&mut object, requests);
        object
    });
    let permissions: Vec<Value> = permissions.collect();
    json!({"file": file.to_string_lossy(), "permissions": permissions, "limits": limits})
}
