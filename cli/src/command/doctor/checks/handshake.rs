//! The certificate that a connection must present.

use spiffe_authz::identity::IdentitySource;
use spiffe_authz::identity::PeerRequirement;

use crate::command::doctor::channel::{Channel, Hbone};
use crate::envoy::message::DownstreamTls;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::Report;

pub(super) fn check(channel: &Channel<'_>, report: &mut Report) {
    let settings = channel.document().map(|document| document.policy.identity());
    // The document allows callers without a certificate, or the identity belongs to another connection. A trusted proxy
    // always needs a certificate.
    let is_intended = settings.is_some_and(|settings| match &settings.source {
        IdentitySource::Tls { .. } => settings.peer == PeerRequirement::Optional,
        IdentitySource::PeerPrincipal => settings.peer == PeerRequirement::Optional || channel.tls.is_none(),
        IdentitySource::Xfcc { .. } => false,
    });
    let is_forwarded = settings.is_some_and(|settings| matches!(settings.source, IdentitySource::Xfcc { .. }));
    let who = if is_forwarded { ", and `from: xfcc` requires the certificate of a trusted proxy" } else { "" };
    let place = &channel.place;
    let Some(tls) = &channel.tls else {
        if channel.hbone == Some(Hbone::Unknown) || channel.needs_tls_of_internal_listener() {
            return;
        }
        if is_intended {
            report.fine(FindingLayer::Handshake, place, "no TLS, as the filter's document intends");
        } else {
            report.find(FindingCode::PlainText, place, format!("the filter chain has no TLS settings{who}"));
        }
        return;
    };
    if tls.require_client_certificate {
        report.fine(FindingLayer::Handshake, place, "callers must present a certificate");
    } else if is_intended {
        report.fine(FindingLayer::Handshake, place, "a certificate is optional, as `identity` in the document intends");
    } else {
        let message = format!("`require_client_certificate` is not set{who}");
        report.find(FindingCode::ClientCertificateOptional, place, message);
    }
    check_resumption(channel, tls, report);
}

fn check_resumption(channel: &Channel<'_>, tls: &DownstreamTls, report: &mut Report) {
    // Without client certificates there is no trust to withdraw.
    if !tls.is_mutual() {
        return;
    }
    let kinds = [
        ("stateless", tls.disable_stateless_session_resumption),
        ("stateful", tls.disable_stateful_session_resumption),
    ];
    let on: Vec<&str> = kinds.iter().filter(|(_, off)| !off).map(|(kind, _)| *kind).collect();
    if on.is_empty() {
        report.fine(FindingLayer::Handshake, &channel.place, "sessions are not resumed");
        return;
    }
    let is_denied = channel.document().is_some_and(|document| document.policy.identity().source.requires_validated());
    let denied = if is_denied { ", and `requireValidated` denies resumed sessions" } else { "" };
    report.find(
        FindingCode::SessionResumption,
        &channel.place,
        format!("{} resumption is on{denied}", on.join(" and ")),
    );
}
