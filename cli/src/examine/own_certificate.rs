//! The certificate that Envoy presents.

use spiffe_authz::certificate::{CertificateError, Svid};
use spiffe_authz::spiffe_id::SpiffeId;

use super::Usage;
use crate::certificate_file::first_certificate;
use crate::envoy::certificate::Certificate;
use crate::envoy::certs::CertificateDetails;
use crate::envoy::message::TlsCertificate;
use crate::envoy::moment::{Validity, moment};
use crate::envoy::snapshot::Envoy;
use crate::envoy::validator::Validator;
use crate::finding::{FindingCode, FindingLayer};
use crate::report::Report;

/// A certificate that Envoy presents. It need not be an SVID: gateways have certificates for browsers, too.
pub(crate) struct OwnCertificate {
    /// The text, or `None` if only the page `certs` describes the certificate.
    pem: Option<Vec<u8>>,
    /// The leaf and its intermediate authorities; empty if they cannot be read.
    pub(crate) chain: Vec<Certificate>,
}

impl OwnCertificate {
    /// Reads a certificate, or returns `None` if it is in a file that the page `certs` does not describe.
    pub(crate) fn read(certificate: &TlsCertificate, envoy: &Envoy) -> Option<Self> {
        let source = &certificate.certificate_chain;
        if let Some(pem) = source.bytes() {
            let chain = Certificate::of_pem(&pem).unwrap_or_default();
            return Some(Self { pem: Some(pem), chain });
        }
        let leaf = source.filename.as_deref().and_then(|file| in_use(file, envoy))?;
        Some(Self { pem: None, chain: vec![leaf] })
    }

    /// Returns `true` if the certificate names a SPIFFE ID.
    pub(crate) fn is_svid(&self) -> bool {
        self.chain.first().is_some_and(|leaf| leaf.uris.iter().any(|uri| uri.starts_with("spiffe://")))
    }

    /// Returns the first URI of the leaf.
    pub(crate) fn id(&self) -> Option<&str> {
        self.chain.first()?.uris.first().map(|uri| &**uri)
    }

    /// Returns the trust domain of the SPIFFE ID.
    pub(crate) fn trust_domain(&self) -> Option<&str> {
        let id = SpiffeId::parse(self.id()?.as_bytes()).ok()?;
        Some(id.trust_domain().as_str())
    }

    /// Returns the rule of the X509-SVID specification that the leaf violates, or `None` if it violates none or only the
    /// page `certs` describes it.
    pub(crate) fn violation(&self) -> Option<CertificateError> {
        Svid::parse(first_certificate(self.pem.as_ref()?)).err()
    }

    /// Returns `true` if one of these authorities issued the certificate, according to names and key identifiers.
    pub(crate) fn is_issued_by(&self, authorities: &[Certificate]) -> bool {
        self.chain.iter().any(|link| authorities.iter().any(|authority| link.may_come_from(authority)))
    }

    /// Checks the form, the dates and the issuer.
    pub(crate) fn check(&self, usage: Usage<'_>, validator: Option<&Validator>, envoy: &Envoy, report: &mut Report) {
        let places = usage.places;
        if let Some(error) = self.violation() {
            report.find_each(FindingCode::SvidMalformed, places, error.to_string());
        }
        let Some(leaf) = self.chain.first() else { return };
        let id = self.id().unwrap_or("a certificate without a SPIFFE ID");
        check_dates(leaf, id, usage, envoy, report);
        let Some(domain) = self.trust_domain() else { return };
        if let Some(authorities) = validator.and_then(|validator| validator.authorities_of(domain))
            && !authorities.is_empty()
            && !self.is_issued_by(authorities)
        {
            let issuer = self.chain.last().and_then(|last| last.issuance.as_ref()).map_or("", |issued| &issued.issuer);
            let message = format!("{id}: its issuer, {issuer}, is not an authority in the bundle of `{domain}`");
            report.find_each(FindingCode::ForeignIssuer, places, message);
        }
    }
}

fn check_dates(leaf: &Certificate, id: &str, usage: Usage<'_>, envoy: &Envoy, report: &mut Report) {
    let Usage { places, stale } = usage;
    let until = moment(leaf.not_after);
    match envoy.taken.within(leaf.not_before, leaf.not_after) {
        Validity::Expired => {
            report.follow_each(FindingCode::SvidExpired, places, format!("{id}: expired at {until}"), stale);
        }
        Validity::NotYet => {
            let from = moment(leaf.not_before.unwrap_or_default());
            report.find_each(FindingCode::NotYetGood, places, format!("{id}: not valid before {from}"));
        }
        Validity::Valid => report.fine_each(FindingLayer::Identity, places, format!("{id}, valid until {until}")),
        Validity::Unknown => {
            let message = format!("{id}: it is unknown whether the certificate expired at {until}");
            report.find_each(FindingCode::MomentUnknown, places, message);
        }
    }
}

/// Returns a certificate that Envoy has read from a file.
fn in_use(file: &str, envoy: &Envoy) -> Option<Certificate> {
    let mut leaves = envoy.certificates.iter().flatten().filter_map(|certificates| certificates.cert_chain.first());
    leaves.find(|certificate| certificate.path == file).and_then(CertificateDetails::certificate)
}
