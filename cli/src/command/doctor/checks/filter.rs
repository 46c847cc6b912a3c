//! The filter and its place in the filter chain.

use spiffe_authz::worker::Count;

use super::Facts;
use super::request::replaces_xfcc;
use crate::command::doctor::channel::{Channel, Destination};
use crate::command::doctor::installation::{
    Absent, Adapter, Catalog, FailurePolicy, Installation, Installed, Replacement, kind_of,
};
use crate::document::Document;
use crate::envoy::config_dump::Section;
use crate::envoy::message::Extension;
use crate::envoy::snapshot::Envoy;
use crate::envoy::stats;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{Finding, Place, Report};

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
/// The types of filters that can come before this one, without their prefix: they do not respond to, change or forward
/// requests, or they do it for this filter.
const PASSIVE: [&str; 17] = [
    "http.jwt_authn.v3.JwtAuthentication",
    "http.rbac.v3.RBAC",
    "http.set_filter_state.v3.Config",
    "http.set_metadata.v3.Config",
    "http.header_to_metadata.v3.Config",
    "http.grpc_stats.v3.FilterConfig",
    "http.grpc_web.v3.GrpcWeb",
    "http.connect_grpc_bridge.v3.FilterConfig",
    "http.local_ratelimit.v3.LocalRateLimit",
    "http.ratelimit.v3.RateLimit",
    "http.tap.v3.Tap",
    "http.alpn.v2alpha1.FilterConfig",
    "http.authn.v2alpha1.FilterConfig",
    "http.istio_stats.v1.PluginConfig",
    "http.peer_metadata.Config",
    "stats.PluginConfig",
    "metadata_exchange.PluginConfig",
];
/// The beginning of the names of the filter's counters: of the Wasm filter, and of the dynamic module.
const COUNTERS: [&str; 2] = ["wasmcustom.spiffe_authz.", "dynamicmodulescustom.spiffe_authz_"];

/// Checks that each channel with mutual TLS has the filter.
pub(super) fn presence(facts: &Facts<'_>, report: &mut Report) {
    let channels = &facts.serving;
    if channels.iter().all(|channel| channel.filter.is_none()) {
        absence(facts, report);
        return;
    }
    for channel in channels.iter().filter(|channel| channel.filter.is_none()) {
        match channel.destination {
            Destination::Inside => continue,
            Destination::Unknown => {
                let unknown = match &channel.http_place.upgrade {
                    Some(upgrade) => {
                        format!("a route enables the upgrade `{upgrade}`, whose HTTP filters lack the filter")
                    }
                    None => "this filter chain leads to the filter".to_owned(),
                };
                let message = format!("the dump lacks a route table or a cluster, so it is unknown whether {unknown}");
                report.find(FindingCode::FilterUnknown, &channel.http_place, message);
                continue;
            }
            Destination::Outside => {}
        }
        let own = channels.iter().find(|other| other.place == channel.place && !other.is_upgrade());
        if let (Some(upgrade), Some(Some(_))) = (&channel.http_place.upgrade, own.map(|own| &own.filter)) {
            let message = format!(
                "requests with the upgrade `{upgrade}` have HTTP filters of their own, and the filter is not among them"
            );
            report.find(FindingCode::UpgradeUnguarded, &channel.http_place, message);
            continue;
        }
        if !channel.is_mutual() {
            continue;
        }
        let (check, what) = match channel.manager {
            Some(_) => (FindingCode::ListenerUnguarded, "HTTP"),
            None => (FindingCode::TcpUnguarded, "TCP"),
        };
        report.find(
            check,
            &channel.http_place,
            format!("the filter chain accepts mutual TLS and {what}, and does not contain the filter"),
        );
    }
}

