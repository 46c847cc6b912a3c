//! The keys of the filter state that adapters read. Envoy's own filters write it, as a bootstrap configures.

/// The URI SANs of the client certificate of an HBONE connection. Istio writes it.
pub const PEER_PRINCIPAL: &str = "io.istio.peer_principal";
/// The client's leaf certificate: `%DOWNSTREAM_PEER_CERT%`.
pub const PEER_CERTIFICATE: &str = "spiffe_authz.peer_certificate";
/// The digest of the certificate: `%DOWNSTREAM_PEER_FINGERPRINT_256%`.
pub const PEER_CERTIFICATE_DIGEST: &str = "spiffe_authz.peer_certificate_digest";
/// `true` if Envoy validated the certificate in this handshake.
pub const PEER_CERTIFICATE_VALID: &str = "spiffe_authz.peer_certificate_valid";
/// The direct remote address: `%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%`.
pub const SOURCE_IP: &str = "spiffe_authz.source_ip";
/// Present if the TLS handshake is complete.
pub const HANDSHAKE: &str = "spiffe_authz.handshake";
/// The prefix of the dynamic metadata of a filter, which is followed by the name of the filter: `%DYNAMIC_METADATA(<filter>)%`.
pub const METADATA_PREFIX: &str = "spiffe_authz.metadata.";
