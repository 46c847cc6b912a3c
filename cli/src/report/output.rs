//! Findings, human-readable and as JSON.

use std::collections::HashSet;
use std::hash::Hash;
use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::lint::Severity;

use super::{Finding, Place, Report};
use crate::finding::FindingCode;
use crate::printable::{say, styled};
use crate::style::{BAD, NOTABLE};

/// The width of the words that lines begin with.
pub(crate) const WIDTH: usize = 8;
/// The number of names in a line, beyond which the others are counted.
const MAX_NAMES: usize = 5;

/// Writes a finding of a report and its remedy.
pub(crate) fn write_finding(out: &mut impl Write, finding: &Finding, report: &Report) -> io::Result<()> {
    let Finding { code, message, places, .. } = finding;
    let style = if code.severity() == Severity::Error { BAD } else { NOTABLE };
    let word = styled(style, &format!("{:WIDTH$}", code.severity().slug()));
    say!(out, "  {} {}: {}{}", word, code.slug(), message, within(places))?;
    match report.cause_of(finding) {
        Some(cause) => say!(out, "  {} a consequence of {}", " ".repeat(WIDTH), cause.slug()),
        None => say!(out, "  {} {}", " ".repeat(WIDTH), code.remedy()),
    }
}

/// Returns the findings of a report as JSON.
pub(crate) fn findings_json(report: &Report) -> Vec<Value> {
    let findings = report.findings.iter().map(|finding| {
        let Finding { code, message, places, .. } = finding;
        json!({
            "code": code.slug(), "severity": code.severity().slug(), "layer": code.layer().slug(),
            "message": message, "help": code.remedy(), "places": places.iter().map(place_json).collect::<Vec<_>>(),
            "consequenceOf": report.cause_of(finding).map(FindingCode::slug),
        })
    });
    findings.collect()
}

/// Returns a place as JSON.
pub(crate) fn place_json(Place { listener, filter_chain, upgrade, route, cluster, secret }: &Place) -> Value {
    json!({
        "listener": listener, "filterChain": filter_chain, "upgrade": upgrade, "route": route, "cluster": cluster,
        "secret": secret,
    })
}

/// The places of an entry, in brackets, one for each listener.
pub(crate) fn within(places: &[Place]) -> String {
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
