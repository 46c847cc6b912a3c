//! Whether the filter decides at all.

use super::Way;
use crate::doctor::dump::Envoy;
use crate::doctor::filter::{Carrier, Failure, Installation, Replacement, message, recognize, resolve};
use crate::doctor::finding::{Check, Layer, Place, Report};
use crate::doctor::message::Extension;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
/// Filters that neither answer nor change a request nor send it anywhere, or that do so for the filter's own sake: they may
/// stand before it. By the last parts of their types.
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
/// The labels of the filter's counters.
const LABELS: [&str; 4] = ["spiffe_authz_mode", "spiffe_authz_verdict", "spiffe_authz_reason", "spiffe_authz_policy"];

/// On which ways the filter stands, and on which it does not.
pub(super) fn presence(ways: &[Way<'_>], report: &mut Report) {
    if ways.iter().all(|way| way.filter.is_none()) {
        report.find(Check::FilterMissing, &Place::default(), "no listener that serves has the filter");
        return;
    }
    for way in ways.iter().filter(|way| way.filter.is_none()) {
        let own = ways.iter().find(|other| other.place == way.place && !other.is_upgrade());
        if let (Some(upgrade), Some(Some(_))) = (&way.http_place.upgrade, own.map(|own| &own.filter)) {
            let message = format!("requests that upgrade to `{upgrade}` have filters of their own, without this one");
            report.find(Check::UpgradeUnguarded, &way.http_place, message);
            continue;
        }
        if !way.is_mutual() {
            continue;
        }
        let (check, what) = match way.manager {
            Some(_) => (Check::ListenerUnguarded, "HTTP"),
            None => (Check::TcpUnguarded, "TCP"),
        };
        report.find(check, &way.http_place, format!("mutual TLS and {what}, without the filter"));
    }
}

pub(super) fn check(way: &Way<'_>, envoy: &Envoy, report: &mut Report) {
    let place = &way.http_place;
    let installed = match way.filter.as_deref() {
        None => return,
        Some(Installation::Awaited(name)) => {
            report.find(Check::FilterNotLoaded, place, format!("nothing has arrived for `{name}`"));
            return;
        }
        Some(Installation::Replaced(name, replacement)) => {
            report.find(
                Check::FilterNotLoaded,
                place,
                format!("in the place of `{name}`, istio-agent put another filter"),
            );
            if *replacement == Replacement::AllowsAll {
                report.find(Check::FilterFailOpen, place, format!("in the place of `{name}`, everything is let in"));
            }
            return;
        }
        Some(Installation::Loaded(installed)) => installed,
    };
    let name = &installed.name;
    match &installed.document {
        Ok(document) => {
            let carrier = match installed.carrier {
                Carrier::Wasm => "Wasm",
                Carrier::Module => "a dynamic module",
            };
            let domain = &document.policy.realm().trust_domain;
            report.fine(Layer::Filter, place, format!("`{name}` ({carrier}) decides for `{domain}`"));
        }
        Err(mistakes) => refuse(mistakes, place, report),
    }
    match installed.failure {
        Failure::Open => report.find(Check::FilterFailOpen, place, format!("`{name}` fails open")),
        Failure::Closed => report.find(Check::FilterStaysDown, place, format!("`{name}` is not rebuilt when it fails")),
        Failure::Reload => report.fine(Layer::Filter, place, format!("should `{name}` fail, requests are refused")),
    }
    if installed.disabled {
        report.find(Check::FilterDisabled, place, format!("`{name}` is disabled in the chain"));
    }
    check_order(way, envoy, report);
}

/// What is wrong with the filter in a listener that Envoy has refused.
pub(super) fn refused(way: &Way<'_>, report: &mut Report) {
    if let Some(installed) = way.installed()
        && let Err(mistakes) = &installed.document
    {
        refuse(mistakes, &way.http_place, report);
    }
    let behind = way.http_filters.iter().skip_while(|filter| message(&filter.typed_config).0 != ROUTER).skip(1);
    for filter in behind.filter(|filter| recognize(filter, &[]).is_some()) {
        report.find(Check::FilterAfterRouter, &way.http_place, format!("`{}` comes after the router", filter.name));
    }
}

/// Whether the filter's counters are taken apart into labels.
pub(super) fn labels(ways: &[Way<'_>], envoy: &Envoy, report: &mut Report) {
    let is_wasm = |way: &Way<'_>| way.installed().is_some_and(|installed| installed.carrier == Carrier::Wasm);
    if !ways.iter().any(is_wasm) {
        return;
    }
    let missing: Vec<&str> =
        LABELS.into_iter().filter(|label| !envoy.stats_tags.iter().any(|tag| tag == label)).collect();
    if missing.is_empty() {
        report.fine(Layer::Filter, &Place::default(), "the filter's counters have their labels");
    } else {
        report.find(Check::LabelsMissing, &Place::default(), format!("there is no {}", missing.join(", ")));
    }
}

fn refuse(mistakes: &[String], place: &Place, report: &mut Report) {
    for mistake in mistakes {
        report.find(Check::ConfigurationRefused, place, mistake);
    }
}

/// Filters before ours that act on the request.
fn check_order(way: &Way<'_>, envoy: &Envoy, report: &mut Report) {
    let filters = way.http_filters.iter();
    let before: Vec<&Extension> = filters.take_while(|filter| recognize(filter, &envoy.discovered).is_none()).collect();
    if before.len() == way.http_filters.len() {
        // Ours is a network filter.
        return;
    }
    let acts = |filter: &&&Extension| {
        let found = resolve(filter, &envoy.discovered);
        let kind = found.map_or("", |found| message(&found.typed_config).0);
        !filter.disabled && !PASSIVE.iter().any(|passive| kind.ends_with(passive))
    };
    let acting: Vec<&str> = before.iter().filter(acts).map(|filter| filter.name.as_str()).collect();
    if acting.is_empty() {
        report.fine(Layer::Filter, &way.http_place, "the filter comes before every filter that acts");
    }
    for name in acting {
        report.find(Check::ActsBeforeFilter, &way.http_place, format!("`{name}` comes first"));
    }
}