/// Reports that no listener that serves has the filter, unless another finding explains it.
fn absence(facts: &Facts<'_>, report: &mut Report) {
    let Facts { envoy, serving, warming, rejected, .. } = facts;
    let place = Place::default();
    let waits = envoy.stats.count("listener_manager.workers_started") == stats::Count::Zero
        || (serving.is_empty() && !(envoy.dump.warming.is_empty() && envoy.dump.warming_clusters.is_empty()));
    if !envoy.has(Section::Listeners) {
        report.find(FindingCode::FilterUnknown, &place, "`config_dump` has no section of listeners");
    } else if warming.iter().chain(rejected).any(|channel| channel.filter.is_some()) {
        // The findings of the layer `envoy` explain why these listeners do not serve.
    } else if waits {
        let is_waiting =
            |finding: &&Finding| matches!(finding.code, FindingCode::ClusterWarming | FindingCode::ListenerWarming);
        let cause = report.findings.iter().find(is_waiting);
        let cause = cause.map(|finding| finding.cause.unwrap_or(finding.id()));
        report.follow(FindingCode::FilterUnknown, &place, "Envoy has no listeners yet", cause);
    } else if serving.iter().any(Channel::is_mutual) {
        report.find(FindingCode::FilterMissing, &place, "no listener that serves has the filter");
    } else if warming.iter().any(Channel::is_mutual) {
        report.find(FindingCode::FilterMissing, &place, "no listener that serves or waits has the filter");
    } else if !rejected.iter().any(Channel::is_mutual) {
        report.find(FindingCode::NothingToGuard, &place, "no listener that serves requests a client certificate");
    }
}

pub(super) fn check(channel: &Channel<'_>, facts: &Facts<'_>, report: &mut Report) {
    let installed = match channel.filter.as_deref() {
        None => return,
        Some(Installation::Awaited(absent)) => {
            awaited(absent, channel, facts.envoy, report);
            return;
        }
        Some(Installation::Replaced(absent, replacement)) => {
            replaced(absent, *replacement, channel, report);
            return;
        }
        Some(Installation::Loaded(installed)) => installed,
    };
    let (place, name) = (&channel.http_place, &installed.name);
    match installed.document.as_ref() {
        Ok(document) => check_running(installed, document, channel, facts.envoy, report),
        Err(errors) => refuse(errors, place, report),
    }
    match installed.failure {
        FailurePolicy::Open => {
            report.find(FindingCode::FilterFailOpen, place, format!("`{name}` fails open"));
        }
        FailurePolicy::Closed => {
            report.find(FindingCode::FilterStaysDown, place, format!("`{name}` is not rebuilt if it fails"));
        }
        FailurePolicy::Reload => {
            report.fine(FindingLayer::Filter, place, format!("if `{name}` fails, requests are denied"));
        }
    }
    if installed.is_optional {
        let message = format!("`{name}` has `is_optional: true`");
        report.find(FindingCode::FilterOptional, place, message);
    }
    if installed.disabled {
        report.find(FindingCode::FilterDisabled, place, format!("`{name}` is disabled in the chain"));
    }
    check_order(channel, facts.catalog, report);
}

fn possibly(absent: &Absent) -> &'static str {
    if absent.is_certain { "" } else { ", a Wasm plugin that is possibly this filter" }
}

fn awaited(absent: &Absent, channel: &Channel<'_>, envoy: &Envoy, report: &mut Report) {
    let (place, name) = (&channel.http_place, &absent.name);
    if envoy.has(Section::Discovered) {
        let message = format!("nothing has arrived for `{name}`{}", possibly(absent));
        report.find(FindingCode::FilterNotLoaded, place, message);
        if let Some(default) = absent.default.as_ref().filter(|default| !can_deny(default)) {
            let message = format!(
                "until `{name}` arrives, Envoy uses `default_config` of the type `{}`",
                default.typed_config.kind()
            );
            report.find(FindingCode::FilterFailOpen, place, message);
        }
    } else {
        let message = format!("`config_dump` has no section of extension configurations, where `{name}` would be");
        report.find(FindingCode::FilterUnknown, place, message);
    }
}

/// Returns `true` for a filter of Envoy's RBAC with rules.
fn can_deny(default: &Extension) -> bool {
    default.typed_config.kind().ends_with(".rbac.v3.RBAC") && !default.typed_config.value()["rules"].is_null()
}

