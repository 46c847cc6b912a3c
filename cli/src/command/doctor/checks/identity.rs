//! Envoy's own identity.

use spiffe_authz::certificate::Svid;
use spiffe_authz::spiffe_id::SpiffeId;

use super::Context;
use crate::certificate_file::first_certificate;
use crate::command::doctor::secret_requests::{SecretSource, source};
use crate::document::Document;
use crate::envoy::certificate::Certificate;
use crate::envoy::message::{SecretConfig, TlsCertificate};
use crate::envoy::moment::{Validity, moment};
use crate::envoy::snapshot::Envoy;
use crate::envoy::validator::Validator;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{Place, Report};

/// Names of secrets that do not come from SPIRE although the same cluster delivers them.
const OTHER_NAMES: [&str; 3] = ["kubernetes://", "file-cert:", "file-root:"];

pub(super) fn check(context: Context<'_>, document: Option<&Document>, envoy: &Envoy, report: &mut Report) {
    let validator = context.tls.validation(envoy).map(|validation| validation.validator(envoy));
    let mut judge = |certificate: &TlsCertificate, places: &[Place], is_from_spire: bool| {
        if let Some(own) = Own::read(certificate, is_from_spire, envoy) {
            own.check(places, validator.as_ref(), document, envoy, report);
        }
    };
    for certificate in &context.tls.tls_certificates {
        judge(certificate, context.places, false);
    }
    for config in &context.tls.tls_certificate_sds_secret_configs {
        let certificate = envoy.secret(&config.name).and_then(|secret| secret.tls_certificate.as_ref());
        if let Some(certificate) = certificate {
            judge(certificate, &context.at_secret(&config.name), is_from_spire(config));
        }
    }
}

/// Returns `true` if Envoy presents an SVID with these TLS settings.
pub(super) fn presents_svid(context: Context<'_>, envoy: &Envoy) -> bool {
    let has_id = |certificate: &TlsCertificate| Own::read(certificate, false, envoy).is_some_and(|own| own.is_svid());
    context.tls.tls_certificates.iter().any(has_id)
        || context.tls.tls_certificate_sds_secret_configs.iter().any(|config| {
            let secret = envoy.secret(&config.name).and_then(|secret| secret.tls_certificate.as_ref());
            secret.map_or_else(|| is_from_spire(config), has_id)
        })
}

fn is_from_spire(config: &SecretConfig) -> bool {
    matches!(source(config), SecretSource::Cluster(_)) && !OTHER_NAMES.iter().any(|name| config.name.starts_with(name))
}

/// A certificate that Envoy presents. It need not be an SVID: gateways have certificates for browsers, too.
struct Own {
    pem: Option<Vec<u8>>,
    chain: Vec<Certificate>,
    is_from_spire: bool,
}

impl Own {
    fn read(certificate: &TlsCertificate, is_from_spire: bool, envoy: &Envoy) -> Option<Self> {
        let source = &certificate.certificate_chain;
        if let Some(pem) = source.bytes() {
            let chain = Certificate::of_pem(&pem).unwrap_or_default();
            return Some(Self { pem: Some(pem), chain, is_from_spire });
        }
        let leaf = source.filename.as_deref().and_then(|file| in_use(file, envoy))?;
        Some(Self { pem: None, chain: vec![leaf], is_from_spire })
    }

    fn is_svid(&self) -> bool {
        self.chain.first().is_some_and(|leaf| leaf.uris.iter().any(|uri| uri.starts_with("spiffe://")))
    }

    fn check(
        &self,
        places: &[Place],
        validator: Option<&Validator>,
        document: Option<&Document>,
        envoy: &Envoy,
        report: &mut Report,
    ) {
        if !self.is_from_spire && !self.is_svid() {
            return;
        }
        if let Some(error) = self.pem.as_ref().and_then(|pem| Svid::parse(first_certificate(pem)).err()) {
            report.find_each(FindingCode::SvidMalformed, places, error.to_string());
        }
        let Some(leaf) = self.chain.first() else { return };
        let id = leaf.uris.first().map_or("a certificate without a SPIFFE ID", |uri| uri);
        check_dates(leaf, id, places, envoy, report);
        let Ok(parsed) = SpiffeId::parse(id.as_bytes()) else { return };
        let domain = parsed.trust_domain().as_str();
        if let Some(authorities) = validator.and_then(|validator| validator.authorities_of(domain))
            && !authorities.is_empty()
            && !self.chain.iter().any(|link| authorities.iter().any(|authority| link.may_come_from(authority)))
        {
            let issuer = self.chain.last().and_then(|last| last.issuance.as_ref()).map_or("", |issued| &issued.issuer);
            let message = format!("{id}: its issuer, {issuer}, is not an authority in the bundle of `{domain}`");
            report.find_each(FindingCode::ForeignIssuer, places, message);
        }
        let Some(document) = document else { return };
        let realm = document.policy.realm();
        if *realm.trust_domain != *domain && !realm.aliases.iter().any(|alias| **alias == *domain) {
            let message = format!("{id} does not belong to `{}`", realm.trust_domain);
            report.find_each(FindingCode::SvidForeign, places, message);
        }
        if realm.pattern.read(parsed.path()).is_none() {
            let message = format!("{id} does not have the form `{}` of `identity.pattern`", realm.pattern);
            report.find_each(FindingCode::SvidWrongPattern, places, message);
        }
    }
}

fn check_dates(leaf: &Certificate, id: &str, places: &[Place], envoy: &Envoy, report: &mut Report) {
    let until = moment(leaf.not_after);
    match envoy.taken.within(leaf.not_before, leaf.not_after) {
        Validity::Expired => report.find_each(FindingCode::SvidExpired, places, format!("{id}: expired at {until}")),
        Validity::NotYet => {
            let from = moment(leaf.not_before.unwrap_or_default());
            report.find_each(FindingCode::NotYetGood, places, format!("{id}: not valid before {from}"));
        }
        Validity::Valid => report.fine_each(FindingLayer::Identity, places, format!("{id}, valid until {until}")),
        Validity::Unknown => {
            let message = format!("{id}: whether it expired at {until} is unknown");
            report.find_each(FindingCode::MomentUnknown, places, message);
        }
    }
}

/// Returns a certificate that Envoy has read from a file.
fn in_use(file: &str, envoy: &Envoy) -> Option<Certificate> {
    let mut leaves = envoy.certificates.iter().flatten().filter_map(|certificates| certificates.cert_chain.first());
    leaves.find(|certificate| certificate.path == file).and_then(crate::envoy::certs::CertificateDetails::certificate)
}
