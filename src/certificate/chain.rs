//! What the certificates of a PEM text say of themselves: for tools that look at chains and bundles, not for decisions.

use x509_parser::extensions::GeneralName;

use super::{CertificateError, CertificateReason, each_of_pem};

/// A certificate, of a workload or of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its URI subject alternative names.
    pub uris: Vec<Box<str>>,
    /// The last moment at which it is good, in seconds since 1970.
    pub not_after: i64,
}

/// Every certificate of a PEM text, in its order.
///
/// # Errors
/// When one of them, or the text, cannot be read.
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
