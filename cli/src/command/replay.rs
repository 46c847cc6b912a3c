//! `spiffe-authz replay`: the logged requests whose verdict a new document changes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;

use anstream::{stderr, stdout};
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
use crate::exit::Ended;
use crate::input;
use crate::logged_request::Logged;
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::style::{BAD, GOOD};

/// Decides logged requests with a new document and prints changed verdicts
///
/// Reads the JSON access log of examples/bootstrap, or Envoy's log with the filter's lines. Attributes that the log lacks,
/// such as headers and tokens, are unknown. A request whose verdict depends on them is counted as unknown.
#[derive(clap::Args)]
#[command(after_help = "Exit status:\n  0  no verdict changes\n  1  the command could not run\n  3  a verdict changes")]
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
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    changed: u64,
    unknown: u64,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let policy = Document::load(&arguments.policy)?.policy;
    let mut out = stdout().lock();
    let now = arguments.at.time()?;
    let mut counts = Counts::default();
    for log in &arguments.logs {
        let reader = BufReader::new(io::Cursor::new(input::read(log)?));
        for (number, line) in (1..).zip(reader.split(b'\n')) {
            let Some(logged) = Logged::parse(&String::from_utf8_lossy(&line?)) else { continue };
            counts.requests += 1;
            let Some(outcome) = decide(&policy, &logged, now) else {
                counts.unknown += 1;
                continue;
            };
            let now = outcome.decision.verdict;
            if now.slug() == logged.verdict.slug() {
                continue;
            }
            counts.changed += 1;
            write_change(&mut out, arguments.format, &format!("{}:{number}", log.display()), &logged, &outcome)?;
        }
    }
    let Counts { requests, changed, unknown } = counts;
    let word = if requests == 1 { "request" } else { "requests" };
    say!(stderr(), "{} {}: {} would change, {} unknown (the log lacks attributes)", requests, word, changed, unknown)?;
    Ok(if counts.changed > 0 { Ended::WithFindings } else { Ended::Well })
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
