//! The messages of Envoy's API that the command reads, as a dump contains them.
//!
//! Source: `envoy.config.listener.v3`, `envoy.config.cluster.v3`, `envoy.extensions.transport_sockets.tls.v3`, and
//! `envoy.extensions.filters.network.http_connection_manager.v3`. Fields have Envoy's names.

use std::borrow::Cow;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::base64_text;

/// A message of any type, as text. It is parsed when it is needed: a dump can contain thousands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Any(Option<Rc<RawValue>>);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self((text.get() != "null").then(|| text.into())))
    }
}

impl Any {
    /// Returns `true` if the field exists.
    pub(crate) const fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the JSON text, which is empty if the field does not exist.
    pub(crate) fn text(&self) -> &str {
        self.0.as_ref().map_or("", |text| text.get())
    }

    /// Returns the type without its prefix, such as `envoy.extensions.filters.http.rbac.v3.RBAC`, or an empty string.
    pub(crate) fn kind(&self) -> String {
        let Typed { kind, type_url, value: _ } = self.typed();
        let kind = if is_structure(&kind) { type_url } else { kind };
        short(&kind).to_owned()
    }

    /// Parses the message; a `TypedStruct`, which EnvoyFilters use, is unwrapped.
    pub(crate) fn read<T: DeserializeOwned + Default>(&self) -> Result<T, serde_json::Error> {
        let Typed { kind, type_url: _, value } = self.typed();
        let text = match value {
            Some(value) if is_structure(&kind) => value.get(),
            _ => self.text(),
        };
        if text.is_empty() { Ok(T::default()) } else { serde_json::from_str(text) }
    }

    /// Returns the message as a JSON value, which is `null` if it cannot be parsed.
    pub(crate) fn value(&self) -> Value {
        self.read().unwrap_or_default()
    }

    fn typed(&self) -> Typed<'_> {
        // A message that is not an object has no type.
        serde_json::from_str(self.text()).unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Typed<'t> {
    #[serde(rename = "@type", borrow)]
    kind: Cow<'t, str>,
    #[serde(borrow)]
    type_url: Cow<'t, str>,
    #[serde(borrow)]
    value: Option<&'t RawValue>,
}

fn is_structure(kind: &str) -> bool {
    kind.ends_with(".TypedStruct")
}

fn short(kind: &str) -> &str {
    kind.rsplit('/').next().unwrap_or_default()
}

/// Returns the type of a message without its prefix, and the message.
pub(crate) fn message(config: &Value) -> (&str, &Value) {
    let (kind, message) = match config["@type"].as_str() {
        Some(kind) if is_structure(kind) => (config["type_url"].as_str(), &config["value"]),
        kind => (kind, config),
    };
    (short(kind.unwrap_or_default()), message)
}

/// A listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) internal_listener: Any,
    pub(crate) listener_filters: Vec<Extension>,
    pub(crate) filter_chains: Vec<FilterChain>,
    pub(crate) default_filter_chain: Option<FilterChain>,
}

/// A filter chain of a listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FilterChain {
    pub(crate) name: String,
    pub(crate) transport_socket: Option<Extension>,
    pub(crate) filters: Vec<Extension>,
}

/// A filter, a transport socket or a validator: a name and a message of some type, here or discovered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Extension {
    pub(crate) name: String,
    pub(crate) typed_config: Any,
    pub(crate) config_discovery: Any,
    pub(crate) disabled: bool,
    pub(crate) is_optional: bool,
}

/// A cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) alt_stat_name: String,
    pub(crate) transport_socket: Option<Extension>,
    pub(crate) transport_socket_matches: Vec<SocketMatch>,
    pub(crate) load_assignment: LoadAssignment,
}

/// A transport socket for some of the endpoints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SocketMatch {
    pub(crate) transport_socket: Option<Extension>,
}

