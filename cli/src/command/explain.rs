//! `spiffe-authz explain`: the decision about a request, and the rules that lead to it.

mod before;
mod hint;
mod output;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use spiffe_authz::case::{CaseRequest, Lines};
use spiffe_authz::decision::Verdict;
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::field::Field;
use spiffe_authz::request::Request;

use crate::attributes::Attributes;
use crate::clock::At;
use crate::document::Document;
use crate::exit::Ended;
use crate::logged_request::{self, Logged};
use crate::mesh::MeshOptions;
use crate::options::{Format, LayerOption};
use crate::printable::write_json;
use crate::stream::stdout;
use before::{BeforeFilter, Received};
use output::Explained;

/// Shows how a request is decided, and why
///
/// For each rule, shows what it requires and what the request has, closest match first.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz explain --policy policy.yaml \\
    --peer spiffe://example.org/ns/default/sa/sleep --path /headers
  kubectl logs deploy/httpbin -c istio-proxy | grep spiffe-authz |
    spiffe-authz explain --policy policy.yaml --log

Exit status:
  0  the request is allowed
  1  the command could not run
  2  the request is denied")]
pub(crate) struct Arguments {
    /// The document, or AuthorizationPolicies, in JSON or YAML; a file or a directory
    #[arg(long)]
    policy: PathBuf,
    #[command(flatten)]
    mesh: MeshOptions,
    /// The layer of the decision. On TCP, rules can use the caller, the addresses, the port and the server name only
    /// [default: that of the line with `--log`, otherwise http]
    #[arg(long, value_enum)]
    layer: Option<LayerOption>,
    /// Reads the request from standard input: a line of the filter's log or of the JSON access log, in the format of Envoy,
    /// Istio or a log shipper. Other options set the attributes that the line lacks
    #[arg(long, conflicts_with_all = ["peer", "method", "path"])]
    log: bool,
    #[command(flatten)]
    at: At,
    /// The SPIFFE ID of the caller [default: a caller without a certificate]
    #[arg(long)]
    peer: Option<String>,
    /// The HTTP method
    #[arg(long, default_value = "GET")]
    method: String,
    /// The path, with its query
    #[arg(long, default_value = "/")]
    path: String,
    #[command(flatten)]
    attributes: Attributes,
    /// The local address, where the connection arrived
    #[arg(long)]
    destination_ip: Option<IpAddr>,
    #[command(flatten)]
    before: BeforeFilter,
    /// Shows every rule in human-readable output, and not only the closest ones
    #[arg(long)]
    all: bool,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// Returns the request in the log on standard input, which must have one.
fn logged_request() -> io::Result<Logged> {
    let mut last = None;
    let counts = logged_request::read(Path::new("-"), |_, logged| {
        last = Some(logged);
        Ok(())
    })?;
    last.filter(|_| counts.requests == 1).ok_or_else(|| {
        let requests =
            if counts.requests == 1 { "1 request".to_owned() } else { format!("{} requests", counts.requests) };
        io::Error::other(format!(
            "standard input: {requests}{} (expected one line of the filter's log or of the JSON access log)",
            counts.text()
        ))
    })
}

impl Arguments {
    /// Returns the request, and the layer of the decision about it.
    fn request(&self) -> io::Result<(Layer, CaseRequest)> {
        let logged = if self.log { Some(logged_request()?) } else { None };
        let layer = self.layer.map(Layer::from);
        let logged_layer = logged.as_ref().map(|logged| logged.layer);
        if (logged_layer, layer) == (Some(Layer::Tcp), Some(Layer::Http)) {
            return Err(io::Error::other("standard input: the line is about a TCP connection (omit `--layer http`)"));
        }
        if let Some(logged) = logged.as_ref().filter(|logged| !logged.knows_caller()) {
            let reason = logged
                .reason
                .map_or_else(|| "without a reason".to_owned(), |reason| format!("with `{}`", reason.slug()));
            return Err(io::Error::other(format!(
                "standard input: the line does not contain the caller, who is denied {reason} (use `--peer`, `--method` and \
                 `--path` instead of `--log`)"
            )));
        }
        let Attributes { host, port, headers: lines, source_ip, remote_ip, sni, claims } = &self.attributes;
        let mut headers = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in lines {
            headers.entry(name.clone()).or_default().push(value.clone());
        }
        let base = logged.map(|logged| logged.request).unwrap_or_else(|| CaseRequest {
            peer: self.peer.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            ..CaseRequest::default()
        });
        let request = CaseRequest {
            host: host.clone().or(base.host),
            port: port.or(base.port),
            headers: headers.into_iter().map(|(name, lines)| (name, Lines::Several(lines))).collect(),
            source_ip: source_ip.or(base.source_ip),
            remote_ip: remote_ip.or(base.remote_ip),
            destination_ip: self.destination_ip,
            sni: sni.clone().or(base.sni),
            claims: claims.clone(),
            ..base
        };
        Ok((layer.or(logged_layer).unwrap_or_default(), request))
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let document = Document::load(&arguments.policy, &arguments.mesh.mesh()?)?;
    let (layer, sent) = arguments.request()?;
    let document = document.on(layer);
    let is_received = arguments.log || layer == Layer::Tcp;
    let Received { request, assumed } = arguments.before.apply(&document.policy, &sent, is_received)?;
    let now = arguments.at.time()?;
    let settings = document.policy.identity();
    let identify = |request: &CaseRequest| {
        if arguments.log { request.identity_of_caller(settings) } else { request.identity(settings) }
    };
    let explanation = document
        .policy
        .explain(&document.policy.subject(identify(&request)), &Request::new(&request, now))
        .map_err(|_| io::Error::other("the request cannot be read"))?;
    let mut hints = hint::on(&request, &explanation.outcome);
    if !is_received && document.policy.reads(Field::Paths) {
        for (normalization, path) in arguments.before.other_paths(&sent) {
            let other = CaseRequest { path, ..request.clone() };
            let outcome =
                document.policy.decide(&document.policy.subject(identify(&other)), &Request::new(&other, now));
            hints.push(hint::other_path(normalization, &other.path, &outcome));
        }
    }
    let explained =
        Explained { root: &document.root, layer, request: &request, explanation: &explanation, assumed, hints };
    let mut out = stdout();
    match arguments.format {
        Format::Human => explained.write_human(&mut out, arguments.all)?,
        Format::Json => write_json(&mut out, &explained.as_json())?,
    }
    Ok(match explanation.outcome.decision.verdict {
        Verdict::Allow => Ended::Well,
        Verdict::Deny(_) => Ended::WithDenial,
    })
}
