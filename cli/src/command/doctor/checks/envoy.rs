//! The configuration that Envoy accepted.

use spiffe_authz::lint::Severity;

use super::{Facts, filter};
use crate::command::doctor::channel::Channel;
use crate::command::doctor::installation::{Adapter, Installation};
use crate::command::doctor::release::Release;
use crate::command::doctor::route_overrides::table_not_here;
use crate::envoy::config_dump::{RejectedUpdate, Section};
use crate::envoy::snapshot::Envoy;
use crate::envoy::stats::Count;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{Place, Report};

/// The counter of rejected listeners, which the dump reports more exactly.
const LISTENERS_REJECTED: &str = "listener_manager.lds.update_rejected";
/// The prefix of the counters of clusters, which have no filters.
const OF_CLUSTERS: &str = "cluster_manager.";
/// The problems of a filter for which Envoy rejects an update of its listener, its routes or its configuration.
const CAUSES: [FindingCode; 2] = [FindingCode::ConfigurationRefused, FindingCode::FilterAfterRouter];

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    let rejected = envoy.dump.rejected.iter().map(|rejected| (Place::listener(&rejected.name), rejected));
    let clusters = envoy.dump.rejected_clusters.iter().map(|rejected| (Place::cluster(&rejected.name), rejected));
    for (place, rejected) in rejected.chain(clusters) {
        let message = format!("Envoy reports: {}", rejected.details.trim());
        let cause = is_for_other_releases(rejected, facts).then_some(FindingCode::EnvoyUnsupported);
        report.follow(FindingCode::UpdateRefused, &place, message, cause);
    }
    for channel in &facts.rejected {
        filter::rejected(channel, facts, report);
    }
    check_counters(envoy, report);
    check_waiting(facts, report);
    let has_problem = report
        .findings
        .iter()
        .any(|finding| finding.code.layer() == FindingLayer::Envoy && finding.code.severity() > Severity::Note);
    if envoy.has(Section::Listeners) && !has_problem {
        report.fine(FindingLayer::Envoy, &Place::default(), in_order(envoy));
    }
    check_release(facts, report);
}

/// Returns `true` if Envoy cannot load the dynamic module, which is built for other releases.
fn is_for_other_releases(rejected: &RejectedUpdate, facts: &Facts<'_>) -> bool {
    let release = Release::read(&facts.envoy.dump.version);
    let is_unsupported = release.is_some_and(|release| release.lacks(Adapter::Module).is_some());
    let mut installed = facts.rejected.iter().filter(|channel| channel.listener.name == rejected.name);
    let has_module = installed.any(|channel| channel.installed().is_some_and(|it| it.adapter == Adapter::Module));
    is_unsupported && has_module && rejected.details.contains("dynamic module")
}

/// Marks rejected updates as consequences of a problem of the filter in the same listener.
pub(super) fn explain(report: &mut Report) {
    let causes: Vec<(FindingCode, Vec<Place>)> = report
        .findings
        .iter()
        .filter(|finding| CAUSES.contains(&finding.code))
        .map(|finding| (finding.code, finding.places.clone()))
        .collect();
    for finding in report.findings.iter_mut().filter(|finding| finding.cause.is_none()) {
        let is_caused = |places: &[Place]| match finding.code {
            FindingCode::UpdateRefused => places.iter().any(|place| {
                place.listener.is_some() && finding.places.iter().any(|update| update.listener == place.listener)
            }),
            FindingCode::UpdatesRejected => !finding.message.contains(OF_CLUSTERS),
            _ => false,
        };
        finding.cause = causes.iter().find(|(_, places)| is_caused(places)).map(|(code, _)| *code);
    }
}

fn in_order(envoy: &Envoy) -> String {
    let count = envoy.dump.listeners.len();
    let listeners = if count == 1 { "1 listener serves".to_owned() } else { format!("{count} listeners serve") };
    let managers = ["cluster_manager.cds.update_rejected", "cluster_manager.cluster_added"];
    if managers.into_iter().any(|name| envoy.stats.count(name).known().is_some()) {
        format!("{listeners}, and no update was rejected")
    } else {
        format!("{listeners}; it is unknown whether updates were rejected")
    }
}

