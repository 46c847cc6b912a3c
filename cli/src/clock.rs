//! The time, and the moments that options give instead.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use spiffe_authz::timestamp::Timestamp;

/// Decides as if it were another time.
#[derive(clap::Args)]
pub(crate) struct At {
    /// The time of the request, such as `2026-01-31T12:00:00Z`. Policies with `notBefore` or `expires` depend on it. Default: now
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

impl At {
    /// Returns the time that was given, or else the current time.
    pub(crate) fn time(&self) -> io::Result<Timestamp> {
        self.at.map_or_else(now, Ok)
    }
}

/// Returns the current time.
pub(crate) fn now() -> io::Result<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    i64::try_from(since.as_secs()).map(Timestamp::from_seconds).map_err(io::Error::other)
}
