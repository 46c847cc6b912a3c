//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls `condition` until it gives a value.
///
/// # Errors
/// When the deadline passes; the error names `what`, and the last failure of `condition`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() >= deadline => anyhow::bail!("{what}: not so after {} s", limit.as_secs()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not so after {} s", limit.as_secs()));
            }
            _ => thread::sleep(POLL_INTERVAL),
        }
    }
}
