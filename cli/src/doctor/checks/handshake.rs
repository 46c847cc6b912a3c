//! What a connection must show.

use spiffe_authz::policy::PeerRequirement;

use super::Way;
use crate::doctor::finding::{Check, Layer, Report};
use crate::doctor::message::DownstreamTls;

pub(super) fn check(way: &Way<'_>, report: &mut Report) {
    // Without a certificate on purpose, or with the identity of another hop than this connection's.
    let is_meant_so = way.document().is_some_and(|document| {
        document.policy.peer_requirement() == PeerRequirement::Optional || !document.identity_is_from_tls()
    });
    let place = &way.place;
    let Some(tls) = &way.tls else {
        if is_meant_so {
            report.fine(Layer::Handshake, place, "no TLS, and the filter's configuration means it so");
        } else {
            report.find(Check::PlainText, place, "the filter chain has no TLS settings");
        }
        return;
    };
    if tls.require_client_certificate {
        report.fine(Layer::Handshake, place, "callers must show a certificate");
    } else if is_meant_so {
        report.fine(Layer::Handshake, place, "callers may show a certificate, as `identity` says");
    } else {
        report.find(Check::ClientCertificateOptional, place, "`require_client_certificate` is not set");
    }
    check_resumption(way, tls, report);
}

fn check_resumption(way: &Way<'_>, tls: &DownstreamTls, report: &mut Report) {
    let kinds = [
        ("stateless", tls.disable_stateless_session_resumption),
        ("stateful", tls.disable_stateful_session_resumption),
    ];
    let on: Vec<&str> = kinds.iter().filter(|(_, off)| !off).map(|(kind, _)| *kind).collect();
    if on.is_empty() {
        report.fine(Layer::Handshake, &way.place, "sessions are not resumed");
        return;
    }
    let is_denied = way.document().is_some_and(|document| document.policy.requires_validated());
    let denied = if is_denied { ", and `requireValidated` denies resumed sessions" } else { "" };
    report.find(Check::SessionResumption, &way.place, format!("{} resumption is on{denied}", on.join(" and ")));
}
