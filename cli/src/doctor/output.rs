//! What was found, for people and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::lint::Severity;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::dump::Envoy;
use super::finding::{Finding, Fine, Layer, Place, Report};
use crate::printable::{say, styled};
use crate::style::{BAD, GOOD, HEADING, NOTABLE};

/// The width of the words that lines begin with.
const WIDTH: usize = 8;

/// Writes what was found, by layer, from the outside in: the first layer that is wrong is the one to mend first.
pub(super) fn write_human(out: &mut impl Write, envoy: &Envoy, report: &Report) -> io::Result<()> {
    let release = envoy.release.map_or_else(|| "of an unknown release".to_owned(), |release| release.to_string());
    say!(out, "Envoy {}, {}", release, moment(envoy.taken))?;
    for layer in Layer::ALL {
        let findings: Vec<&Finding> = report.findings.iter().filter(|found| found.check.layer() == layer).collect();
        let fine: Vec<&Fine> = report.fine.iter().filter(|fine| fine.layer == layer).collect();
        if findings.is_empty() && fine.is_empty() {
            continue;
        }
        say!(out, "\n{}", styled(HEADING, layer.slug()))?;
        for Fine { message, places, .. } in fine {
            let word = styled(GOOD, &format!("{:WIDTH$}", "ok"));
            say!(out, "  {} {}{}", word, message, within(places))?;
        }
        for Finding { check, message, places } in findings {
            let style = if check.severity() == Severity::Error { BAD } else { NOTABLE };
            let word = styled(style, &format!("{:WIDTH$}", check.severity().slug()));
            say!(out, "  {} {}: {}{}", word, check.slug(), message, within(places))?;
            say!(out, "  {} {}", " ".repeat(WIDTH), check.remedy())?;
        }
    }
    let count = |severity| report.findings.iter().filter(|found| found.check.severity() == severity).count();
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(count);
    say!(out, "\nerrors: {}, warnings: {}, notes: {}", counts[0], counts[1], counts[2])
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
    let release = envoy.release.map(|release| release.to_string());
    json!({"envoy": release, "at": moment(envoy.taken), "findings": findings, "fine": fine})
}

fn place_json(Place { listener, filter_chain, upgrade, route, secret }: &Place) -> Value {
    json!({
        "listener": listener, "filterChain": filter_chain, "upgrade": upgrade, "route": route, "secret": secret,
    })
}

/// The places of an entry, in brackets, one for each listener.
fn within(places: &[Place]) -> String {
    let listeners = unique(places.iter().map(|place| place.listener.as_ref()));
    let shown: Vec<String> = listeners
        .into_iter()
        .map(|listener| {
            let here = || places.iter().filter(|place| place.listener.as_ref() == listener);
            let parts = [
                names("listener", listener.into_iter()),
                names("filter chain", here().filter_map(|place| place.filter_chain.as_ref())),
                names("upgrade", here().filter_map(|place| place.upgrade.as_ref())),
                // The name says which part of a route table it is.
                names("in", here().filter_map(|place| place.route.as_ref())),
                names("secret", here().filter_map(|place| place.secret.as_ref())),
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        })
        .collect();
    if shown.is_empty() { String::new() } else { format!(" [{}]", shown.join("; ")) }
}

fn names<'p>(kind: &str, names: impl Iterator<Item = &'p String>) -> Option<String> {
    let names = unique(names.map(String::as_str));
    (!names.is_empty()).then(|| format!("{kind} {}", names.join(" and ")))
}

fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut unique = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}

/// A moment, in seconds since 1970, as people write it.
pub(super) fn moment(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|moment| moment.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Place;
    use super::within;

    #[test]
    fn places_are_told_once() {
        let place = |listener: &str, chain: &str, secret: &str| Place {
            listener: Some(listener.to_owned()),
            filter_chain: Some(chain.to_owned()),
            secret: Some(secret.to_owned()),
            ..Place::default()
        };
        let places = [place("a", "#0", "x"), place("a", "#0", "y"), place("a", "#1", "x"), place("b", "#0", "x")];
        let expected = " [listener a, filter chain #0 and #1, secret x and y; listener b, filter chain #0, secret x]";
        assert_eq!(within(&places), expected);
        assert_eq!(within(&[]), "");
    }
}
