//! Compares the filter with Istio's own translation of the same policies to Envoy's RBAC filter.
//!
//! `spiffe-authz import` converts random AuthorizationPolicies for the filter, and Istio's code converts them to the
//! RBAC filters that istiod would push. Both decide the same random requests or TCP connections in one real Envoy. If
//! the filter allows a request, Istio must allow it. If only Istio allows it, a named difference must explain this.

mod environment;
mod policies;
mod requests;
mod shrink;
mod witnesses;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use serde_json::Value;

use environment::{Caller, Environment};
pub use environment::{Comparison, Layer};
use policies::random_set;
use requests::{Sample, random_sample};
pub use witnesses::{Sent, send_examples};

use crate::bootstrap::Adapter;
use crate::istio::PolicySet;

/// Requests for each set of policies. For connections, there is one for each caller.
const REQUESTS_PER_SET: usize = 1000;
/// The number of sets in one Envoy.
const SETS_PER_ENVOY: usize = 50;
const CALLERS_PER_SET: usize = 6;
const THREADS: usize = 4;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of requests or connections.
    pub pairs: usize,
    /// Those that both allowed.
    pub allowed: usize,
    /// Those that only the filter denied, by the name of the difference.
    pub differences: BTreeMap<&'static str, usize>,
    /// The duration.
    pub seconds: u64,
}

/// A request or connection with both verdicts.
#[derive(Debug, Clone)]
struct Mismatch {
    comparison: Comparison,
    set: PolicySet,
    caller: Caller,
    /// The request. A connection has none.
    sample: Option<Sample>,
    ours: bool,
    istio: bool,
}

/// Compares `pairs` verdicts, generated from `seed`.
///
/// # Errors
/// Returns an error with the smallest failing case if verdicts differ and no named difference explains it.
pub fn run(comparison: Comparison, pairs: usize, seed: u64) -> Result<Summary> {
    let start = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let summary = Mutex::new(Summary::default());
    let pairs_per_set = match comparison.layer {
        Layer::Http => REQUESTS_PER_SET,
        Layer::Tcp => Caller::ALL,
    };
    let mut left = pairs.div_ceil(pairs_per_set);
    while left > 0 {
        let sets: Vec<PolicySet> =
            (0..left.min(SETS_PER_ENVOY)).map(|_| random_set(&mut rng, comparison.layer)).collect();
        left -= sets.len();
        if let Some(mismatch) = compare(comparison, &sets, &mut rng, &summary)? {
            bail!("seed {seed}: {}", shrink::shrink(mismatch)?);
        }
    }
    let mut summary = summary.into_inner().ok().context("a thread panicked")?;
    summary.seconds = start.elapsed().as_secs();
    Ok(summary)
}

/// Sends the requests of every set, or connects. Returns the first unexplained difference.
fn compare(
    comparison: Comparison,
    sets: &[PolicySet],
    rng: &mut Rng,
    summary: &Mutex<Summary>,
) -> Result<Option<Mismatch>> {
    let environment = Environment::start(comparison, sets)?;
    let work: Vec<(usize, Rng)> = (0..sets.len()).map(|number| (number, rng.fork())).collect();
    let queue = Mutex::new(work.into_iter());
    let next = || queue.lock().ok()?.next();
    let found = Mutex::new(None);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some((number, mut rng)) = next() {
                        if found.lock().is_ok_and(|found| found.is_some()) {
                            break;
                        }
                        let set = &sets[number];
                        let compared = match comparison.layer {
                            Layer::Http => compare_requests(&environment, number, set, &mut rng, summary)?,
                            Layer::Tcp => compare_connections(&environment, number, set, summary)?,
                        };
                        if let Some(mismatch) = compared {
                            *found.lock().ok().context("a thread panicked")? = Some(mismatch);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
    })?;
    found.into_inner().ok().context("a thread panicked")
}

