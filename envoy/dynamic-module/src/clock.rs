//! The time, from the operating system.

use std::time::{SystemTime, UNIX_EPOCH};

use spiffe_authz::host::HostFailure;
use spiffe_authz::timestamp::Timestamp;

/// Returns the current time.
pub(crate) fn now() -> Result<Timestamp, HostFailure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| HostFailure)?;
    i64::try_from(since.as_secs()).map(Timestamp::from_seconds).map_err(|_| HostFailure)
}
