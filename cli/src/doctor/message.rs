//! The messages of Envoy's API that the doctor looks at, as the dump has them.
//!
//! Source: `envoy.config.listener.v3`, `envoy.extensions.transport_sockets.tls.v3`, and of the HTTP connection manager
//! `envoy.extensions.filters.network.http_connection_manager.v3`. Fields keep Envoy's names.

use serde::Deserialize;
use serde_json::Value;

/// A listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) listener_filters: Vec<Extension>,
    pub(crate) filter_chains: Vec<FilterChain>,
    pub(crate) default_filter_chain: Option<FilterChain>,
}

/// One way through a listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FilterChain {
    pub(crate) name: String,
    pub(crate) transport_socket: Option<Extension>,
    pub(crate) filters: Vec<Extension>,
}

/// A filter, a transport socket, a validator: a name and a message of some type, here or discovered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Extension {
    pub(crate) name: String,
    pub(crate) typed_config: Value,
    pub(crate) config_discovery: Option<Value>,
    pub(crate) disabled: bool,
}

/// A secret that arrived.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Secret {
    pub(crate) name: String,
    pub(crate) tls_certificate: Option<TlsCertificate>,
    pub(crate) validation_context: Option<ValidationContext>,
}

/// The TLS settings of a filter chain.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DownstreamTls {
    pub(crate) common_tls_context: CommonTls,
    pub(crate) require_client_certificate: bool,
    pub(crate) disable_stateless_session_resumption: bool,
    pub(crate) disable_stateful_session_resumption: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CommonTls {
    pub(crate) tls_certificates: Vec<TlsCertificate>,
    pub(crate) tls_certificate_sds_secret_configs: Vec<SecretConfig>,
    pub(crate) validation_context: Option<ValidationContext>,
    pub(crate) validation_context_sds_secret_config: Option<SecretConfig>,
    pub(crate) combined_validation_context: Option<CombinedValidation>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CombinedValidation {
    pub(crate) default_validation_context: ValidationContext,
    pub(crate) validation_context_sds_secret_config: SecretConfig,
}

/// A secret to be fetched; without a source, one of the bootstrap's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SecretConfig {
    pub(crate) name: String,
    pub(crate) sds_config: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TlsCertificate {
    pub(crate) certificate_chain: DataSource,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ValidationContext {
    pub(crate) trusted_ca: Option<DataSource>,
    pub(crate) system_root_certs: Option<Value>,
    pub(crate) custom_validator_config: Option<Extension>,
    pub(crate) trust_chain_verification: String,
    pub(crate) allow_expired_certificate: bool,
    pub(crate) match_typed_subject_alt_names: Vec<TypedMatcher>,
    pub(crate) match_subject_alt_names: Vec<StringMatcher>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TypedMatcher {
    pub(crate) san_type: String,
    pub(crate) matcher: StringMatcher,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StringMatcher {
    pub(crate) exact: Option<String>,
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DataSource {
    pub(crate) filename: Option<String>,
    inline_string: Option<String>,
    inline_bytes: Option<String>,
}

impl DataSource {
    /// What stands in the dump; `None` when it is elsewhere.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.inline_string, &self.inline_bytes) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(bytes)) => decode_base64(bytes),
            (None, None) => None,
        }
    }
}

/// What the JSON form of a protobuf has as bytes.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// The HTTP connection manager.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectionManager {
    pub(crate) http_filters: Vec<Extension>,
    pub(crate) normalize_path: bool,
    pub(crate) merge_slashes: bool,
    pub(crate) path_with_escaped_slashes_action: String,
    pub(crate) use_remote_address: bool,
    pub(crate) upgrade_configs: Vec<Upgrade>,
    pub(crate) route_config: Option<Value>,
    pub(crate) rds: Option<Routes>,
    pub(crate) scoped_routes: Option<Value>,
}

/// An upgrade that the connection manager allows. With filters, such requests pass these instead of `http_filters`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Upgrade {
    pub(crate) upgrade_type: String,
    pub(crate) filters: Vec<Extension>,
}

/// Routes that come by discovery.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Routes {
    pub(crate) route_config_name: String,
}