/// Reports rejected updates that the dump does not contain.
fn check_counters(envoy: &Envoy, report: &mut Report) {
    for (name, count) in envoy.stats.ending_with(".update_rejected") {
        let is_reported = name == LISTENERS_REJECTED && !envoy.dump.rejected.is_empty();
        if name.starts_with("sds.") || is_reported {
            continue;
        }
        report.find(FindingCode::UpdatesRejected, &Place::default(), format!("the counter `{name}` is {count}"));
    }
}

/// Reports clusters and listeners that wait, with the reason.
fn check_waiting(facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    let mut of_clusters = None;
    for cluster in &envoy.dump.warming_clusters {
        let place = Place::cluster(&cluster.name);
        let cause = facts.cause_at(&place);
        of_clusters = of_clusters.or(cause).or(Some(FindingCode::ClusterWarming));
        report.follow(FindingCode::ClusterWarming, &place, "the cluster is still warming", cause);
    }
    let mut of_listeners = None;
    for listener in &envoy.dump.warming {
        let place = Place::listener(&listener.name);
        let channels = facts.warming.iter().filter(|channel| channel.listener.name == listener.name);
        let waits_for_filter = channels.clone().any(|channel| {
            matches!(channel.filter.as_deref(), Some(Installation::Awaited(_) | Installation::Replaced(..)))
        });
        let cause = facts.cause_at(&place).or(waits_for_filter.then_some(FindingCode::FilterNotLoaded));
        of_listeners = of_listeners.or(cause);
        let missing_table = channels.clone().find_map(|channel| table_not_here(channel.manager.as_ref()?, envoy));
        let message = match missing_table.filter(|_| cause.is_none() && envoy.has(Section::Routes)) {
            Some(table) => format!("an update waits for the route table `{table}`"),
            None => "an update waits for a secret, a route table or a filter".to_owned(),
        };
        report.follow(FindingCode::ListenerWarming, &place, message, cause);
        for channel in channels.filter(|channel| !matches!(channel.filter.as_deref(), Some(Installation::Loaded(_)))) {
            filter::check(channel, facts, report);
        }
    }
    // `server.state` would report it, too, but is not written before the start.
    if envoy.stats.count("listener_manager.workers_started") == Count::Zero {
        let cause = of_clusters.or(of_listeners);
        report.follow(
            FindingCode::ListenerWarming,
            &Place::default(),
            "Envoy is starting: no listener serves yet",
            cause,
        );
    }
}

/// Checks whether the filter runs on this release, and whether the release is safe. An Envoy without the filter is not
/// checked.
fn check_release(facts: &Facts<'_>, report: &mut Report) {
    let place = Place::default();
    let mut adapters: Vec<Adapter> = Vec::new();
    let channels = facts.serving.iter().chain(&facts.warming).chain(&facts.rejected);
    for channel in channels.filter(|channel| channel.filter.is_some()) {
        // A filter that has not arrived comes from Istio, as Wasm.
        let adapter = Channel::installed(channel).map_or(Adapter::Wasm, |installed| installed.adapter);
        if !adapters.contains(&adapter) {
            adapters.push(adapter);
        }
    }
    if adapters.is_empty() {
        return;
    }
    let Some(release) = Release::read(&facts.envoy.dump.version) else {
        report.find(FindingCode::EnvoyReleaseUnknown, &place, "the dump does not contain `user_agent_build_version`");
        return;
    };
    let lacking: Vec<String> = adapters.into_iter().filter_map(|adapter| release.lacks(adapter)).collect();
    if let Some(update) = release.update() {
        report.find(
            FindingCode::EnvoyVulnerable,
            &place,
            format!("this is Envoy {release}; the first safe release is {update}"),
        );
    } else if lacking.is_empty() {
        report.fine(
            FindingLayer::Envoy,
            &place,
            format!("the filter runs on Envoy {release}, which has no known bypass"),
        );
    }
    for needed in lacking {
        report.find(FindingCode::EnvoyUnsupported, &place, format!("this is Envoy {release}; {needed}"));
    }
}
