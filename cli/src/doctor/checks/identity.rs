//! Who Envoy itself is.

use spiffe_authz::certificate::{Described, Svid, describe};
use spiffe_authz::spiffe_id::SpiffeId;

use super::Way;
use crate::cert::first_certificate;
use crate::doctor::dump::{Certificate, Envoy};
use crate::doctor::finding::{Check, Layer, Place, Report};
use crate::doctor::message::{DownstreamTls, TlsCertificate};
use crate::doctor::output::moment;

pub(super) fn check(way: &Way<'_>, tls: &DownstreamTls, envoy: &Envoy, report: &mut Report) {
    let common = &tls.common_tls_context;
    for certificate in &common.tls_certificates {
        check_certificate(way, &way.place, certificate, envoy, report);
    }
    for config in &common.tls_certificate_sds_secret_configs {
        let certificate = envoy.secret(&config.name).and_then(|secret| secret.tls_certificate.as_ref());
        if let Some(certificate) = certificate {
            check_certificate(way, &way.place.secret(&config.name), certificate, envoy, report);
        }
    }
}

fn check_certificate(way: &Way<'_>, place: &Place, certificate: &TlsCertificate, envoy: &Envoy, report: &mut Report) {
    let chain = &certificate.certificate_chain;
    let described = if let Some(bytes) = chain.bytes() {
        if let Err(error) = Svid::parse(first_certificate(&bytes)) {
            report.find(Check::SvidMalformed, place, error.to_string());
        }
        describe(&bytes).ok().and_then(|chain| chain.into_iter().next())
    } else {
        chain.filename.as_deref().and_then(|file| in_use(file, envoy))
    };
    let Some(Described { uris, not_after }) = described else { return };
    let id = uris.first().map_or("without a SPIFFE ID", |uri| uri);
    if not_after < envoy.taken {
        report.find(Check::SvidExpired, place, format!("{id}: expired at {}", moment(not_after)));
    } else {
        report.fine(Layer::Identity, place, format!("{id}, good until {}", moment(not_after)));
    }
    let (Some(document), Ok(id)) = (way.document(), SpiffeId::parse(id.as_bytes())) else { return };
    let (realm, own) = (document.policy.realm(), id.trust_domain().as_str());
    if *realm.trust_domain != *own && !realm.aliases.iter().any(|alias| **alias == *own) {
        let message = format!("{id} is not of `{}`", realm.trust_domain);
        report.find(Check::SvidForeign, place, message);
    }
}

/// What Envoy tells of a certificate that it has read from a file.
fn in_use(file: &str, envoy: &Envoy) -> Option<Described> {
    let mut leaves = envoy.certificates.iter().filter_map(|certificates| certificates.cert_chain.first());
    leaves.find(|certificate| certificate.path == file).and_then(Certificate::described)
}
