//! The completeness of the pages.

use crate::envoy::config_dump::Section;
use crate::envoy::moment::{Moment, moment};
use crate::envoy::snapshot::Envoy;
use crate::finding::FindingCode;
use crate::report::{Place, Report};

/// The sections that checks need, and the unknowns without them.
const SECTIONS: [(Section, &str); 4] = [
    (Section::Bootstrap, "the bootstrap: the release and the stats tags are unknown"),
    (Section::Clusters, "clusters: the TLS settings for upstreams are unknown"),
    (Section::Listeners, "listeners: it is unknown whether the filter decides"),
    (Section::Secrets, "secrets: it is unknown which of them arrived"),
];

pub(super) fn check(envoy: &Envoy, report: &mut Report) {
    let place = Place::default();
    for (section, what) in SECTIONS {
        if !envoy.has(section) {
            report.find(FindingCode::PagesIncomplete, &place, format!("`config_dump` has no section of {what}"));
        }
    }
    if !envoy.stats.is_present() {
        let message = "the page `stats` is missing: the state of the SPIRE agent and rejected updates are unknown";
        report.find(FindingCode::PagesIncomplete, &place, message);
    }
    if envoy.certificates.is_none() {
        let message = "the page `certs` is missing: certificates in files are unknown";
        report.find(FindingCode::PagesIncomplete, &place, message);
    }
    if let Moment::NotBefore(earliest) = envoy.taken {
        let since = if earliest == i64::MIN {
            String::new()
        } else {
            format!("; they are not older than {}", moment(earliest))
        };
        let message =
            format!("the pages lack `server.uptime` or the start time, so it is unknown when they were saved{since}");
        report.find(FindingCode::MomentUnknown, &place, message);
    }
}
