//! The TLS settings of filter chains and clusters, with their secrets filled in.

use serde::Deserialize;

use super::matchers::Matchers;
use super::message::{
    Any, Cluster, CommonTls, DownstreamTls, Extension, FilterChain, SecretConfig, UpstreamTls, ValidationContext,
};
use super::snapshot::Envoy;

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
            custom_tls_certificate_selector: _,
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
            matchers.append(context.take_matchers());
        }
        matchers
    }
}

impl ValidationContext {
    fn merged_with(mut self, other: Self) -> Self {
        let Self {
            trusted_ca,
            system_root_certs,
            custom_validator_config,
            verify_certificate_hash,
            verify_certificate_spki,
            trust_chain_verification,
            allow_expired_certificate,
            match_typed_subject_alt_names,
            match_subject_alt_names,
        } = other;
        self.trusted_ca = trusted_ca.or(self.trusted_ca);
        self.system_root_certs = system_root_certs.or(self.system_root_certs);
        self.custom_validator_config = custom_validator_config.or(self.custom_validator_config);
        self.verify_certificate_hash.extend(verify_certificate_hash);
        self.verify_certificate_spki.extend(verify_certificate_spki);
        if !trust_chain_verification.is_empty() {
            self.trust_chain_verification = trust_chain_verification;
        }
        self.allow_expired_certificate |= allow_expired_certificate;
        self.match_typed_subject_alt_names.extend(match_typed_subject_alt_names);
        self.match_subject_alt_names.extend(match_subject_alt_names);
        self
    }
}
