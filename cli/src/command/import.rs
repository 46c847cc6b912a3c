//! `spiffe-authz import`: a configuration document from Istio's AuthorizationPolicies.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;
use spiffe_authz::diagnostic::Code;
use spiffe_authz::identity::Pattern;
use spiffe_authz::spiffe_id::SpiffeId;

use crate::exit::Ended;
use crate::input;
use crate::istio::fields::{IS_TEMPLATE, TEMPLATE};
use crate::istio::import::{Import, option, texts};
use crate::istio::remark::Remark;
use crate::istio::resource::{KIND, Resources};
use crate::istio::scope::Scope;
use crate::located::{self, Field, Located, Position, Value, place};
use crate::mesh::MeshOptions;
use crate::options::{Format, Output};
use crate::printable::{say, styled, write_json, write_pretty_json};
use crate::stream::stderr;
use crate::style::{BAD, NOTABLE};

/// Converts Istio's AuthorizationPolicies to a configuration document
///
/// Reads YAML or JSON: several documents, lists, and the output of `kubectl get -o yaml`. The versions are
/// security.istio.io/v1 and v1beta1. Writes the document to standard output, and each difference between the document
/// and the policies to standard error. Writes no document if a policy cannot be imported.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz import --trust-domain example.org --namespace default \\
    --label app=httpbin policies/
  kubectl get authorizationpolicies -A -o yaml |
    spiffe-authz import --trust-domain example.org -n default -

Exit status:
  0  the document has every policy that applies
  1  the command could not run, or there is no policy
  3  a policy cannot be imported, or no policy applies")]
pub(crate) struct Arguments {
    /// Files with AuthorizationPolicies, or directories with such files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshOptions,
    /// Imports the policies of every namespace and workload, with their selectors, to a document with `scope`
    #[arg(long, conflicts_with = "namespace")]
    all: bool,
    /// Writes a document if no policy applies to the workload. Without an ALLOW policy, it allows every accepted caller
    #[arg(long)]
    allow_empty: bool,
    /// Writes a document without the policies that cannot be imported, which can allow more than they do
    #[arg(long)]
    allow_partial: bool,
    /// The value of `identity.pattern` in the document
    #[arg(long, value_parser = parse_pattern)]
    pattern: Option<String>,
    /// The value of `identity.from` in the document
    #[arg(long, value_enum)]
    from: Option<From>,
    /// One of `identity.trustedProxies` in the document, with `--from xfcc`; can be repeated
    #[arg(long = "trusted-proxy", value_name = "SPIFFE_ID", value_parser = parse_proxy)]
    proxies: Vec<String>,
    /// The value of `identity.peer` in the document
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    #[command(flatten)]
    output: Output,
    /// The output format of the differences
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// The values of `identity.from`.
#[derive(Clone, Copy, ValueEnum)]
enum From {
    /// The client certificate
    Tls,
    /// The filter state of HBONE
    #[value(name = "peerPrincipal")]
    PeerPrincipal,
    /// The header of a trusted proxy
    Xfcc,
}

/// The values of `identity.peer`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// A caller without a certificate is denied
    Required,
    /// Policies decide about a caller without a certificate
    Optional,
}

/// Returns the principal for a SPIFFE ID with or without its scheme.
fn parse_proxy(text: &str) -> Result<String, String> {
    let principal = text.strip_prefix("spiffe://").unwrap_or(text);
    SpiffeId::parse(format!("spiffe://{principal}").as_bytes()).map_err(|error| error.to_string())?;
    Ok(principal.to_owned())
}

