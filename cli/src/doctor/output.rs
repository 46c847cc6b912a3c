//! What was found, for people and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::lint::Severity;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::dump::Envoy;
use super::finding::{Finding, Fine, Layer, Place, Report};
use crate::style::{BAD, GOOD, HEADING, NOTABLE, styled};

/// The width of the words that lines begin with.
const WIDTH: usize = 8;

/// Writes what was found, by layer, from the outside in: the first layer that is wrong is the one to mend first.
pub(super) fn write_human(out: &mut impl Write, envoy: &Envoy, report: &Report) -> io::Result<()> {
    writeln!(out, "Envoy {}, {}", envoy.version, moment(envoy.taken))?;
    for layer in Layer::ALL {
        let findings: Vec<&Finding> = report.findings.iter().filter(|found| found.check.layer() == layer).collect();
        let fine: Vec<&Fine> = report.fine.iter().filter(|fine| fine.layer == layer).collect();
        if findings.is_empty() && fine.is_empty() {
            continue;
        }
        writeln!(out, "\n{}", styled(HEADING, layer.slug()))?;
        for Fine { message, places, .. } in fine {
            let word = styled(GOOD, &format!("{:WIDTH$}", "ok"));
            writeln!(out, "  {word} {}{}", message.escape_debug(), within(places))?;
        }
        for Finding { check, message, places } in findings {
            let style = if check.severity() == Severity::Error { BAD } else { NOTABLE };
            let word = styled(style, &format!("{:WIDTH$}", check.severity().slug()));
            writeln!(out, "  {word} {}: {}{}", check.slug(), message.escape_debug(), within(places))?;
            writeln!(out, "  {:WIDTH$} {}", "", check.remedy())?;
        }
    }
    let count = |severity| report.findings.iter().filter(|found| found.check.severity() == severity).count();
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(count);
    writeln!(out, "\n{} errors, {} warnings, {} notes", counts[0], counts[1], counts[2])
}

/// The same as one JSON object.
pub(super) fn as_json(envoy: &Envoy, report: &Report) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|Finding { check, message, places }| {
            json!({
                "code": check.slug(), "severity": check.severity().slug(), "layer": check.layer().slug(),
                "message": message, "help": check.remedy(), "places": places.iter().map(place_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    let fine: Vec<Value> = report
        .fine
        .iter()
        .map(|Fine { layer, message, places }| {
            let places: Vec<Value> = places.iter().map(place_json).collect();
            json!({"layer": layer.slug(), "message": message, "places": places})
        })
        .collect();
    json!({"envoy": envoy.version, "at": moment(envoy.taken), "findings": findings, "fine": fine})
}

fn place_json(Place { listener, filter_chain, secret }: &Place) -> Value {
    json!({"listener": listener, "filterChain": filter_chain, "secret": secret})
}

/// The places of an entry, in brackets.
fn within(places: &[Place]) -> String {
    let shown: Vec<String> = places
        .iter()
        .map(|Place { listener, filter_chain, secret }| {
            let parts = [("listener", listener), ("filter chain", filter_chain), ("secret", secret)];
            let parts = parts.iter().filter_map(|(kind, name)| name.as_ref().map(|name| format!("{kind} {name}")));
            parts.collect::<Vec<_>>().join(", ")
        })
        .collect();
    if shown.is_empty() { String::new() } else { format!(" [{}]", shown.join("; ").escape_debug()) }
}

/// A moment, in seconds since 1970, as people write it.
pub(super) fn moment(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|moment| moment.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| format!("{seconds} s after 1970"))
}
