//! The page `certs`: the certificates in use.
//!
//! Source: Envoy's API, `envoy.admin.v3.Certificates`. Fields have Envoy's names.

use std::io;

use serde::Deserialize;
use serde_json::{Map, Value};

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
    let text = page::json("certs", page::decode("certs", page)?)?;
    let invalid = |what: &str| page::invalid(&format!("certs: {what}"));
    let mut page: Value = serde_json::from_str(&text).map_err(|error| invalid(&error.to_string()))?;
    let Some(certificates) = page.get_mut("certificates").map(Value::take) else {
        // An Envoy without certificates writes `{}`.
        if page.as_object().is_some_and(Map::is_empty) {
            return Ok(Vec::new());
        }
        let found = page::what_is(&page).unwrap_or_else(|| "JSON without `certificates`".to_owned());
        return Err(invalid(&format!("expected Envoy's page `certs`, found {found}")));
    };
    serde_json::from_value(certificates).map_err(|error| invalid(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn other_pages_are_errors() {
        for (page, count) in [("{}", 0), (r#"{"certificates": []}"#, 0), (r#"{"certificates": [{"ca_cert": []}]}"#, 1)]
        {
            assert_eq!(read(page.into()).unwrap().len(), count, "{page}");
        }
        for (page, found) in [
            (r#"{"stats": []}"#, "found Envoy's page `stats`"),
            (r#"{"configs": []}"#, "found JSON without `certificates`"),
            ("[]", "found JSON without `certificates`"),
            (r#"{"certificates": 1}"#, "certs: "),
            ("a: 1", "found JSON without `certificates`"),
        ] {
            let error = read(page.into()).unwrap_err().to_string();
            assert!(error.contains(found), "{page}: {error}");
        }
    }
}
