//! The page `certs`: the certificates in use.
//!
//! Source: Envoy's API, `envoy.admin.v3.Certificates`. Fields have Envoy's names.

use std::io;

use serde::Deserialize;

use super::certificate::Certificate;
use super::moment::seconds;
use super::page;

/// The certificates of one TLS context.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContextCertificates {
    pub(crate) ca_cert: Vec<CertificateDetails>,
    pub(crate) cert_chain: Vec<CertificateDetails>,
}

/// The description of a certificate, without its issuer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CertificateDetails {
    pub(crate) path: String,
    subject_alt_names: Vec<AlternativeName>,
    valid_from: String,
    expiration_time: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AlternativeName {
    uri: Option<String>,
}

impl CertificateDetails {
    /// Returns the certificate as far as Envoy reports it, or `None` without its last date.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        let uris = self.subject_alt_names.iter().filter_map(|name| name.uri.as_deref().map(Box::from)).collect();
        let (not_before, not_after) = (seconds(&self.valid_from), seconds(&self.expiration_time)?);
        Some(Certificate { uris, not_before, not_after, issuance: None })
    }
}

/// Reads the page.
///
/// # Errors
/// Returns an error that names the problem if Envoy did not write it.
pub(crate) fn read(page: Vec<u8>) -> io::Result<Vec<ContextCertificates>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Certificates {
        certificates: Option<Vec<ContextCertificates>>,
    }
    let text = page::json("certs", page::decode("certs", page)?)?;
    // An Envoy without certificates writes `{}`.
    let Certificates { certificates } =
        serde_json::from_str(&text).map_err(|error| page::invalid(&format!("certs: {error}")))?;
    Ok(certificates.unwrap_or_default())
}
