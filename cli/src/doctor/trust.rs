//! What a filter chain's TLS settings come to, once their secrets are filled in.

use serde_json::Value;
use spiffe_authz::certificate::{Described, describe};

use super::dump::{Certificate, Envoy};
use super::filter::message;
use super::message::{
    CommonTls, DataSource, DownstreamTls, FilterChain, SecretConfig, StringMatcher, ValidationContext,
};

const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

/// The TLS settings of a filter chain; `None` when it has none.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn downstream_tls(chain: &FilterChain) -> Result<Option<DownstreamTls>, serde_json::Error> {
    let Some(socket) = &chain.transport_socket else { return Ok(None) };
    let (kind, config) = message(&socket.typed_config);
    match kind {
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => DownstreamTls::deserialize_from(config),
        "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport" => {
            DownstreamTls::deserialize_from(&config["downstream_tls_context"])
        }
        _ => Ok(None),
    }
}

impl DownstreamTls {
    fn deserialize_from(config: &Value) -> Result<Option<Self>, serde_json::Error> {
        serde_json::from_value(config.clone()).map(Some)
    }

    /// Whether callers are to show who they are.
    pub(crate) fn is_mutual(&self) -> bool {
        let CommonTls {
            validation_context,
            validation_context_sds_secret_config,
            combined_validation_context,
            tls_certificates: _,
            tls_certificate_sds_secret_configs: _,
        } = &self.common_tls_context;
        self.require_client_certificate
            || validation_context.is_some()
            || validation_context_sds_secret_config.is_some()
            || combined_validation_context.is_some()
    }
}

impl CommonTls {
    /// The secret with which callers are validated.
    pub(crate) fn validation_secret(&self) -> Option<&SecretConfig> {
        let combined = self.combined_validation_context.as_ref();
        self.validation_context_sds_secret_config
            .as_ref()
            .or_else(|| combined.map(|combined| &combined.validation_context_sds_secret_config))
    }

    /// How callers are validated, once the secret is filled in; `None` when they are not.
    pub(crate) fn validation(&self, envoy: &Envoy) -> Option<ValidationContext> {
        if let Some(own) = &self.validation_context {
            return Some(own.clone());
        }
        let fetched = self
            .validation_secret()
            .and_then(|config| envoy.secret(&config.name))
            .and_then(|secret| secret.validation_context.clone());
        match (&self.combined_validation_context, fetched) {
            (None, fetched) => fetched,
            // Envoy merges: what the secret says wins, and lists go together.
            (Some(combined), None) => Some(combined.default_validation_context.clone()),
            (Some(combined), Some(fetched)) => Some(combined.default_validation_context.clone().merged_with(fetched)),
        }
    }
}

impl ValidationContext {
    fn merged_with(mut self, other: Self) -> Self {
        let Self {
            trusted_ca,
            system_root_certs,
            custom_validator_config,
            trust_chain_verification,
            allow_expired_certificate,
            match_typed_subject_alt_names,
            match_subject_alt_names,
        } = other;
        self.trusted_ca = trusted_ca.or(self.trusted_ca);
        self.system_root_certs = system_root_certs.or(self.system_root_certs);
        self.custom_validator_config = custom_validator_config.or(self.custom_validator_config);
        if !trust_chain_verification.is_empty() {
            self.trust_chain_verification = trust_chain_verification;
        }
        self.allow_expired_certificate |= allow_expired_certificate;
        self.match_typed_subject_alt_names.extend(match_typed_subject_alt_names);
        self.match_subject_alt_names.extend(match_subject_alt_names);
        self
    }

    /// Who validates, and by which authorities.
    pub(crate) fn validator(&self, envoy: &Envoy) -> Validator {
        if let Some(custom) = &self.custom_validator_config {
            let (_, config) = message(&custom.typed_config);
            return if custom.name == SPIFFE_VALIDATOR {
                Validator::Spiffe(bundles(config))
            } else {
                Validator::Other(custom.name.clone())
            };
        }
        if self.system_root_certs.is_some() {
            return Validator::System;
        }
        match &self.trusted_ca {
            None => Validator::None,
            Some(source) => Validator::Default(authorities(source, envoy)),
        }
    }

