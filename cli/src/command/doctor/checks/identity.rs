//! Envoy's own identity.

use spiffe_authz::spiffe_id::SpiffeId;

use super::{Context, Facts};
use crate::command::doctor::secret_requests::{Role, SecretSource, source};
use crate::document::Document;
use crate::envoy::message::{SecretConfig, TlsCertificate};
use crate::envoy::snapshot::Envoy;
use crate::examine::Usage;
use crate::examine::own_certificate::OwnCertificate;
use crate::finding::FindingCode;
use crate::report::{Place, Report};

/// Names of secrets that do not come from SPIRE although the same cluster delivers them.
const OTHER_NAMES: [&str; 3] = ["kubernetes://", "file-cert:", "file-root:"];

pub(super) fn check(context: Context<'_>, document: Option<&Document>, facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    let validator = context.tls.validation(envoy).map(|validation| validation.validator(envoy));
    let mut judge = |certificate: &TlsCertificate, usage: Usage<'_>, is_from_spire: bool| {
        let Some(own) = OwnCertificate::read(certificate, envoy) else { return };
        if is_from_spire || own.is_svid() {
            own.check(usage, validator.as_ref(), envoy, report);
            if let Some(document) = document {
                compare(&own, document, usage.places, report);
            }
        }
    };
    for certificate in &context.tls.tls_certificates {
        judge(certificate, Usage { places: context.places, stale: None }, false);
    }
    for config in &context.tls.tls_certificate_sds_secret_configs {
        let certificate = envoy.secret(&config.name).and_then(|secret| secret.tls_certificate.as_ref());
        if let Some(certificate) = certificate {
            let places = context.at_secret(&config.name);
            let usage = Usage { places: &places, stale: facts.stale(config, Role::Certificate) };
            judge(certificate, usage, is_from_spire(config));
        }
    }
}

/// Returns `true` if Envoy presents an SVID with these TLS settings.
pub(super) fn presents_svid(context: Context<'_>, envoy: &Envoy) -> bool {
    let has_id =
        |certificate: &TlsCertificate| OwnCertificate::read(certificate, envoy).is_some_and(|own| own.is_svid());
    context.tls.tls_certificates.iter().any(has_id)
        || context.tls.tls_certificate_sds_secret_configs.iter().any(|config| {
            let secret = envoy.secret(&config.name).and_then(|secret| secret.tls_certificate.as_ref());
            secret.map_or_else(|| is_from_spire(config), has_id)
        })
}

fn is_from_spire(config: &SecretConfig) -> bool {
    matches!(source(config), SecretSource::Cluster(_)) && !OTHER_NAMES.iter().any(|name| config.name.starts_with(name))
}

/// Compares the SPIFFE ID with the document that decides about callers.
fn compare(own: &OwnCertificate, document: &Document, places: &[Place], report: &mut Report) {
    let Some(id) = own.id() else { return };
    let Ok(parsed) = SpiffeId::parse(id.as_bytes()) else { return };
    let settings = document.policy.identity();
    let domain = parsed.trust_domain().as_str();
    if !settings.trust_domains.is_local(domain) {
        let message = format!("{id} does not belong to `{}`", settings.trust_domains.local);
        report.find_each(FindingCode::SvidForeign, places, message);
    }
    if settings.pattern.read(parsed.path()).is_none() {
        let message = format!("{id} does not have the form `{}` of `identity.pattern`", settings.pattern);
        report.find_each(FindingCode::SvidWrongPattern, places, message);
    }
}