fn parse_pattern(text: &str) -> Result<String, String> {
    Pattern::parse(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

impl Arguments {
    /// Returns the field `identity` of the document, if an option sets it.
    fn identity(&self) -> Option<Field> {
        let mut identity = Vec::new();
        let mut set = |name: &str, value: Option<&str>| {
            identity.extend(value.map(|value| option(name, Value::String(value.to_owned()))));
        };
        set("pattern", self.pattern.as_deref());
        set(
            "from",
            self.from.map(|from| match from {
                From::Tls => "tls",
                From::PeerPrincipal => "peerPrincipal",
                From::Xfcc => "xfcc",
            }),
        );
        set(
            "peer",
            self.peer.map(|peer| match peer {
                Peer::Required => "required",
                Peer::Optional => "optional",
            }),
        );
        if !self.proxies.is_empty() {
            identity.push(option("trustedProxies", texts(&self.proxies)));
        }
        (!identity.is_empty()).then(|| option("identity", Value::Object(identity)))
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mesh = arguments.mesh.mesh()?;
    let mut directories = Vec::new();
    let mut files = Vec::new();
    let mut unreadable = Vec::new();
    for file in input::expand(&arguments.files, &mut directories) {
        match read(&file) {
            Ok(documents) => files.push((file.display().to_string(), documents)),
            Err(remark) => unreadable.push(remark),
        }
    }
    unreadable.extend(directories.iter().map(|(path, error)| unread(path, None, error.to_string())));
    let mut resources = Resources::default();
    for (file, documents) in &files {
        documents.iter().for_each(|document| resources.add(document, file));
    }
    let scope = if arguments.all { Scope::All } else { Scope::Unspecified };
    let requires_peer = arguments.peer != Some(Peer::Optional);
    let mut import = mesh.import(resources, scope, arguments.identity().into_iter().collect(), requires_peer)?;
    import.remarks.extend(unreadable.iter().cloned());
    let decision = decide(&import, unreadable.len(), arguments);
    if let Err((_, reason)) = &decision {
        let remark = Remark::on_import(format!("no document is written: {reason}"));
        import.remarks.push(remark.lost(Code::Unsupported));
    }
    write_remarks(&import.remarks, arguments.format)?;
    if decision.is_ok() {
        let mut document = Vec::new();
        write_pretty_json(&mut document, &import.document)?;
        arguments.output.write(&document)?;
    }
    Ok(match decision {
        Ok(ended) | Err((ended, _)) => ended,
    })
}

/// Decides whether the document is written, and otherwise why not. A document must not allow more than its policies.
fn decide(import: &Import<'_>, unreadable: usize, arguments: &Arguments) -> Result<Ended, (Ended, String)> {
    if unreadable > 0 {
        let noun = if unreadable == 1 { "1 file".to_owned() } else { format!("{unreadable} files") };
        return Err((Ended::WithError, format!("{noun} cannot be read")));
    }
    if import.read == 0 {
        return Err((Ended::WithError, format!("the input has no {KIND}")));
    }
    if import.lost > 0 && !arguments.allow_partial {
        let (lost, read) = (import.lost, import.read);
        let noun = if read == 1 { "policy" } else { "policies" };
        let reason = format!("{lost} of {read} {noun} cannot be imported (use `--allow-partial` to omit them)");
        return Err((Ended::WithFindings, reason));
    }
    if let Some(conflict) = &import.conflict {
        return Err((Ended::WithFindings, conflict.clone()));
    }
    if import.policies.is_empty() && !arguments.allow_empty {
        let reason = "no policy applies to the workload, so the document would allow every accepted caller (use \
                      `--allow-empty` if this is intended)";
        return Err((Ended::WithFindings, reason.to_owned()));
    }
    Ok(if import.lost > 0 { Ended::WithFindings } else { Ended::Well })
}

/// Reads the documents of a file.
fn read(file: &Path) -> Result<Vec<Located>, Remark> {
    let text = input::read_text(file).map_err(|error| unread(file, None, error.to_string()))?;
    located::parse_all(&text).map_err(|error| {
        let message = if text.contains(TEMPLATE) { IS_TEMPLATE.to_owned() } else { error.message };
        unread(file, error.position, message)
    })
}

/// Returns the remark on a file that cannot be read.
fn unread(file: &Path, position: Option<Position>, message: String) -> Remark {
    let file = file.display().to_string();
    Remark { origin: Some((file.clone(), position)), lost: Some(Code::Syntax), place: file, field: None, message }
}

fn write_remarks(remarks: &[Remark], format: Format) -> io::Result<()> {
    let mut err = stderr();
    for Remark { origin, place: name, field, lost, message } in remarks {
        let (file, position) = match origin {
            Some((file, position)) => (Some(file), *position),
            None => (None, None),
        };
        match format {
            Format::Human => {
                let kind = match (lost, origin) {
                    (None, _) => styled(NOTABLE, "note"),
                    (Some(_), None) => styled(BAD, "error"),
                    (Some(_), Some(_)) => styled(BAD, "not imported"),
                };
                let at = file.map(|file| format!("{}: ", place(file, position))).unwrap_or_default();
                let name = if file.is_none_or(|file| file == name) { String::new() } else { format!("{name}: ") };
                let field = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
                say!(err, "{}{}{}: {}{}", at, name, kind, field, message)?;
            }
            Format::Json => {
                let remark = json!({
                    "file": file, "line": position.map(|position| position.line),
                    "column": position.map(|position| position.column), "place": name, "field": field, "lost": lost.is_some(),
                    "message": message,
                });
                write_json(&mut err, &remark)?;
            }
        }
    }
    Ok(())
}
