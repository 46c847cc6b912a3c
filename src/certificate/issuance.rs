//! The issuer, the subject and the validity of certificates, for tools that show chains and bundles. Decisions do not use them.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::{CertificateError, each_of_pem};

/// The issuer, the subject and the validity of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// The subject: a distinguished name, as a string.
    pub subject: String,
    /// The issuer: a distinguished name, as a string.
    pub issuer: String,
    /// The first second of the validity period, as Unix time.
    pub not_before: i64,
    /// The last second of the validity period, as Unix time.
    pub not_after: i64,
    subject_der: Box<[u8]>,
    issuer_der: Box<[u8]>,
    key: Option<Box<[u8]>>,
    issuer_key: Option<Box<[u8]>>,
}

impl Issuance {
    /// Returns the issuance of every certificate of a PEM text, in order.
    ///
    /// # Errors
    /// Returns [`CertificateError`] if the text, or a certificate in it, is malformed.
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

    /// Returns `true` if `authority` issued this certificate, by the names and key identifiers (RFC 5280 sections 4.1.2.4 and
    /// 4.2.1.1). The signature is not verified.
    #[must_use]
    pub fn names_as_issuer(&self, authority: &Self) -> bool {
        let keys_agree = match (&self.issuer_key, &authority.key) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        self.issuer_der == authority.subject_der && keys_agree
    }
}