    /// Whether the matchers for subject alternative names can let an identity of `trust_domain` pass.
    pub(crate) fn lets_in(&self, trust_domain: &str) -> bool {
        let start = format!("spiffe://{trust_domain}/");
        let can_match = |matcher: &StringMatcher| match (&matcher.exact, &matcher.prefix) {
            (Some(exact), _) => exact.starts_with(&start),
            (None, Some(prefix)) => prefix.starts_with(&start) || start.starts_with(prefix.as_str()),
            (None, None) => true,
        };
        let typed = &self.match_typed_subject_alt_names;
        let untyped = &self.match_subject_alt_names;
        (typed.is_empty() && untyped.is_empty())
            || typed.iter().filter(|typed| typed.san_type == "URI").any(|typed| can_match(&typed.matcher))
            || untyped.iter().any(can_match)
    }
}

/// Who validates the certificates of callers.
#[derive(Debug)]
pub(crate) enum Validator {
    /// Nobody.
    None,
    /// Envoy's SPIFFE validator, with one bundle for each trust domain; `None` when they are not in the dump.
    Spiffe(Option<Vec<Bundle>>),
    /// Envoy's default validator, with these authorities; `None` when they are not in the dump.
    Default(Option<Vec<Described>>),
    /// Envoy's default validator, with whatever the machine trusts.
    System,
    /// Another.
    Other(String),
}

/// The authorities of a trust domain.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The trust domain.
    pub(crate) trust_domain: String,
    /// The authorities; `None` when they cannot be read here.
    pub(crate) authorities: Option<Vec<Described>>,
}

fn bundles(config: &Value) -> Option<Vec<Bundle>> {
    if let Some(map) = config.get("trust_bundles") {
        let source: DataSource = serde_json::from_value(map.clone()).ok()?;
        let map: Value = serde_json::from_slice(&source.bytes()?).ok()?;
        let names = map["trust_domains"].as_object()?.keys();
        return Some(names.map(|name| Bundle { trust_domain: name.clone(), authorities: None }).collect());
    }
    let bundle = |domain: &Value| {
        let source: Option<DataSource> = serde_json::from_value(domain["trust_bundle"].clone()).ok();
        Some(Bundle {
            trust_domain: domain["name"].as_str()?.to_owned(),
            authorities: source.and_then(|source| describe(&source.bytes()?).ok()),
        })
    };
    config["trust_domains"].as_array()?.iter().map(bundle).collect()
}

fn authorities(source: &DataSource, envoy: &Envoy) -> Option<Vec<Described>> {
    if let Some(bytes) = source.bytes() {
        return describe(&bytes).ok();
    }
    let file = source.filename.as_ref()?;
    let used = envoy.certificates.iter().flat_map(|certificates| &certificates.ca_cert);
    used.filter(|certificate| certificate.path == *file).map(Certificate::described).collect()
}

/// The trust domains that authorities name; `None` when one of them does not name exactly one.
pub(crate) fn trust_domains(authorities: &[Described]) -> Option<Vec<&str>> {
    let mut domains = Vec::new();
    for authority in authorities {
        let [uri] = authority.uris.as_slice() else { return None };
        let domain = uri.strip_prefix("spiffe://")?.split('/').next()?;
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    Some(domains)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::message::ValidationContext;

    #[test]
    fn matchers_let_in_or_not() {
        let lets_in = |matchers: serde_json::Value, domain: &str| {
            let context = json!({"match_typed_subject_alt_names": matchers});
            serde_json::from_value::<ValidationContext>(context).unwrap().lets_in(domain)
        };
        let uri = |matcher: serde_json::Value| json!([{"san_type": "URI", "matcher": matcher}]);
        assert!(lets_in(json!([]), "a"));
        for (matcher, yes) in [
            (json!({"prefix": "spiffe://a/"}), true),
            (json!({"prefix": "spiffe://a/ns/x/"}), true),
            (json!({"prefix": "spiffe://"}), true),
            (json!({"prefix": "spiffe://ab/"}), false),
            (json!({"exact": "spiffe://a/x"}), true),
            (json!({"exact": "spiffe://b/x"}), false),
            (json!({"safe_regex": {"regex": ".*"}}), true),
        ] {
            assert_eq!(lets_in(uri(matcher.clone()), "a"), yes, "{matcher}");
        }
        assert!(!lets_in(json!([{"san_type": "DNS", "matcher": {"prefix": "spiffe://a/"}}]), "a"));
    }
}
