//! A report, human-readable and as JSON.

use std::collections::HashSet;
use std::hash::Hash;
use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::lint::Severity;

use super::release::Release;
use crate::envoy::moment::{Moment, moment};
use crate::envoy::snapshot::Envoy;
use crate::finding::{FindingCode, FindingLayer};
use crate::printable::{say, styled};
use crate::report::{Finding, Fine, Place, Report};
use crate::style::{BAD, GOOD, HEADING, NOTABLE};

/// The width of the words that lines begin with.
const WIDTH: usize = 8;
/// The number of names in a line, beyond which the others are counted.
const MAX_NAMES: usize = 5;

/// Writes a report by layer, from the outside in. The findings that explain others come first.
pub(super) fn write_human(out: &mut impl Write, envoy: &Envoy, report: &Report) -> io::Result<()> {
    let release = Release::read(&envoy.dump.version);
    let release = release.map_or_else(|| "of an unknown release".to_owned(), |release| release.to_string());
    say!(out, "Envoy {}, {}", release, when(envoy))?;
    let causes: Vec<&Finding> =
        report.findings.iter().filter(|finding| !report.explained_by(finding).is_empty()).collect();
    if !causes.is_empty() {
        say!(out, "\n{}", styled(HEADING, "start here"))?;
    }
    for finding in causes {
        write_finding(out, finding)?;
        say!(out, "  {} explains {}", " ".repeat(WIDTH), report.explained_by(finding).join(", "))?;
    }
    for layer in FindingLayer::ALL {
        write_layer(out, layer, report)?;
    }
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(|severity| report.count(severity));
    say!(out, "\nerrors: {}, warnings: {}, notes: {}", counts[0], counts[1], counts[2])
}

fn write_layer(out: &mut impl Write, layer: FindingLayer, report: &Report) -> io::Result<()> {
    let is_here = |finding: &&Finding| finding.code.layer() == layer && report.explained_by(finding).is_empty();
    let findings: Vec<&Finding> = report.findings.iter().filter(is_here).collect();
    let fine: Vec<&Fine> = report.fine.iter().filter(|fine| fine.layer == layer).collect();
    if findings.is_empty() && fine.is_empty() {
        return Ok(());
    }
    say!(out, "\n{}", styled(HEADING, layer.slug()))?;
    for Fine { message, places, .. } in fine {
        let word = styled(GOOD, &format!("{:WIDTH$}", "ok"));
        say!(out, "  {} {}{}", word, message, within(places))?;
    }
    findings.into_iter().try_for_each(|finding| write_finding(out, finding))
}

fn write_finding(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let Finding { code, message, places, cause } = finding;
    let style = if code.severity() == Severity::Error { BAD } else { NOTABLE };
    let word = styled(style, &format!("{:WIDTH$}", code.severity().slug()));
    say!(out, "  {} {}: {}{}", word, code.slug(), message, within(places))?;
    match cause {
        Some(cause) => say!(out, "  {} a consequence of {}", " ".repeat(WIDTH), cause.slug()),
        None => say!(out, "  {} {}", " ".repeat(WIDTH), code.remedy()),
    }
}

fn when(envoy: &Envoy) -> String {
    match envoy.taken {
        Moment::At(seconds) => moment(seconds),
        Moment::NotBefore(_) => "at an unknown time".to_owned(),
    }
}

/// Returns a report as one JSON object.
pub(super) fn as_json(envoy: &Envoy, report: &Report) -> Value {
    let fine: Vec<Value> = report
        .fine
        .iter()
        .map(|Fine { layer, message, places }| {
            let places: Vec<Value> = places.iter().map(place_json).collect();
            json!({"layer": layer.slug(), "message": message, "places": places})
        })
        .collect();
    let release = Release::read(&envoy.dump.version).map(|release| release.to_string());
    let at = match envoy.taken {
        Moment::At(seconds) => Some(moment(seconds)),
        Moment::NotBefore(_) => None,
    };
    json!({"envoy": release, "at": at, "findings": findings_json(report), "fine": fine})
}

/// Returns the findings of a report as JSON.
pub(crate) fn findings_json(report: &Report) -> Vec<Value> {
    let findings = report.findings.iter().map(|Finding { code, message, places, cause }| {
        json!({
            "code": code.slug(), "severity": code.severity().slug(), "layer": code.layer().slug(),
            "message": message, "help": code.remedy(), "places": places.iter().map(place_json).collect::<Vec<_>>(),
            "consequenceOf": cause.map(FindingCode::slug),
        })
    });
    findings.collect()
}

fn place_json(Place { listener, filter_chain, upgrade, route, cluster, secret }: &Place) -> Value {
    json!({
        "listener": listener, "filterChain": filter_chain, "upgrade": upgrade, "route": route, "cluster": cluster,
        "secret": secret,
    })
}

/// The places of an entry, in brackets, one for each listener.
fn within(places: &[Place]) -> String {
    let mut shown = Vec::new();
    let listeners = unique(places.iter().filter(|place| place.cluster.is_none()).map(|place| place.listener.as_ref()));
    for &listener in listeners.iter().take(MAX_NAMES) {
        let here = || places.iter().filter(|place| place.cluster.is_none() && place.listener.as_ref() == listener);
        let parts = [
            names("listener", listener.into_iter()),
            names("filter chain", here().filter_map(|place| place.filter_chain.as_ref())),
            names("upgrade", here().filter_map(|place| place.upgrade.as_ref())),
            // The name says which part of a route table it is.
            names("in", here().filter_map(|place| place.route.as_ref())),
            names("secret", here().filter_map(|place| place.secret.as_ref())),
        ];
        shown.push(parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
    }
    if listeners.len() > MAX_NAMES {
        shown.push(format!("{} more listeners", listeners.len() - MAX_NAMES));
    }
    let clusters = || places.iter().filter(|place| place.cluster.is_some());
    let parts = [
        names("cluster", clusters().filter_map(|place| place.cluster.as_ref())),
        names("secret", clusters().filter_map(|place| place.secret.as_ref())),
    ];
    let of_clusters = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    shown.extend((!of_clusters.is_empty()).then_some(of_clusters));
    if shown.is_empty() { String::new() } else { format!(" [{}]", shown.join("; ")) }
}

fn names<'p>(kind: &str, names: impl Iterator<Item = &'p String>) -> Option<String> {
    let names = unique(names.map(String::as_str));
    let listed = names.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(" and ");
    let others = names.len().saturating_sub(MAX_NAMES);
    let rest = if others == 0 { String::new() } else { format!(" and {others} more") };
    (!names.is_empty()).then(|| format!("{kind} {listed}{rest}"))
}

fn unique<T: Copy + Eq + Hash>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(*item)).collect()
}

#[cfg(test)]
mod tests {
    use super::within;
    use crate::report::Place;

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
        let listeners: Vec<Place> = (0..7).map(|number| Place::listener(&number.to_string())).collect();
        assert!(within(&listeners).ends_with("; listener 4; 2 more listeners]"), "{}", within(&listeners));
        let clusters: Vec<Place> = (0..7).map(|number| Place::cluster(&number.to_string()).secret("x")).collect();
        assert_eq!(within(&clusters), " [cluster 0 and 1 and 2 and 3 and 4 and 2 more, secret x]");
    }
}
