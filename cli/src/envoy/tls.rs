//! The TLS settings of filter chains and clusters, with their secrets filled in.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::certificate::Certificate;
use super::message::{
    Any, Cluster, CommonTls, DataSource, DownstreamTls, Extension, FilterChain, SecretConfig, SpiffeValidator,
    StringMatcher, UpstreamTls, ValidationContext,
};
use super::snapshot::Envoy;

const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const INTERNAL_UPSTREAM: &str = "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport";
/// Transport sockets can wrap others; Envoy's own examples need three.
const MAX_WRAPPED: usize = 8;

/// Returns the TLS settings of a filter chain, or `None` if it has none.
///
/// # Errors
/// Returns an error if they cannot be parsed.
pub(crate) fn downstream_tls(chain: &FilterChain) -> Result<Option<DownstreamTls>, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Quic {
        downstream_tls_context: DownstreamTls,
    }
    let Some(socket) = &chain.transport_socket else { return Ok(None) };
    for config in wrapped(socket)? {
        match config.kind().as_str() {
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => return config.read().map(Some),
            "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport" => {
                return config.read::<Quic>().map(|quic| Some(quic.downstream_tls_context));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Returns each of the TLS settings of a cluster: one for its endpoints, and one for each of the matches.
///
/// # Errors
/// Returns an error if one of them cannot be parsed.
pub(crate) fn upstream_tls(cluster: &Cluster) -> Result<Vec<UpstreamTls>, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Quic {
        upstream_tls_context: UpstreamTls,
    }
    let mut all = Vec::new();
    for socket in sockets(cluster) {
        for config in wrapped(socket)? {
            match config.kind().as_str() {
                "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => all.push(config.read()?),
                "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport" => {
                    all.push(config.read::<Quic>()?.upstream_tls_context);
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

fn sockets(cluster: &Cluster) -> impl Iterator<Item = &Extension> {
    let matches = cluster.transport_socket_matches.iter().filter_map(|one| one.transport_socket.as_ref());
    cluster.transport_socket.iter().chain(matches)
}

/// Returns `true` if the cluster passes filter state on to an internal listener.
pub(crate) fn passes_filter_state(cluster: &Cluster) -> bool {
    sockets(cluster).any(|socket| socket.typed_config.kind() == INTERNAL_UPSTREAM)
}

/// Returns the message of a transport socket, and those of the transport sockets that it wraps.
fn wrapped(socket: &Extension) -> Result<Vec<Any>, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Wrapper {
        transport_socket: Option<Extension>,
    }
    let mut found = vec![socket.typed_config.clone()];
    let mut next = socket.typed_config.clone();
    while found.len() < MAX_WRAPPED {
        if next.kind().ends_with("TlsContext") {
            break;
        }
        let Wrapper { transport_socket } = next.read()?;
        let Some(inner) = transport_socket else { break };
        found.push(inner.typed_config.clone());
        next = inner.typed_config;
    }
    Ok(found)
}

impl DownstreamTls {
    /// Returns `true` if Envoy asks clients for a certificate.
    pub(crate) const fn is_mutual(&self) -> bool {
        self.require_client_certificate || self.common_tls_context.has_validation()
    }
}

impl CommonTls {
    /// Returns `true` if there is a validation context, here or in a secret.
    pub(crate) const fn has_validation(&self) -> bool {
        let Self {
            validation_context,
            validation_context_sds_secret_config,
            combined_validation_context,
            tls_certificates: _,
            tls_certificate_sds_secret_configs: _,
        } = self;
        validation_context.is_some()
            || validation_context_sds_secret_config.is_some()
            || combined_validation_context.is_some()
    }

    /// Returns the secret with the validation context.
    pub(crate) fn validation_secret(&self) -> Option<&SecretConfig> {
        let combined = self.combined_validation_context.as_ref();
        self.validation_context_sds_secret_config
            .as_ref()
            .or_else(|| combined.map(|combined| &combined.validation_context_sds_secret_config))
    }

    /// Returns the validation context with its secret filled in, or `None` if there is none.
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
            // Envoy merges: the fields of the secret win, and lists are concatenated.
            (Some(combined), None) => Some(combined.default_validation_context.clone()),
            (Some(combined), Some(fetched)) => Some(combined.default_validation_context.clone().merged_with(fetched)),
        }
    }

    /// Removes the matchers for subject alternative names, in which the clusters of a mesh differ.
    pub(crate) fn take_matchers(&mut self) -> Matchers {
        let combined =
            self.combined_validation_context.as_mut().map(|combined| &mut combined.default_validation_context);
        let mut matchers = Matchers::default();
        for context in combined.into_iter().chain(self.validation_context.as_mut()) {
            matchers.typed.append(&mut context.match_typed_subject_alt_names);
            matchers.untyped.append(&mut context.match_subject_alt_names);
        }
        matchers
    }
}

/// The matchers for subject alternative names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Matchers {
    typed: Vec<super::message::TypedMatcher>,
    untyped: Vec<StringMatcher>,
}

impl Matchers {
    /// Returns `true` if there is none: every name passes.
    pub(crate) const fn is_empty(&self) -> bool {
        self.typed.is_empty() && self.untyped.is_empty()
    }

    /// Returns the matchers that a SPIFFE ID can pass.
    fn for_uris(&self) -> impl Iterator<Item = &StringMatcher> {
        self.typed.iter().filter(|typed| typed.san_type == "URI").map(|typed| &typed.matcher).chain(&self.untyped)
    }

    /// Returns `true` if an ID of this trust domain can pass.
    pub(crate) fn allow(&self, trust_domain: &str) -> bool {
        let start = format!("spiffe://{trust_domain}/");
        let can_match = |matcher: &StringMatcher| match (&matcher.exact, &matcher.prefix) {
            (Some(exact), _) => exact.starts_with(&start),
            (None, Some(prefix)) => prefix.starts_with(&start) || start.starts_with(prefix.as_str()),
            (None, None) => true,
        };
        self.is_empty() || self.for_uris().any(can_match)
    }

    /// Returns `true` if no SPIFFE ID can pass.
    pub(crate) fn exclude_spiffe_ids(&self) -> bool {
        let can_match = |matcher: &StringMatcher| match (&matcher.exact, &matcher.prefix) {
            (Some(exact), _) => exact.starts_with("spiffe://"),
            (None, Some(prefix)) => prefix.starts_with("spiffe://") || "spiffe://".starts_with(prefix.as_str()),
            (None, None) => true,
        };
        !self.is_empty() && !self.for_uris().any(can_match)
    }

    /// Returns the trust domains that matchers name, if each matcher names one.
    pub(crate) fn trust_domains(&self) -> Option<Vec<&str>> {
        let named = self.for_uris().map(|matcher| {
            let text = matcher.exact.as_ref().or(matcher.prefix.as_ref())?;
            let (domain, _) = text.strip_prefix("spiffe://")?.split_once('/')?;
            Some(domain)
        });
        let mut domains = named.collect::<Option<Vec<_>>>()?;
        domains.sort_unstable();
        domains.dedup();
        Some(domains)
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

    /// Returns the matchers for subject alternative names.
    pub(crate) fn matchers(&self) -> Matchers {
        Matchers { typed: self.match_typed_subject_alt_names.clone(), untyped: self.match_subject_alt_names.clone() }
    }

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
    /// Another validator, by its name.
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
    let bundle = |domain: &super::message::SpiffeTrustDomain| {
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
        trust_domains: std::collections::BTreeMap<String, Keys>,
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
    use serde_json::json;

    use super::super::message::ValidationContext;
    use super::bundle_map;

    fn matchers(matchers: serde_json::Value) -> super::Matchers {
        let context = json!({"match_typed_subject_alt_names": matchers});
        serde_json::from_value::<ValidationContext>(context).unwrap().matchers()
    }

    fn uri(matcher: &serde_json::Value) -> super::Matchers {
        matchers(json!([{"san_type": "URI", "matcher": matcher}]))
    }

    #[test]
    fn matchers_allow_a_trust_domain_or_do_not() {
        assert!(matchers(json!([])).allow("a"));
        for (matcher, yes) in [
            (json!({"prefix": "spiffe://a/"}), true),
            (json!({"prefix": "spiffe://a/ns/x/"}), true),
            (json!({"prefix": "spiffe://"}), true),
            (json!({"prefix": "spiffe://ab/"}), false),
            (json!({"exact": "spiffe://a/x"}), true),
            (json!({"exact": "spiffe://b/x"}), false),
            (json!({"safe_regex": {"regex": ".*"}}), true),
        ] {
            assert_eq!(uri(&matcher).allow("a"), yes, "{matcher}");
        }
        assert!(!matchers(json!([{"san_type": "DNS", "matcher": {"prefix": "spiffe://a/"}}])).allow("a"));
    }

    #[test]
    fn matchers_name_trust_domains() {
        assert_eq!(uri(&json!({"exact": "spiffe://a/x"})).trust_domains(), Some(vec!["a"]));
        assert_eq!(uri(&json!({"prefix": "spiffe://a"})).trust_domains(), None);
        assert_eq!(uri(&json!({"safe_regex": {}})).trust_domains(), None);
        assert!(uri(&json!({"exact": "httpbin"})).exclude_spiffe_ids());
        assert!(matchers(json!([{"san_type": "DNS", "matcher": {"exact": "httpbin"}}])).exclude_spiffe_ids());
        assert!(!uri(&json!({"suffix": "/sa/httpbin"})).exclude_spiffe_ids());
        assert!(!matchers(json!([])).exclude_spiffe_ids());
    }

    #[test]
    fn bundle_maps_are_read() {
        let map = |text: &str| bundle_map(text.as_bytes());
        assert_eq!(map(r#"{"trust_domains": {"a": {"keys": []}, "b": {}}}"#).unwrap().len(), 2);
        let error = map(r#"{"trust_domains": {"a": {"keys": [{"use": "jwt-svid"}]}}}"#).unwrap_err();
        assert!(error.contains("`use: jwt-svid`"), "{error}");
        assert!(map("{}").is_err());
    }
}
