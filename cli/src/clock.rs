//! The current time, and the time in the option `--at`.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use spiffe_authz::timestamp::Timestamp;

/// The time of a decision.
#[derive(clap::Args)]
pub(crate) struct At {
    /// The time of the decision, such as `2026-01-31T12:00:00Z`, for `notBefore` and `expires` [default: now]
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

impl At {
    /// Returns the time in the option, or the current time without it.
    pub(crate) fn time(&self) -> io::Result<Timestamp> {
        self.at.map_or_else(now, Ok)
    }
}

/// Returns the current time.
pub(crate) fn now() -> io::Result<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    i64::try_from(since.as_secs()).map(Timestamp::from_seconds).map_err(io::Error::other)
}
