//! The secrets in a dump of Envoy's configuration: as `istioctl proxy-config secret` writes it, or as Envoy itself does.
//!
//! Source: Envoy's API, `envoy.admin.v3.SecretsConfigDump` and `envoy.extensions.transport_sockets.tls.v3`. istioctl writes the
//! names in camelCase, Envoy in snake_case.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

/// Every secret that came by discovery.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Dump {
    #[serde(alias = "dynamic_active_secrets")]
    dynamic_active_secrets: Vec<Discovered>,
    #[serde(alias = "dynamic_warming_secrets")]
    dynamic_warming_secrets: Vec<Discovered>,
}

#[derive(Deserialize)]
struct Discovered {
    name: String,
    #[serde(default)]
    secret: Secret,
}

/// A secret: a certificate, or what to validate callers by.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Secret {
    #[serde(alias = "tls_certificate")]
    tls_certificate: Option<TlsCertificate>,
    #[serde(alias = "validation_context")]
    validation_context: Option<ValidationContext>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TlsCertificate {
    #[serde(alias = "certificate_chain", default)]
    certificate_chain: DataSource,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValidationContext {
    #[serde(alias = "trusted_ca")]
    trusted_ca: Option<DataSource>,
    #[serde(alias = "custom_validator_config")]
    custom_validator_config: Option<CustomValidator>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomValidator {
    #[serde(default)]
    name: String,
    #[serde(alias = "typed_config", default)]
    typed_config: SpiffeValidator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpiffeValidator {
    #[serde(alias = "trust_domains")]
    trust_domains: Vec<TrustDomain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrustDomain {
    name: String,
    #[serde(alias = "trust_bundle", default)]
    trust_bundle: DataSource,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DataSource {
    #[serde(alias = "inline_bytes")]
    inline_bytes: Option<String>,
    #[serde(alias = "inline_string")]
    inline_string: Option<String>,
}

impl DataSource {
    /// What stands in the dump; `None` when it is elsewhere, or no base64.
    fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.inline_bytes, &self.inline_string) {
            (Some(bytes), _) => STANDARD.decode(bytes).ok(),
            (None, text) => text.clone().map(String::into_bytes),
        }
    }
}

/// Who validates callers, and by what.
pub(crate) enum Validation {
    /// Envoy's SPIFFE validator: a PEM text of authorities for each trust domain; `None` when it cannot be read.
    Spiffe(Vec<(String, Option<Vec<u8>>)>),
    /// One pool of authorities for every trust domain.
    Pool(Option<Vec<u8>>),
    /// Another validator, by its name.
    Other(String),
}

const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

impl Secret {
    /// The certificate chain in PEM; `None` when the secret has none, or one that cannot be read.
    pub(crate) fn certificate_chain(&self) -> Option<Vec<u8>> {
        self.tls_certificate.as_ref()?.certificate_chain.bytes()
    }

    /// What callers are validated by; `None` when the secret does not say it.
    pub(crate) fn validation(&self) -> Option<Validation> {
        let context = self.validation_context.as_ref()?;
        match (&context.custom_validator_config, &context.trusted_ca) {
            (Some(validator), _) if validator.name == SPIFFE_VALIDATOR => {
                let bundles = validator.typed_config.trust_domains.iter();
                Some(Validation::Spiffe(
                    bundles.map(|bundle| (bundle.name.clone(), bundle.trust_bundle.bytes())).collect(),
                ))
            }
            (Some(validator), _) => Some(Validation::Other(validator.name.clone())),
            (None, Some(pool)) => Some(Validation::Pool(pool.bytes())),
            (None, None) => None,
        }
    }
}

/// Where a secret is.
pub(crate) enum Found<'d> {
    /// In use.
    Active(&'d Secret),
    /// Asked for, and not there yet.
    Warming,
    /// Never asked for.
    Nowhere,
}

impl Dump {
    /// # Errors
    /// When the text is no JSON of a dump.
    pub(crate) fn read(text: &[u8]) -> io::Result<Self> {
        let value: Value = serde_json::from_slice(text)?;
        let Some(configs) = value.get("configs").and_then(Value::as_array) else {
            return Ok(serde_json::from_value(value)?);
        };
        // Envoy's own: `/config_dump` has one section of secrets among others, `?resource=dynamic_active_secrets` has the secrets.
        let mut dump = Self::default();
        for config in configs {
            match config["@type"].as_str() {
                Some("type.googleapis.com/envoy.admin.v3.SecretsConfigDump") => {
                    dump = serde_json::from_value(config.clone())?;
                }
                Some("type.googleapis.com/envoy.admin.v3.SecretsConfigDump.DynamicSecret") => {
                    dump.dynamic_active_secrets.push(serde_json::from_value(config.clone())?);
                }
                _ => {}
            }
        }
        Ok(dump)
    }

    /// The secret of this name.
    pub(crate) fn secret(&self, name: &str) -> Found<'_> {
        let named = |secrets: &'_ [Discovered]| secrets.iter().position(|secret| secret.name == name);
        match named(&self.dynamic_active_secrets) {
            Some(position) => Found::Active(&self.dynamic_active_secrets[position].secret),
            None if named(&self.dynamic_warming_secrets).is_some() => Found::Warming,
            None => Found::Nowhere,
        }
    }
}