fn replaced(absent: &Absent, replacement: Replacement, channel: &Channel<'_>, report: &mut Report) {
    let (place, name) = (&channel.http_place, &absent.name);
    let stand_in = match replacement {
        Replacement::AllowsAll => "wasm-default-allow",
        Replacement::DeniesAll => "wasm-default-deny",
    };
    let message = format!("istio-agent uses `{stand_in}` instead of `{name}`{}", possibly(absent));
    report.find(FindingCode::FilterNotLoaded, place, message);
    if replacement == Replacement::AllowsAll {
        let message = format!("instead of `{name}`, `{stand_in}` allows every request");
        report.find(FindingCode::FilterFailOpen, place, message);
    }
}

/// The state of remote code.
enum Fetch {
    /// Code has arrived, or no counter shows that it has not.
    Done,
    /// No code has arrived, according to this counter.
    Missing(String),
    /// Envoy does not keep the counters.
    Unknown,
}

/// Returns the state of remote code. Envoy counts the fetches of all Wasm filters together.
fn fetch(envoy: &Envoy) -> Fetch {
    let count = |counter: &str| envoy.stats.count(&format!("wasm.remote_load_{counter}"));
    match (count("fetch_failures"), count("fetch_successes"), count("cache_misses")) {
        (_, stats::Count::Some(_), _) => Fetch::Done,
        (stats::Count::Some(failures), ..) => {
            Fetch::Missing(format!("`wasm.remote_load_fetch_failures` is {failures}"))
        }
        (stats::Count::Zero, stats::Count::Zero, stats::Count::Some(_)) => {
            Fetch::Missing("`wasm.remote_load_fetch_successes` is 0".to_owned())
        }
        (stats::Count::Zero, ..) => Fetch::Done,
        (stats::Count::Unknown, ..) => Fetch::Unknown,
    }
}

/// Reports code that Envoy has not fetched.
fn check_fetch(installed: &Installed, place: &Place, envoy: &Envoy, report: &mut Report) -> Fetch {
    let fetched = if installed.is_remote { fetch(envoy) } else { Fetch::Done };
    if let Fetch::Missing(counter) = &fetched {
        let message = format!("Envoy has not fetched the code of `{}`: {counter}", installed.name);
        report.find(FindingCode::FilterNotLoaded, place, message);
    }
    fetched
}

/// Reports why the filter of a listener that waits is not loaded. Such a listener also waits for remote code.
pub(super) fn warming(channel: &Channel<'_>, facts: &Facts<'_>, report: &mut Report) {
    match channel.installed() {
        Some(installed) => {
            check_fetch(installed, &channel.http_place, facts.envoy, report);
        }
        None => check(channel, facts, report),
    }
}

/// Distinguishes a filter that is configured from one that is known to decide.
fn check_running(
    installed: &Installed,
    document: &Document,
    channel: &Channel<'_>,
    envoy: &Envoy,
    report: &mut Report,
) {
    let Installed { name, adapter, plugin, .. } = installed;
    let place = &channel.http_place;
    if document.policy.is_delegated() {
        let message = format!("`{name}` has no policies for this namespace, and no filter before it has them");
        report.find(FindingCode::DelegateMissing, place, message);
        return;
    }
    match check_fetch(installed, place, envoy, report) {
        Fetch::Done => {}
        Fetch::Missing(_) => return,
        Fetch::Unknown => {
            let message = format!(
                "it is unknown whether Envoy fetched the code of `{name}`: Envoy does not keep the counters `wasm.remote_load_*`, or the page `stats` is missing"
            );
            report.find(FindingCode::FilterUnknown, place, message);
        }
    }
    let is_failing = *adapter == Adapter::Wasm && check_vm(name, plugin, place, envoy, report);
    let kind = match adapter {
        Adapter::Wasm => "Wasm",
        Adapter::Module => "a dynamic module",
    };
    let domain = &document.policy.identity().trust_domains.local;
    let decisions = envoy.stats.sum(&COUNTERS);
    let message = match decisions {
        stats::Count::Some(count) if !is_failing => {
            format!("`{name}` ({kind}) decides for `{domain}`; this Envoy has counted decisions: {count}")
        }
        _ => format!("`{name}` ({kind}) is configured for `{domain}`"),
    };
    report.fine(FindingLayer::Filter, place, message);
}

