//! The contents of the certificates in a PEM text, for tools that show chains and bundles. Decisions do not use them.

use x509_parser::extensions::GeneralName;

use super::{CertificateError, CertificateReason, each_of_pem};

/// A certificate, of a workload or of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The URI SANs.
    pub uris: Vec<Box<str>>,
    /// The last moment of the validity period, as Unix time in seconds.
    pub not_after: i64,
}

/// Returns every certificate of a PEM text, in order.
///
/// # Errors
/// Returns [`CertificateError`] if the text, or a certificate in it, is malformed.
pub fn describe(pem: &[u8]) -> Result<Vec<Described>, CertificateError> {
    each_of_pem(pem, |certificate| {
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|_| CertificateError(CertificateReason::Malformed))?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(Box::from(*uri)),
            _ => None,
        });
        Ok(Described { uris: uris.collect(), not_after: certificate.validity().not_after.timestamp() })
    })
}
