//! Requests that continue while something changes, each of which must succeed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// A request, which checks its response.
pub type Request<'r> = &'r (dyn Fn() -> Result<()> + Sync);

/// The requests that were sent so far.
#[derive(Debug)]
pub struct Sent<'s>(&'s AtomicUsize);

impl Sent<'_> {
    /// Waits until `count` more requests were sent.
    ///
    /// # Errors
    /// Returns an error if that takes too long, as after a request that failed.
    pub fn wait_for(&self, count: usize) -> Result<()> {
        let now = || self.0.load(Ordering::Relaxed);
        let reached = now() + count;
        wait::until("the load continues", LIMIT, || Ok((now() >= reached).then_some(())))
    }
}

/// Sends each of the requests again and again, while `change` runs. Returns their number.
///
/// # Errors
/// Returns the first error of a request, or that of `change`.
pub fn during<const N: usize>(
    requests: [Request<'_>; N],
    change: impl FnOnce(&Sent<'_>) -> Result<()>,
) -> Result<usize> {
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads = requests.map(|request| {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    request()?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let changed = change(&Sent(&sent));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread panicked")?)?;
        changed
    })?;
    Ok(sent.into_inner())
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    #[test]
    fn requests_continue_until_the_change_is_complete() -> Result<()> {
        let count = during([&|| Ok(()), &|| Ok(())], |sent| sent.wait_for(10))?;
        ensure!(count >= 10, "{count}");
        Ok(())
    }

    #[test]
    fn the_error_of_a_request_is_the_cause() {
        let failed = AtomicBool::new(false);
        let fails = || {
            failed.store(true, Ordering::Relaxed);
            bail!("denied")
        };
        let change = |_: &Sent<'_>| {
            wait::until("a request fails", LIMIT, || Ok(failed.load(Ordering::Relaxed).then_some(())))?;
            bail!("the change failed, too")
        };
        assert_eq!(during([&fails], change).expect_err("an error").to_string(), "denied");
        let unchanged = during([&|| Ok(())], |_| bail!("nothing changed"));
        assert_eq!(unchanged.expect_err("an error").to_string(), "nothing changed");
    }
}
