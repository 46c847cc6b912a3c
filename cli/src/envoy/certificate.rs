//! Certificates in secrets and on the page `certs`.

use spiffe_authz::certificate::{CertificateError, Issuance, describe};

/// A certificate of a workload or of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The URI subject alternative names.
    pub(crate) uris: Vec<Box<str>>,
    /// The first second of the validity, as Unix time; `None` if Envoy does not report it.
    pub(crate) not_before: Option<i64>,
    /// The last second of the validity, as Unix time.
    pub(crate) not_after: i64,
    /// Subject and issuer; `None` if Envoy does not report them.
    pub(crate) issuance: Option<Issuance>,
}

impl Certificate {
    /// Returns each certificate of a PEM text, in its order.
    ///
    /// # Errors
    /// Returns an error if the text or one of the certificates cannot be read.
    pub(crate) fn of_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let issued = Issuance::of_pem(text)?;
        let described = describe(text)?;
        let certificates = described.into_iter().zip(issued).map(|(described, issuance)| Self {
            uris: described.uris,
            not_before: Some(issuance.not_before),
            not_after: described.not_after,
            issuance: Some(issuance),
        });
        Ok(certificates.collect())
    }

    /// Returns `true` if `authority` issued this certificate, according to names and key identifiers, or if that is unknown.
    pub(crate) fn may_come_from(&self, authority: &Self) -> bool {
        match (&self.issuance, &authority.issuance) {
            (Some(own), Some(authority)) => own.names_as_issuer(authority),
            _ => true,
        }
    }

    /// Returns the trust domain that the certificate names, if it has exactly one URI and this is a SPIFFE ID.
    pub(crate) fn trust_domain(&self) -> Option<&str> {
        let [uri] = self.uris.as_slice() else { return None };
        let domain = uri.strip_prefix("spiffe://")?.split('/').next()?;
        (!domain.is_empty()).then_some(domain)
    }
}
