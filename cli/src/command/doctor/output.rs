//! A report, human-readable and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::lint::Severity;

use super::release::Release;
use crate::envoy::moment::{Moment, moment};
use crate::envoy::snapshot::Envoy;
use crate::finding::FindingLayer;
use crate::printable::{say, styled};
use crate::report::output::{WIDTH, findings_json, place_json, within, write_finding};
use crate::report::{Finding, Fine, Report};
use crate::style::{GOOD, HEADING};

/// The heading of a report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heading {
    release: Option<Release>,
    taken: Moment,
}

impl Heading {
    /// Returns the heading of a report about an Envoy.
    pub(super) fn of(envoy: &Envoy) -> Self {
        Self { release: Release::read(&envoy.dump.version), taken: envoy.taken }
    }

    /// Returns the time of the pages, if it is known.
    fn time(self) -> Option<String> {
        match self.taken {
            Moment::At(seconds) => Some(moment(seconds)),
            Moment::NotBefore(_) => None,
        }
    }
}

/// Writes a report by layer, from the outside in. The findings that explain others come first.
pub(super) fn write_human(out: &mut impl Write, heading: Heading, report: &Report) -> io::Result<()> {
    let release = heading.release.map_or_else(|| "of an unknown release".to_owned(), |release| release.to_string());
    let time = heading.time().unwrap_or_else(|| "at an unknown time".to_owned());
    say!(out, "Envoy {}, {}", release, time)?;
    let causes: Vec<&Finding> =
        report.findings.iter().filter(|finding| !report.explained_by(finding).is_empty()).collect();
    if !causes.is_empty() {
        say!(out, "\n{}", styled(HEADING, "start here"))?;
    }
    for finding in causes {
        write_finding(out, finding, report)?;
        say!(out, "  {} explains {}", " ".repeat(WIDTH), report.explained_by(finding).join(", "))?;
    }
    for layer in FindingLayer::ALL {
        write_layer(out, layer, report)?;
    }
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(|severity| {
        let count = report.count(severity);
        format!("{count} {}{}", severity.slug(), if count == 1 { "" } else { "s" })
    });
    say!(out, "\n{}", counts.join(", "))
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
    findings.into_iter().try_for_each(|finding| write_finding(out, finding, report))
}

/// Returns a report as one JSON object.
pub(super) fn as_json(heading: Heading, report: &Report) -> Value {
    let fine: Vec<Value> = report
        .fine
        .iter()
        .map(|Fine { layer, message, places }| {
            let places: Vec<Value> = places.iter().map(place_json).collect();
            json!({"layer": layer.slug(), "message": message, "places": places})
        })
        .collect();
    let release = heading.release.map(|release| release.to_string());
    json!({"envoy": release, "at": heading.time(), "findings": findings_json(report), "fine": fine})
}
