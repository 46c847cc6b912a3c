//! Filter state that a bootstrap sets, by filters of Envoy's own: what Envoy does not tell a module by itself.

use std::str::FromStr;

use spiffe_authz::request::HostFailure;

/// The leaf certificate: `%DOWNSTREAM_PEER_CERT%`.
pub(crate) const PEER_CERTIFICATE: &str = "spiffe_authz.peer_certificate";
/// Its digest, which Envoy tells HTTP filters by itself: `%DOWNSTREAM_PEER_FINGERPRINT_256%`.
pub(crate) const PEER_CERTIFICATE_DIGEST: &str = "spiffe_authz.peer_certificate_digest";
/// Whether it was validated on this handshake: `true` or else.
pub(crate) const PEER_CERTIFICATE_VALID: &str = "spiffe_authz.peer_certificate_valid";
/// What Istio's tunnel (HBONE) has left of its client's certificate.
pub(crate) const PEER_PRINCIPAL: &str = "io.istio.peer_principal";
/// The other end of the connection, which Envoy tells network filters by itself: `%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%`.
pub(crate) const SOURCE_IP: &str = "spiffe_authz.source_ip";
/// The dynamic metadata of a filter, whose name follows, as JSON: `%DYNAMIC_METADATA(<name>)%`.
pub(crate) const METADATA_OF: &str = "spiffe_authz.metadata.";
/// The text that Envoy writes if there is no value.
const NOTHING: &[u8] = b"-";

/// The value that a format string of Envoy has written; `None` if it had nothing to write, or did not run.
pub(crate) fn written(state: Option<&[u8]>) -> Option<&[u8]> {
    state.filter(|value| !value.is_empty() && *value != NOTHING)
}

/// A value in its text form.
pub(crate) fn parse<T: FromStr>(text: &[u8]) -> Result<T, HostFailure> {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(HostFailure)
}