fn compare_requests(
    environment: &Environment,
    number: usize,
    set: &PolicySet,
    rng: &mut Rng,
    summary: &Mutex<Summary>,
) -> Result<Option<Mismatch>> {
    let mut counts = Summary::default();
    for _ in 0..CALLERS_PER_SET {
        let caller = Caller::random(rng);
        let mut pair = environment.connect(number, &caller)?;
        for _ in 0..REQUESTS_PER_SET.div_ceil(CALLERS_PER_SET) {
            let sample = random_sample(rng);
            let (ours, istio) =
                pair.decide(&sample.bytes(&environment.tokens)).with_context(|| format!("{sample:?}"))?;
            let (set, caller) = (set.clone(), caller.clone());
            let decided =
                Mismatch { comparison: environment.comparison, set, caller, sample: Some(sample), ours, istio };
            if let Some(mismatch) = counts.add(decided) {
                return Ok(Some(mismatch));
            }
        }
    }
    counts.add_to(summary)
}

fn compare_connections(
    environment: &Environment,
    number: usize,
    set: &PolicySet,
    summary: &Mutex<Summary>,
) -> Result<Option<Mismatch>> {
    let mut counts = Summary::default();
    for caller in Caller::all() {
        let (ours, istio) = environment.admits(number, &caller)?;
        let decided =
            Mismatch { comparison: environment.comparison, set: set.clone(), caller, sample: None, ours, istio };
        if let Some(mismatch) = counts.add(decided) {
            return Ok(Some(mismatch));
        }
    }
    counts.add_to(summary)
}

impl Summary {
    /// Counts a pair of verdicts. Returns it if the verdicts differ and no named difference explains it.
    fn add(&mut self, decided: Mismatch) -> Option<Mismatch> {
        self.pairs += 1;
        self.allowed += usize::from(decided.ours && decided.istio);
        if decided.ours == decided.istio {
            return None;
        }
        let Some(name) = decided.difference() else { return Some(decided) };
        *self.differences.entry(name).or_default() += 1;
        None
    }

    fn add_to(self, summary: &Mutex<Self>) -> Result<Option<Mismatch>> {
        let mut summary = summary.lock().ok().context("a thread panicked")?;
        summary.pairs += self.pairs;
        summary.allowed += self.allowed;
        for (name, count) in self.differences {
            *summary.differences.entry(name).or_default() += count;
        }
        Ok(None)
    }
}

/// Returns `true` if a rule can name callers without their trust domain, which the filter takes for the local one.
fn omits_trust_domain(set: &PolicySet) -> bool {
    let text = Value::from(set.clone()).to_string();
    ["amespaces\"", "erviceAccounts\"", "source.namespace", "source.serviceAccount"]
        .iter()
        .any(|name| text.contains(name))
}

impl Mismatch {
    /// Returns the named difference that explains why only the filter denies. Nothing explains the reverse.
    fn difference(&self) -> Option<&'static str> {
        if self.ours {
            return None;
        }
        let text = Value::from(self.set.clone()).to_string();
        let names = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if self.caller.is_malformed() {
            return Some("identity that does not match the pattern");
        }
        if self.caller.is_federated() && omits_trust_domain(&self.set) {
            return Some("omitted trust domain");
        }
        let by_module = self.comparison == Comparison { layer: Layer::Tcp, adapter: Adapter::Module };
        if by_module && names(&["experimental.envoy.filters."]) {
            return Some("metadata that Envoy does not expose");
        }
        if self.sample.as_ref().is_some_and(Sample::repeats_header) && names(&["request.headers["]) {
            return Some("repeated header lines");
        }
        if self.sample.as_ref().is_some_and(Sample::joins_header) && names(&["request.headers["]) {
            return Some("joined header lines");
        }
        if self.sample.as_ref().is_some_and(Sample::has_path_parameters) && names(&["aths\""]) {
            return Some("path parameters");
        }
        if self.sample.as_ref().is_some_and(Sample::has_decorated_host) && names(&["osts\""]) {
            return Some("host with user information or a trailing dot");
        }
        None
    }
}
