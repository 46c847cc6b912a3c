//! Values that Envoy's format strings write to filter state.

use std::str::FromStr;

use spiffe_authz::host::HostFailure;

/// The string that Envoy writes if there is no value.
const NOTHING: &[u8] = b"-";

/// Returns the value that a format string wrote, or `None` if there was no value or the format string was not evaluated.
pub(crate) fn written(state: Option<&[u8]>) -> Option<&[u8]> {
    state.filter(|value| !value.is_empty() && *value != NOTHING)
}

/// Parses a value.
pub(crate) fn parse<T: FromStr>(text: &[u8]) -> Result<T, HostFailure> {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(HostFailure)
}
