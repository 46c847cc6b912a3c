//! Who issued certificates, to whom and for how long: for people who look at chains and bundles. Decisions do not ask.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::{CertificateError, each_of_pem};

/// What a certificate says about its making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// Whose certificate it is: a distinguished name, as text.
    pub subject: String,
    /// Who issued it: a distinguished name, as text.
    pub issuer: String,
    /// The first second at which it is good, since 1970.
    pub not_before: i64,
    /// The last second at which it is good, since 1970.
    pub not_after: i64,
    subject_der: Box<[u8]>,
    issuer_der: Box<[u8]>,
    key: Option<Box<[u8]>>,
    issuer_key: Option<Box<[u8]>>,
}

impl Issuance {
    /// Every certificate of a PEM text, in its order.
    ///
    /// # Errors
    /// When the text, or a certificate in it, cannot be read.
    pub fn of_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        each_of_pem(text, |certificate| Ok(Self::of(certificate)))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut key = None;
        let mut issuer_key = None;
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(found) => key = Some(found.0.into()),
                ParsedExtension::AuthorityKeyIdentifier(found) => {
                    issuer_key = found.key_identifier.as_ref().map(|found| found.0.into());
                }
                _ => {}
            }
        }
        Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            subject_der: certificate.subject().as_raw().into(),
            issuer_der: certificate.issuer().as_raw().into(),
            key,
            issuer_key,
        }
    }

    /// Whether names and key identifiers say that `authority` issued this (RFC 5280 sections 4.1.2.4 and 4.2.1.1). No signature is
    /// verified.
    #[must_use]
    pub fn names_as_issuer(&self, authority: &Self) -> bool {
        let keys_agree = match (&self.issuer_key, &authority.key) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        self.issuer_der == authority.subject_der && keys_agree
    }
}
