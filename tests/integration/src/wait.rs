//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls `condition` until it returns a value. If a failure is temporary, `condition` returns `Ok(None)`.
///
/// # Errors
/// Returns an error if the deadline passes, or immediately if `condition` fails.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < deadline, "{what}: not within {} s", limit.as_secs());
        thread::sleep(POLL_INTERVAL);
    }
}
