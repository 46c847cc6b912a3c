//! A steady load of requests with known verdicts, while faults occur.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http::{Client, Response};
use crate::wait;

/// The pause between two requests of a caller.
const PACE: Duration = Duration::from_millis(10);
/// The number of times that a caller must get each of its verdicts in a row to count as recovered.
const ROUNDS: u64 = 3;

/// The reason for denying an expired SVID, in the body of a reply with details.
const SVID_EXPIRED: &str = "[svid-expired]";

/// A request and its expected verdict.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The host of the request.
    pub host: &'static str,
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// The expected verdict: `true` for allow.
    pub allowed: bool,
}

/// A caller, and its requests in turn.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name in reports.
    pub name: String,
    /// The address of the caller's Envoy.
    pub address: SocketAddr,
    /// The requests.
    pub calls: Vec<Call>,
}

/// The results of requests.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The number of requests.
    pub requests: u64,
    /// The wrong verdicts: an allowed request that must be denied, the reverse, or an unexpected response.
    pub wrong: Vec<String>,
    /// The numbers of requests without a verdict, by cause.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts a response or its absence. Returns `true` if the verdict is right.
    pub fn count(&mut self, caller: &str, call: &Call, answer: Result<Response>) -> bool {
        self.requests += 1;
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                self.error(error.root_cause().to_string());
                return false;
            }
        };
        match (response.status, call.allowed) {
            (200, true) | (403, false) => return true,
            // On an open connection, an SVID that SPIRE could not renew is denied. A new handshake fails: no verdict, too.
            (403, true) if response.text().contains(SVID_EXPIRED) => self.error(response.text().trim().to_owned()),
            (500.., _) => self.error(format!("{} {}", response.status, response.text().trim())),
            (status, _) => {
                let Call { host, method, path, .. } = call;
                self.wrong.push(format!("{caller}: {method} {host}{path}: {status} {}", response.text()));
            }
        }
        false
    }

    fn error(&mut self, cause: String) {
        *self.errors.entry(cause).or_default() += 1;
    }

    /// Returns the number of allowed requests that were denied because the SVID had expired.
    #[must_use]
    pub fn expired_count(&self) -> u64 {
        self.errors.iter().filter(|(cause, _)| cause.contains(SVID_EXPIRED)).map(|(_, count)| count).sum()
    }

    /// Returns the number of requests without a verdict.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        let Self { requests, wrong, errors } = other;
        self.requests += requests;
        self.wrong.extend(wrong);
        for (cause, count) in errors {
            *self.errors.entry(cause).or_default() += count;
        }
    }
}

/// Callers that send requests continuously. Dropping it stops them.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    /// For each caller, the number of right verdicts in [`ROUNDS`] rounds.
    enough: Vec<u64>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
    /// For each caller, the number of right verdicts since the last error or wrong verdict.
    in_a_row: Vec<AtomicU64>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // The counts are valid even if a thread panicked between two of them.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Starts a thread for each caller.
    #[must_use]
    pub fn start(callers: Vec<Caller>) -> Self {
        let in_a_row = callers.iter().map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), tally: Mutex::default(), in_a_row });
        let enough = callers.iter().map(|caller| ROUNDS * caller.calls.len() as u64).collect();
        let start = |(number, caller): (usize, Caller)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || ask(&caller, number, &shared))
        };
        let threads = callers.into_iter().enumerate().map(start).collect();
        Self { shared, enough, threads }
    }

    /// Returns the results of the requests so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// Waits until every caller gets the right verdicts, without an error in between. Returns the time that this took.
    ///
    /// # Errors
    /// Returns an error with the errors so far if this takes too long.
    pub fn recovered(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        self.shared.in_a_row.iter().for_each(|count| count.store(0, Ordering::SeqCst));
        let served = || {
            let counts = self.shared.in_a_row.iter().map(|count| count.load(Ordering::SeqCst));
            Ok(counts.zip(&self.enough).all(|(count, enough)| count >= *enough).then_some(()))
        };
        wait::until("every caller gets the right verdicts", limit, served)
            .map_err(|error| error.context(format!("{:?}", self.tally().errors)))?;
        Ok(start.elapsed())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // The panic of a thread is already printed.
            let _ = thread.join();
        }
    }
}

fn ask(caller: &Caller, number: usize, shared: &Shared) {
    let mut kept: Option<Client> = None;
    for call in caller.calls.iter().cycle() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let client = kept.take().map_or_else(|| Client::plain(caller.address), Ok);
        let answer = client.and_then(|mut client| {
            let response = client.request_of(call.host, call.method, call.path, &[])?;
            kept = Some(client);
            Ok(response)
        });
        let right = shared.tally().count(&caller.name, call, answer);
        let in_a_row = &shared.in_a_row[number];
        if right {
            in_a_row.fetch_add(1, Ordering::SeqCst);
        } else {
            in_a_row.store(0, Ordering::SeqCst);
        }
        thread::sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{Call, Response, Tally};

    #[test]
    fn distinguishes_wrong_verdicts_from_errors() {
        let response = |status| Ok(Response { status, headers: Vec::new(), body: b"UF why".to_vec() });
        for (allowed, answer, right, wrong, errors) in [
            (true, response(200), true, 0, 0),
            (false, response(403), true, 0, 0),
            (true, response(403), false, 1, 0),
            (false, response(200), false, 1, 0),
            (true, response(404), false, 1, 0),
            (false, response(404), false, 1, 0),
            (true, response(503), false, 0, 1),
            (false, response(503), false, 0, 1),
            (true, Err(anyhow!("closed")), false, 0, 1),
        ] {
            let what = format!("{allowed} {answer:?}");
            let mut tally = Tally::default();
            let call = Call { host: "h", method: "GET", path: "/", allowed };
            assert_eq!(tally.count("caller", &call, answer), right, "{what}");
            assert_eq!((tally.requests, tally.wrong.len(), tally.error_count()), (1, wrong, errors), "{what}");
        }
        let mut tally = Tally::default();
        let call = Call { host: "h", method: "GET", path: "/", allowed: true };
        tally.count("caller", &call, response(503));
        assert_eq!(tally.errors.get("503 UF why"), Some(&1));
    }
}
