//! `spiffe-authz replay`: the logged requests whose verdict a new document changes.

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use spiffe_authz::case::{CaseRequest, ExpectedVerdict};
use spiffe_authz::decision::{DenyReason, Outcome, Verdict};
use spiffe_authz::identity::IdentityReason;
use spiffe_authz::policy::PolicySet;
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

use crate::clock::At;
use crate::decision::decision_json;
use crate::document::Document;
use crate::exit::{self, Ended};
use crate::input;
use crate::logged_request::{Line, Logged, Skipped};
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::stream::{stderr, stdout};
use crate::style::{BAD, GOOD};

/// Decides logged requests with a new document and prints changed verdicts
///
/// Reads the JSON access log of examples/bootstrap, or Envoy's log with the filter's lines: in the text and JSON formats of
/// Envoy and Istio, with the prefixes of `kubectl logs` and log shippers, and compressed with gzip. Attributes that the log
/// lacks, such as headers and tokens, are unknown. A request whose verdict depends on them is counted as unknown.
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
    /// The new document, in JSON or YAML
    #[arg(long)]
    policy: PathBuf,
    #[command(flatten)]
    at: At,
    /// Logs; `-` is standard input
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    changed: u64,
    unknown: u64,
    skipped: Skipped,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let policy = Document::load(&arguments.policy)?.policy;
    let mut out = stdout();
    let now = arguments.at.time()?;
    let mut counts = Counts::default();
    let mut unreadable = false;
    for log in &arguments.logs {
        // One unreadable log does not hide the changes in the others.
        match read(log, |number, logged| {
            let Some(outcome) = decide(&policy, logged, now) else {
                counts.unknown += 1;
                return Ok(());
            };
            if outcome.decision.verdict.slug() == logged.verdict.slug() {
                return Ok(());
            }
            counts.changed += 1;
            write_change(&mut out, arguments.format, &format!("{}:{number}", log.display()), logged, &outcome)
        }) {
            Ok((0, skipped)) => {
                unreadable = true;
                exit::report(&no_request(log, skipped));
            }
            Ok((requests, skipped)) => {
                counts.requests += requests;
                counts.skipped.other += skipped.other;
                counts.skipped.not_understood += skipped.not_understood;
            }
            Err(Unread::Output(error)) => return Err(error),
            Err(Unread::Log(error)) => {
                unreadable = true;
                exit::report(&error);
            }
        }
    }
    let Counts { requests, changed, unknown, skipped } = counts;
    let word = if requests == 1 { "request" } else { "requests" };
    say!(
        stderr(),
        "{} {}: {} would change, {} unknown (the log lacks attributes){}",
        requests,
        word,
        changed,
        unknown,
        skipped.text()
    )?;
    Ok(match changed {
        _ if unreadable => Ended::WithError,
        0 => Ended::Well,
        _ => Ended::WithFindings,
    })
}

/// Returns the error for a log without a request, so that a check of the wrong file does not pass.
fn no_request(log: &Path, Skipped { other, not_understood }: Skipped) -> io::Error {
    let count = other + not_understood;
    let lines = if count == 1 { "1 line".to_owned() } else { format!("{count} lines") };
    let part = match not_understood {
        0 => String::new(),
        all if all == count => ", none understood".to_owned(),
        some => format!(", {some} not understood"),
    };
    io::Error::other(format!(
        "{}: no request: {lines}{part} (expected the JSON access log of the filter, or Envoy's log with the filter's lines)",
        log.display()
    ))
}

/// A log that is not read to its end.
enum Unread {
    Log(io::Error),
    Output(io::Error),
}

/// Reads a log, and calls `visit` with the number of the line of each request. Returns the number of requests, and those
/// of other lines.
fn read(log: &Path, mut visit: impl FnMut(u64, &Logged) -> io::Result<()>) -> Result<(u64, Skipped), Unread> {
    let mut requests = 0;
    let mut skipped = Skipped::default();
    let reader = input::open_log(log).map_err(Unread::Log)?;
    for (number, line) in (1..).zip(reader.split(b'\n')) {
        let line = line.map_err(|error| {
            Unread::Log(io::Error::new(error.kind(), format!("{}:{number}: {error}", log.display())))
        })?;
        match Line::read(&String::from_utf8_lossy(&line)) {
            Some(Line::Request(logged)) => {
                requests += 1;
                visit(number, &logged).map_err(Unread::Output)?;
            }
            Some(Line::Other) => skipped.other += 1,
            Some(Line::NotUnderstood) => skipped.not_understood += 1,
            None => {}
        }
    }
    Ok((requests, skipped))
}

/// Decides a logged request, or returns `None` if the log lacks an attribute.
fn decide<'p>(policy: &'p PolicySet, logged: &Logged, now: Timestamp) -> Option<Outcome<'p>> {
    // For a caller without an accepted identity, the logs do not contain the certificate.
    let without_identity = logged.reason.as_deref().is_some_and(|reason| {
        IdentityReason::all().any(|identity| identity.slug() == reason && identity != IdentityReason::NoPeerCertificate)
    });
    // An SVID that has expired, or was revoked, is denied although the log contains its ID.
    if without_identity {
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
            let by =
                decision.rule.map(|rule| format!(" by {}, rule {}", rule.policy, rule.position)).unwrap_or_default();
            let caller = request.peer.as_deref().unwrap_or("a caller without an identity");
            let CaseRequest { method, path, .. } = request;
            say!(out, "{}: {} -> {}{}{}: {}: {} {}", place, before, now, reason, by, caller, method, path)
        }
        Format::Json => {
            let before = json!({"verdict": logged.verdict.slug(), "reason": logged.reason});
            let now = decision_json(&outcome.decision);
            write_json(out, &json!({"place": place, "request": request, "before": before, "now": now}))
        }
    }
}
