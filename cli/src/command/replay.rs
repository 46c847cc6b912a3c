//! `spiffe-authz replay`: the logged requests whose verdict a new document changes.

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::json;
use spiffe_authz::case::{CaseRequest, ExpectedVerdict};
use spiffe_authz::decision::{DenyReason, Outcome, Verdict};
use spiffe_authz::policy::{Layer, PolicySet};
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

use crate::clock::At;
use crate::decision::{by, decision_json, request_json};
use crate::document::Document;
use crate::exit::Ended;
use crate::logged_request::{self, Logged};
use crate::mesh::MeshOptions;
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::stream::{stderr, stdout};
use crate::style::{BAD, GOOD};

/// Decides logged requests with a new document and prints changed verdicts
///
/// Reads the JSON access log of examples/bootstrap, or Envoy's log with the filter's lines: in the text and JSON formats of
/// Envoy and Istio, with the prefixes of `kubectl logs` and log shippers, and compressed with gzip. Attributes that the log
/// lacks, such as headers and tokens, are unknown. A request or TCP connection whose verdict depends on them is counted as unknown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz replay --policy new.yaml access.log
  kubectl logs deploy/httpbin -c istio-proxy |
    spiffe-authz replay --policy new.yaml -

Exit status:
  0  no verdict changes
  1  the command could not run, or a log has no request
  3  a verdict changes")]
pub(crate) struct Arguments {
    /// The new document, or AuthorizationPolicies, in JSON or YAML; a file or a directory
    #[arg(long)]
    policy: PathBuf,
    #[command(flatten)]
    mesh: MeshOptions,
    #[command(flatten)]
    at: At,
    /// Logs; `-` is standard input
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let [http, tcp] = Document::load_for_layers(&arguments.policy, &arguments.mesh.mesh()?)?;
    let mut out = stdout();
    let now = arguments.at.time()?;
    let (mut changed, mut unknown) = (0_u64, 0_u64);
    let (counts, has_error) = logged_request::read_all(&arguments.logs, |log, number, logged| {
        let policy = if logged.layer == Layer::Tcp { &tcp.policy } else { &http.policy };
        let Some(outcome) = decide(policy, &logged, now) else {
            unknown += 1;
            return Ok(());
        };
        if outcome.decision.verdict.slug() == logged.verdict.slug() {
            return Ok(());
        }
        changed += 1;
        write_change(&mut out, arguments.format, &format!("{}:{number}", log.display()), &logged, &outcome)
    })?;
    let requests = counts.requests;
    let word = if requests == 1 { "request" } else { "requests" };
    say!(
        stderr(),
        "{} {}: {} would change, {} unknown (the log lacks attributes){}",
        requests,
        word,
        changed,
        unknown,
        counts.text()
    )?;
    Ok(match changed {
        _ if has_error => Ended::WithError,
        0 => Ended::Well,
        _ => Ended::WithFindings,
    })
}

/// Decides a logged request, or returns `None` if the log lacks an attribute.
fn decide<'p>(policy: &'p PolicySet, logged: &Logged, now: Timestamp) -> Option<Outcome<'p>> {
    if !logged.knows_caller() {
        return None;
    }
    let subject = policy.subject(logged.request.identity_of_caller(policy.identity()));
    let outcome = policy.decide(&subject, &Request::new(logged, now));
    (outcome.decision.verdict != Verdict::Deny(DenyReason::RequestUnreadable)).then_some(outcome)
}

fn write_change(
    out: &mut impl io::Write,
    format: Format,
    place: &str,
    logged: &Logged,
    outcome: &Outcome<'_>,
) -> io::Result<()> {
    let request = &logged.request;
    match format {
        Format::Human => {
            let (before, now) = match logged.verdict {
                ExpectedVerdict::Allow => (styled(GOOD, "allow"), styled(BAD, "deny")),
                ExpectedVerdict::Deny => (styled(BAD, "deny"), styled(GOOD, "allow")),
            };
            let decision = &outcome.decision;
            let reason = decision.verdict.reason().map(|reason| format!(" ({})", reason.slug())).unwrap_or_default();
            let by = by(decision.rule);
            let caller = request.peer.as_deref().unwrap_or("a caller without an identity");
            let CaseRequest { method, path, .. } = request;
            let what = if logged.layer == Layer::Tcp { "a connection".to_owned() } else { format!("{method} {path}") };
            say!(out, "{}: {} -> {}{}{}: {}: {}", place, before, now, reason, by, caller, what)
        }
        Format::Json => {
            let before = json!({"verdict": logged.verdict.slug(), "reason": logged.reason.map(DenyReason::slug)});
            let now = decision_json(&outcome.decision);
            let request = request_json(request, logged.layer);
            write_json(out, &json!({"place": place, "request": request, "before": before, "now": now}))
        }
    }
}