/// The endpoints of a cluster, as far as they are internal listeners.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadAssignment {
    endpoints: Vec<Endpoints>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Endpoints {
    lb_endpoints: Vec<LbEndpoint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct LbEndpoint {
    endpoint: Endpoint,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    address: Address,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Address {
    envoy_internal_address: Option<InternalAddress>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct InternalAddress {
    server_listener_name: String,
}

impl LoadAssignment {
    /// Returns the name of the internal listener of each endpoint, or `None` for an endpoint elsewhere.
    pub(crate) fn internal_listeners(&self) -> impl Iterator<Item = Option<&str>> {
        let endpoints = self.endpoints.iter().flat_map(|endpoints| &endpoints.lb_endpoints);
        endpoints.map(|lb| Some(lb.endpoint.address.envoy_internal_address.as_ref()?.server_listener_name.as_str()))
    }
}

/// A secret that Envoy has received or has in its bootstrap.
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

/// The TLS settings of a cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct UpstreamTls {
    pub(crate) common_tls_context: CommonTls,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct CommonTls {
    pub(crate) tls_certificates: Vec<TlsCertificate>,
    pub(crate) tls_certificate_sds_secret_configs: Vec<SecretConfig>,
    pub(crate) validation_context: Option<ValidationContext>,
    pub(crate) validation_context_sds_secret_config: Option<SecretConfig>,
    pub(crate) combined_validation_context: Option<CombinedValidation>,
    /// The extension that selects the certificate of each handshake, and can fetch it on demand.
    pub(crate) custom_tls_certificate_selector: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct CombinedValidation {
    pub(crate) default_validation_context: ValidationContext,
    pub(crate) validation_context_sds_secret_config: SecretConfig,
}

/// A secret to fetch. Without a source, it is one of the bootstrap's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct SecretConfig {
    pub(crate) name: String,
    pub(crate) sds_config: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TlsCertificate {
    pub(crate) certificate_chain: DataSource,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ValidationContext {
    pub(crate) trusted_ca: Option<DataSource>,
    pub(crate) system_root_certs: Option<Value>,
    pub(crate) custom_validator_config: Option<CustomValidator>,
    pub(crate) verify_certificate_hash: Vec<String>,
    pub(crate) verify_certificate_spki: Vec<String>,
    pub(crate) trust_chain_verification: String,
    pub(crate) allow_expired_certificate: bool,
    pub(crate) match_typed_subject_alt_names: Vec<TypedMatcher>,
    pub(crate) match_subject_alt_names: Vec<StringMatcher>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct CustomValidator {
    pub(crate) name: String,
    #[serde(deserialize_with = "unwrapped")]
    pub(crate) typed_config: SpiffeValidator,
}

/// Reads a message that can be in a `TypedStruct`.
fn unwrapped<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Any::deserialize(deserializer)?.read().map_err(serde::de::Error::custom)
}

/// `SPIFFECertValidatorConfig`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct SpiffeValidator {
    pub(crate) trust_domains: Vec<SpiffeTrustDomain>,
    pub(crate) trust_bundles: Option<DataSource>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct SpiffeTrustDomain {
    pub(crate) name: String,
    pub(crate) trust_bundle: DataSource,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TypedMatcher {
    pub(crate) san_type: String,
    pub(crate) matcher: StringMatcher,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct StringMatcher {
    pub(crate) exact: Option<String>,
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct DataSource {
    pub(crate) filename: Option<String>,
    inline_string: Option<String>,
    inline_bytes: Option<String>,
}

impl DataSource {
    /// Returns the data in the dump, or `None` if it is elsewhere or not base64.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.inline_string, &self.inline_bytes) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(bytes)) => base64_text::decode(bytes),
            (None, None) => None,
        }
    }
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
    pub(crate) original_ip_detection_extensions: Vec<Extension>,
    pub(crate) forward_client_cert_details: String,
    pub(crate) forward_client_cert_matcher: Any,
    pub(crate) upgrade_configs: Vec<Upgrade>,
    pub(crate) route_config: Any,
    pub(crate) rds: Option<Routes>,
    pub(crate) scoped_routes: Any,
}

/// An upgrade that the connection manager allows. With filters, such requests pass these instead of `http_filters`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Upgrade {
    pub(crate) upgrade_type: String,
    pub(crate) filters: Vec<Extension>,
    /// Whether requests can use the upgrade on routes without a setting of their own, which is the default.
    pub(crate) enabled: Option<bool>,
}

/// Discovered routes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Routes {
    pub(crate) route_config_name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Any, Extension};

    fn any(value: &serde_json::Value) -> Any {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn types_are_read_without_their_prefix() {
        assert_eq!(any(&json!({"@type": "type.googleapis.com/a.v3.B", "x": 1})).kind(), "a.v3.B");
        let wrapped = any(&json!({
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/a.v3.B",
            "value": {"disabled": true}
        }));
        assert_eq!((wrapped.kind().as_str(), wrapped.value()), ("a.v3.B", json!({"disabled": true})));
        assert!(wrapped.read::<Extension>().unwrap().disabled);
        for other in [json!(null), json!(1), json!([]), json!({}), json!({"@type": 1})] {
            assert_eq!(any(&other).kind(), "", "{other}");
        }
        assert!(!any(&json!(null)).is_present());
    }
}