/// Reports failures of the VM. Returns `true` if there are some.
fn check_vm(name: &str, plugin: &str, place: &Place, envoy: &Envoy, report: &mut Report) -> bool {
    let stats = envoy.stats.of_plugin(plugin);
    let count = |counter: &str| stats.count(counter).some().unwrap_or(0);
    let [reloads, successes, failures, delayed] =
        ["vm_reload", "vm_reload_success", "vm_reload_failure", "vm_reload_backoff"].map(count);
    let is_failing = [reloads, successes, failures, delayed].iter().any(|count| *count > 0);
    if is_failing {
        let message = format!(
            "the VM of `{name}` has failed since Envoy started; rebuilds: {successes} succeeded, {failures} failed, {delayed} delayed"
        );
        report.find(FindingCode::FilterFailing, place, message);
    }
    is_failing
}

/// Reports what is wrong with the filter in a listener that Envoy rejected.
pub(super) fn rejected(channel: &Channel<'_>, facts: &Facts<'_>, report: &mut Report) {
    if let Some(installed) = channel.installed()
        && let Err(errors) = installed.document.as_ref()
    {
        refuse(errors, &channel.http_place, report);
    }
    let behind = channel.http_filters.iter().skip_while(|filter| filter.typed_config.kind() != ROUTER).skip(1);
    let is_ours = |filter: &&Extension| facts.catalog.recognize(filter).is_some_and(|filter| filter.is_certain());
    for filter in behind.filter(is_ours) {
        report.find(
            FindingCode::FilterAfterRouter,
            &channel.http_place,
            format!("`{}` comes after the router", filter.name),
        );
    }
}

/// Checks that the filter's counters get labels.
pub(super) fn labels(facts: &Facts<'_>, report: &mut Report) {
    let is_wasm =
        |channel: &Channel<'_>| channel.installed().is_some_and(|installed| installed.adapter == Adapter::Wasm);
    if !facts.envoy.has(Section::Bootstrap) || !facts.serving.iter().any(is_wasm) {
        return;
    }
    let missing: Vec<&str> =
        Count::LABELS.into_iter().filter(|label| !facts.envoy.dump.stats_tags.iter().any(|tag| tag == label)).collect();
    if missing.is_empty() {
        report.fine(
            FindingLayer::Filter,
            &Place::default(),
            "the bootstrap has the stats tags of the filter's counters",
        );
    } else {
        report.find(
            FindingCode::LabelsMissing,
            &Place::default(),
            format!("missing stats tags: {}", missing.join(", ")),
        );
    }
}

fn refuse(errors: &[String], place: &Place, report: &mut Report) {
    for error in errors {
        report.find(FindingCode::ConfigurationRefused, place, error);
    }
}

/// Returns the HTTP filters before this one, or `None` if this project's filter is a network filter here.
pub(super) fn before<'c>(channel: &'c Channel<'_>, catalog: &Catalog<'_>) -> Option<&'c [Extension]> {
    let is_ours = |filter: &Extension| catalog.recognize(filter).is_some_and(|filter| filter.is_certain());
    let end = channel.http_filters.iter().position(is_ours)?;
    channel.http_filters.get(..end)
}

/// Checks the filters before this one.
fn check_order(channel: &Channel<'_>, catalog: &Catalog<'_>, report: &mut Report) {
    let Some(before) = before(channel, catalog) else { return };
    let acts = |filter: &&Extension| {
        let kind = kind_of(filter, catalog);
        !filter.disabled && !PASSIVE.iter().any(|passive| kind.ends_with(passive)) && !replaces_xfcc(filter)
    };
    let acting: Vec<&str> = before.iter().filter(acts).map(|filter| filter.name.as_str()).collect();
    if acting.is_empty() {
        report.fine(FindingLayer::Filter, &channel.http_place, "the filter comes before every filter that acts");
    }
    for name in acting {
        report.find(FindingCode::ActsBeforeFilter, &channel.http_place, format!("`{name}` comes before the filter"));
    }
}
