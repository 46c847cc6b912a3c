//! A steady load of requests whose verdicts are known, while things fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http::{Client, Response};
use crate::wait;

/// Between two requests of one caller.
const PACE: Duration = Duration::from_millis(10);
/// How often in a row a caller must get each of its verdicts, to be served again.
const ROUNDS: u64 = 3;

/// A request and its verdict.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The host that it asks for.
    pub host: &'static str,
    /// Its method.
    pub method: &'static str,
    /// Its path.
    pub path: &'static str,
    /// Whether it must be allowed.
    pub allowed: bool,
}

/// A caller, and what it asks for in turn.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name.
    pub name: String,
    /// Where its own Envoy takes its requests.
    pub address: SocketAddr,
    /// What it asks for.
    pub calls: Vec<Call>,
}

/// What became of requests.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many there were.
    pub requests: u64,
    /// Every wrong verdict: allowed where it must be denied, or the reverse, or an answer that nobody here gives.
    pub wrong: Vec<String>,
    /// Requests without a verdict, by cause: something on the way failed.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts an answer, or its absence; returns whether it was the right verdict.
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

    /// How many requests had no verdict.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        let Self { requests, wrong, errors } = other;
        self.requests += requests;
        self.wrong.extend(wrong);
        for (cause, count) in errors {
            *self.errors.entry(cause).or_default() += count;
        }
    }
}

/// Callers that ask all the time; ended when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    /// For each caller: how many right verdicts in a row make [`ROUNDS`] rounds.
    enough: Vec<u64>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
    /// For each caller: the right verdicts since the last that was not.
    in_a_row: Vec<AtomicU64>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counts stay good even if a thread panicked between two of them.
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

    /// What became of the requests so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// Waits until every caller gets its right verdicts, without an error between; returns how long that took.
    ///
    /// # Errors
    /// Returns an error if that is not so in time; with the errors so far.
    pub fn recovered(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        self.shared.in_a_row.iter().for_each(|count| count.store(0, Ordering::SeqCst));
        let served = || {
            let counts = self.shared.in_a_row.iter().map(|count| count.load(Ordering::SeqCst));
            Ok(counts.zip(&self.enough).all(|(count, enough)| count >= *enough).then_some(()))
        };
        wait::until("every caller is served again", limit, served)
            .map_err(|error| error.context(format!("{:?}", self.tally().errors)))?;
        Ok(start.elapsed())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic of a thread was printed by itself.
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
    fn tells_wrong_verdicts_from_errors() {
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
