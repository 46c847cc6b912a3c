//! What Envoy has taken of its configuration.

use std::io;

use super::{filter, secrets, ways};
use crate::doctor::dump::Envoy;
use crate::doctor::filter::Installation;
use crate::doctor::finding::{Check, Layer, Place, Report};

pub(super) fn check(envoy: &Envoy, report: &mut Report) -> io::Result<()> {
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
        if !matches!(way.filter, Some(Installation::Loaded(_))) {
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
    Ok(())
}
