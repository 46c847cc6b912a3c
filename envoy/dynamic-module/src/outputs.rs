//! What operators and later filters see: dynamic metadata, filter state, a counter with labels, and Envoy's log.

use std::time::{SystemTime, UNIX_EPOCH};

use spiffe_authz::request::HostFailure;
use spiffe_authz::timestamp::Timestamp;

/// The namespace of the dynamic metadata.
pub(crate) const METADATA: &str = crate::NAME;
/// The counter.
pub(crate) const COUNTER: &str = "spiffe_authz_decisions";
/// Its labels: those of `Count`, told apart from the labels of others.
pub(crate) const LABELS: [&str; 4] =
    ["spiffe_authz_mode", "spiffe_authz_verdict", "spiffe_authz_reason", "spiffe_authz_policy"];

/// The time.
pub(crate) fn now() -> Result<Timestamp, HostFailure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| HostFailure)?;
    i64::try_from(since.as_secs()).map(Timestamp::from_seconds).map_err(|_| HostFailure)
}
