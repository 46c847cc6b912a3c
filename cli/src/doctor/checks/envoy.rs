//! What Envoy has taken of its configuration.

use std::io;

use super::{Way, filter, secrets, ways};
use crate::doctor::dump::Envoy;
use crate::doctor::filter::{Carrier, Installation};
use crate::doctor::finding::{Check, Layer, Place, Report};
use crate::doctor::message::Listener;

pub(super) fn check(serving: &[Way<'_>], envoy: &Envoy, report: &mut Report) -> io::Result<()> {
    for refused in &envoy.refused {
        let name = &refused.listener.name;
        let place = Place { listener: (!name.is_empty()).then(|| name.clone()), ..Place::default() };
        report.find(Check::UpdateRefused, &place, format!("Envoy says: {}", refused.details.trim()));
        let listeners = std::slice::from_ref(&refused.listener);
        for way in &ways(listeners, envoy)? {
            filter::refused(way, report);
        }
    }
    for listener in &envoy.warming {
        let place = Place { listener: Some(listener.name.clone()), ..Place::default() };
        report.find(Check::ListenerWarming, &place, "an update waits for what it needs");
    }
    for way in ways(&envoy.warming, envoy)? {
        if let Some(tls) = &way.tls {
            secrets::check(&way, tls, envoy, report);
        }
        if !matches!(way.filter.as_deref(), Some(Installation::Loaded(_))) {
            filter::check(&way, envoy, report);
        }
    }
    // `server.state` would tell, too, but is not written before all is initialized.
    if envoy.stat("listener_manager.workers_started") == Some(0) {
        report.find(Check::ListenerWarming, &Place::default(), "Envoy is initializing: no listener serves yet");
    }
    if !report.findings.iter().any(|finding| finding.check.layer() == Layer::Envoy) {
        let count = envoy.listeners.len();
        let listeners = if count == 1 { "the listener serves".to_owned() } else { format!("{count} listeners serve") };
        report.fine(Layer::Envoy, &Place::default(), format!("{listeners}, and no update was refused"));
    }
    let refused: Vec<Listener> = envoy.refused.iter().map(|refused| refused.listener.clone()).collect();
    let others = [ways(&envoy.warming, envoy)?, ways(&refused, envoy)?].concat();
    check_release(serving.iter().chain(&others), envoy, report);
    Ok(())
}

/// Checks whether the filter runs on this release, and whether the release is safe. An Envoy without the filter decides
/// nothing here.
fn check_release<'w, 'e: 'w>(ways: impl Iterator<Item = &'w Way<'e>>, envoy: &Envoy, report: &mut Report) {
    let place = Place::default();
    let mut carriers: Vec<Carrier> = Vec::new();
    for way in ways.filter(|way| way.filter.is_some()) {
        // A filter that has not arrived comes from Istio, as Wasm.
        let carrier = way.installed().map_or(Carrier::Wasm, |installed| installed.carrier);
        if !carriers.contains(&carrier) {
            carriers.push(carrier);
        }
    }
    if carriers.is_empty() {
        return;
    }
    let Some(release) = envoy.release else {
        report.find(Check::EnvoyReleaseUnknown, &place, "the dump does not contain `user_agent_build_version`");
        return;
    };
    let lacking: Vec<String> = carriers.into_iter().filter_map(|carrier| release.lacks(carrier)).collect();
    if let Some(update) = release.update() {
        report.find(Check::EnvoyVulnerable, &place, format!("this is {release}; the first safe release is {update}"));
    } else if lacking.is_empty() {
        report.fine(Layer::Envoy, &place, format!("the filter runs on {release}, which has no known bypass"));
    }
    for needed in lacking {
        report.find(Check::EnvoyUnsupported, &place, format!("this is {release}; {needed}"));
    }
}
