//! The configuration that Envoy accepted.

use super::{Facts, filter};
use crate::command::doctor::channel::Channel;
use crate::command::doctor::installation::Adapter;
use crate::command::doctor::release::Release;
use crate::command::doctor::route_overrides::table_not_here;
use crate::envoy::config_dump::{RejectedUpdate, Section};
use crate::envoy::snapshot::Envoy;
use crate::envoy::stats::{Count, of_updates};
use crate::envoy::tls::upstream_tls;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{FindingId, Place, Report};

/// The counter of rejected listeners, which the dump reports more exactly.
const LISTENERS_REJECTED: &str = "listener_manager.lds.update_rejected";
/// The problems of a filter for which Envoy rejects an update of its listener.
const REJECTIONS: [FindingCode; 2] = [FindingCode::ConfigurationRefused, FindingCode::FilterAfterRouter];

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    let unsupported = check_release(facts, report);
    for channel in &facts.rejected {
        filter::rejected(channel, facts, report);
    }
    for rejected in &envoy.dump.rejected {
        let of_listener = report.first(&REJECTIONS, |place| place.listener.as_ref() == Some(&rejected.name));
        let of_release = unsupported.filter(|_| is_for_other_releases(rejected, facts));
        find_rejected(&Place::listener(&rejected.name), rejected, of_release.or(of_listener), report);
    }
    for rejected in &envoy.dump.rejected_clusters {
        find_rejected(&Place::cluster(&rejected.name), rejected, None, report);
    }
    check_waiting(facts, report);
}

fn find_rejected(place: &Place, rejected: &RejectedUpdate, cause: Option<FindingId>, report: &mut Report) {
    let message = format!("Envoy reports: {}", rejected.details.trim());
    report.follow(FindingCode::UpdateRefused, place, message, cause);
}

/// Returns `true` if Envoy rejected a listener because of the dynamic module, which is built for other releases.
fn is_for_other_releases(rejected: &RejectedUpdate, facts: &Facts<'_>) -> bool {
    let mut installed = facts.rejected.iter().filter(|channel| channel.listener.name == rejected.name);
    let has_module = installed.any(|channel| channel.installed().is_some_and(|it| it.adapter == Adapter::Module));
    has_module && rejected.details.contains("dynamic module")
}

/// Checks the counters of updates, after the filters, which can explain them.
pub(super) fn check_updates(facts: &Facts<'_>, report: &mut Report) {
    const PROBLEMS: [FindingCode; 4] = [
        FindingCode::UpdateRefused,
        FindingCode::UpdatesRejected,
        FindingCode::ListenerWarming,
        FindingCode::ClusterWarming,
    ];
    check_counters(facts, report);
    let has_problem = report.findings.iter().any(|finding| PROBLEMS.contains(&finding.code));
    if facts.envoy.has(Section::Listeners) && !has_problem {
        report.fine(FindingLayer::Envoy, &Place::default(), in_order(facts.envoy));
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
fn check_counters(facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    for (name, count) in envoy.stats.ending_with(".update_rejected") {
        let is_reported = name == LISTENERS_REJECTED && !envoy.dump.rejected.is_empty();
        if name.starts_with("sds.") || is_reported {
            continue;
        }
        let message = format!("the counter `{name}` is {count}");
        let cause = cause_of_counter(name, facts, report);
        report.follow(FindingCode::UpdatesRejected, &Place::default(), message, cause);
    }
}

/// Returns the finding about the discovered filter, or about a route of the discovered table, whose updates this counter
/// counts.
fn cause_of_counter(name: &str, facts: &Facts<'_>, report: &Report) -> Option<FindingId> {
    let counts = |kind: &str, object: &str| name.contains(kind) && name.ends_with(&of_updates(object));
    facts.serving.iter().find_map(|channel| {
        let is_here = |place: &Place, of_route: bool| {
            place.listener == channel.http_place.listener && place.route.is_some() == of_route
        };
        let filter =
            channel.installed().is_some_and(|installed| counts("extension_config_discovery.", &installed.name));
        let table = channel.manager.as_ref().and_then(|manager| manager.rds.as_ref());
        let table = table.is_some_and(|table| counts(".rds.", &table.route_config_name));
        let first = |of_route| report.first(&[FindingCode::ConfigurationRefused], |place| is_here(place, of_route));
        filter.then(|| first(false)).flatten().or_else(|| table.then(|| first(true)).flatten())
    })
}

/// Reports clusters and listeners that wait, with the reason.
fn check_waiting(facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    let mut of_clusters = None;
    for cluster in &envoy.dump.warming_clusters {
        let place = Place::cluster(&cluster.name);
        // Settings that cannot be parsed are an error of the examination.
        let settings = upstream_tls(cluster).unwrap_or_default();
        let cause = settings.iter().find_map(|tls| facts.missing(&tls.common_tls_context));
        let warming = report.follow(FindingCode::ClusterWarming, &place, "the cluster is still warming", cause);
        of_clusters = of_clusters.or(cause).or(Some(warming));
    }
    let mut of_listeners = None;
    for listener in &envoy.dump.warming {
        let place = Place::listener(&listener.name);
        let channels = || facts.warming.iter().filter(|channel| channel.listener.name == listener.name);
        for channel in channels() {
            filter::warming(channel, facts, report);
        }
        let own = facts.warming.iter().filter(|channel| channel.place.listener == place.listener);
        let secret =
            own.filter_map(|channel| channel.tls.as_ref()).find_map(|tls| facts.missing(&tls.common_tls_context));
        let filter = || report.first(&[FindingCode::FilterNotLoaded], |found| found.listener == place.listener);
        let cause = secret.or_else(filter);
        of_listeners = of_listeners.or(cause);
        let missing_table = channels().find_map(|channel| table_not_here(channel.manager.as_ref()?, envoy));
        let message = match missing_table.filter(|_| cause.is_none() && envoy.has(Section::Routes)) {
            Some(table) => format!("an update waits for the route table `{table}`"),
            None => "an update waits for a secret, a route table or a filter".to_owned(),
        };
        report.follow(FindingCode::ListenerWarming, &place, message, cause);
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
/// checked. Returns the finding about the dynamic module, if it does not run.
fn check_release(facts: &Facts<'_>, report: &mut Report) -> Option<FindingId> {
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
        return None;
    }
    let Some(release) = Release::read(&facts.envoy.dump.version) else {
        report.find(FindingCode::EnvoyReleaseUnknown, &place, "the dump does not contain `user_agent_build_version`");
        return None;
    };
    let lacking: Vec<(Adapter, String)> =
        adapters.into_iter().filter_map(|adapter| Some((adapter, release.lacks(adapter)?))).collect();
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
    let mut of_module = None;
    for (adapter, needed) in lacking {
        let message = format!("this is Envoy {release}; {needed}");
        let finding = report.find(FindingCode::EnvoyUnsupported, &place, message);
        of_module = of_module.or((adapter == Adapter::Module).then_some(finding));
    }
    of_module
}
