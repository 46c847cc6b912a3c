//! The validator of a validation context, with its authorities.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::certificate::Certificate;
use super::message::{DataSource, SpiffeTrustDomain, SpiffeValidator, ValidationContext};
use super::snapshot::Envoy;

const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

impl ValidationContext {
    /// Returns the validator with its authorities.
    pub(crate) fn validator(&self, envoy: &Envoy) -> Validator {
        if let Some(custom) = &self.custom_validator_config {
            return if custom.name == SPIFFE_VALIDATOR {
                Validator::Spiffe(bundles(&custom.typed_config))
            } else {
                Validator::Other(custom.name.clone())
            };
        }
        if self.system_root_certs.is_some() {
            return Validator::System;
        }
        match &self.trusted_ca {
            None if !self.verify_certificate_hash.is_empty() => Validator::Other("verify_certificate_hash".to_owned()),
            None if !self.verify_certificate_spki.is_empty() => Validator::Other("verify_certificate_spki".to_owned()),
            None => Validator::None,
            Some(source) => Validator::Default(authorities(source, envoy)),
        }
    }
}

/// The validator of peers' certificates.
#[derive(Debug)]
pub(crate) enum Validator {
    /// There is none.
    None,
    /// Envoy's SPIFFE validator, with one bundle for each trust domain.
    Spiffe(Bundles),
    /// Envoy's default validator with these authorities; `None` if they are not in the dump or cannot be read.
    Default(Option<Vec<Certificate>>),
    /// Envoy's default validator with every authority that the machine trusts.
    System,
    /// Another validator, or the setting that pins certificates, by its name.
    Other(String),
}

/// The bundles of the SPIFFE validator.
#[derive(Debug)]
pub(crate) enum Bundles {
    /// They are in the dump.
    Here(Vec<Bundle>),
    /// They are in a file.
    Elsewhere,
    /// Envoy rejects them, for this reason.
    Unreadable(String),
}

/// The authorities of a trust domain.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The trust domain.
    pub(crate) trust_domain: String,
    /// The authorities; `None` if they are in a file.
    pub(crate) authorities: Option<Vec<Certificate>>,
}

impl Validator {
    /// Returns the authorities that can issue certificates of a trust domain, or `None` if they are unknown.
    pub(crate) fn authorities_of(&self, trust_domain: &str) -> Option<&[Certificate]> {
        match self {
            Self::Spiffe(Bundles::Here(bundles)) => {
                bundles.iter().find(|bundle| bundle.trust_domain == trust_domain)?.authorities.as_deref()
            }
            Self::Default(authorities) => authorities.as_deref(),
            _ => None,
        }
    }
}

fn bundles(validator: &SpiffeValidator) -> Bundles {
    let SpiffeValidator { trust_domains, trust_bundles } = validator;
    if let Some(source) = trust_bundles {
        return match source.bytes() {
            Some(map) => bundle_map(&map).map_or_else(Bundles::Unreadable, Bundles::Here),
            None if source.filename.is_some() => Bundles::Elsewhere,
            None => Bundles::Unreadable("`trust_bundles` is empty or not base64".to_owned()),
        };
    }
    let bundle = |domain: &SpiffeTrustDomain| {
        let source = &domain.trust_bundle;
        let authorities = match source.bytes() {
            Some(pem) => Some(Certificate::of_pem(&pem).unwrap_or_default()),
            None if source.filename.is_some() => None,
            None => Some(Vec::new()),
        };
        Bundle { trust_domain: domain.name.clone(), authorities }
    };
    Bundles::Here(trust_domains.iter().map(bundle).collect())
}

/// Reads a map of SPIFFE bundles (SPIFFE Trust Domain and Bundle, section 4).
fn bundle_map(text: &[u8]) -> Result<Vec<Bundle>, String> {
    #[derive(Deserialize)]
    struct Map {
        trust_domains: BTreeMap<String, Keys>,
    }
    #[derive(Deserialize)]
    struct Keys {
        #[serde(default)]
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Key {
        r#use: String,
        x5c: Vec<String>,
    }
    let Map { trust_domains } = serde_json::from_slice(text).map_err(|error| format!("`trust_bundles`: {error}"))?;
    let mut bundles = Vec::new();
    for (trust_domain, Keys { keys }) in trust_domains {
        let mut authorities = Vec::new();
        for Key { r#use, x5c } in &keys {
            // Envoy rejects the whole map for a JWT key.
            if r#use != "x509-svid" {
                return Err(format!("Envoy rejects the bundle of `{trust_domain}` because of a key with `use: {use}`"));
            }
            let pem: String = x5c.iter().map(|der| pem_of(der)).collect();
            authorities.extend(Certificate::of_pem(pem.as_bytes()).unwrap_or_default());
        }
        bundles.push(Bundle { trust_domain, authorities: Some(authorities) });
    }
    Ok(bundles)
}

/// Returns PEM of the base64 of a certificate in DER.
fn pem_of(der: &str) -> String {
    let der = STANDARD.decode(der).unwrap_or_default();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

fn authorities(source: &DataSource, envoy: &Envoy) -> Option<Vec<Certificate>> {
    if let Some(bytes) = source.bytes() {
        return Certificate::of_pem(&bytes).ok();
    }
    let file = source.filename.as_ref()?;
    let used = envoy.certificates.as_ref()?.iter().flat_map(|certificates| &certificates.ca_cert);
    let found: Option<Vec<Certificate>> =
        used.filter(|certificate| certificate.path == *file).map(|certificate| certificate.certificate()).collect();
    found.filter(|found| !found.is_empty())
}

/// Returns the trust domains that authorities name, or `None` if one of them does not name exactly one.
pub(crate) fn trust_domains(authorities: &[Certificate]) -> Option<Vec<&str>> {
    let mut seen = HashSet::new();
    let named = authorities.iter().map(Certificate::trust_domain).collect::<Option<Vec<_>>>()?;
    Some(named.into_iter().filter(|domain| seen.insert(*domain)).collect())
}

#[cfg(test)]
mod tests {
    use super::bundle_map;

    #[test]
    fn bundle_maps_are_read() {
        let map = |text: &str| bundle_map(text.as_bytes());
        assert_eq!(map(r#"{"trust_domains": {"a": {"keys": []}, "b": {}}}"#).unwrap().len(), 2);
        let error = map(r#"{"trust_domains": {"a": {"keys": [{"use": "jwt-svid"}]}}}"#).unwrap_err();
        assert!(error.contains("`use: jwt-svid`"), "{error}");
        assert!(map("{}").is_err());
    }
}
