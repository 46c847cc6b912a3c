//! The filter against Istio's own translation of the same policies to Envoy's RBAC filter.
//!
//! Random AuthorizationPolicies go two ways: by `spiffe-authz import` to the filter, and by Istio's own code to the RBAC filters
//! that it would push. Random requests go through both, in one real Envoy. Whatever the filter lets in, Istio must let in; what
//! only Istio lets in must be a named difference.

mod bed;
mod policies;
mod requests;
mod shrink;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use serde_json::Value;

use bed::{Bed, Caller};
use policies::random_set;
use requests::{Sample, random_sample};

/// Requests for each set of policies.
const REQUESTS_PER_SET: usize = 1000;
/// Sets in one Envoy at a time.
const SETS_PER_BED: usize = 50;
const CALLERS_PER_SET: usize = 6;
const THREADS: usize = 4;

/// A set of AuthorizationPolicies, each with `name`, `namespace` and `spec`.
type PolicySet = Vec<Value>;

/// What came of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// Requests that both ways have decided.
    pub pairs: usize,
    /// Of them, those that were allowed by both.
    pub allowed: usize,
    /// Of them, those that only the filter denied, by the name of the difference.
    pub differences: BTreeMap<&'static str, usize>,
    /// How long it took.
    pub seconds: u64,
}

/// A request that is decided in two ways.
#[derive(Debug, Clone)]
struct Mismatch {
    set: PolicySet,
    caller: Caller,
    sample: Sample,
    ours: bool,
    istio: bool,
}

/// Compares `pairs` verdicts, made from `seed`.
///
/// # Errors
/// When a verdict differs and no named difference explains it: with the smallest case that still differs.
pub fn run(pairs: usize, seed: u64) -> Result<Summary> {
    let start = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let summary = Mutex::new(Summary::default());
    let mut left = pairs.div_ceil(REQUESTS_PER_SET);
    while left > 0 {
        let sets: Vec<PolicySet> = (0..left.min(SETS_PER_BED)).map(|_| random_set(&mut rng)).collect();
        left -= sets.len();
        if let Some(mismatch) = compare(&sets, &mut rng, &summary)? {
            bail!("seed {seed}: {}", shrink::shrink(mismatch)?);
        }
    }
    let mut summary = summary.into_inner().ok().context("a thread panicked")?;
    summary.seconds = start.elapsed().as_secs();
    Ok(summary)
}

/// Sends the requests of every set; the first unexplained difference, if there is one.
fn compare(sets: &[PolicySet], rng: &mut Rng, summary: &Mutex<Summary>) -> Result<Option<Mismatch>> {
    let bed = Bed::start(sets)?;
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
                        if let Some(mismatch) = compare_set(&bed, number, set, &mut rng, summary)? {
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

fn compare_set(
    bed: &Bed,
    number: usize,
    set: &PolicySet,
    rng: &mut Rng,
    summary: &Mutex<Summary>,
) -> Result<Option<Mismatch>> {
    let mut counts = Summary::default();
    for _ in 0..CALLERS_PER_SET {
        let caller = Caller::random(rng);
        let mut pair = bed.connect(number, &caller)?;
        for _ in 0..REQUESTS_PER_SET.div_ceil(CALLERS_PER_SET) {
            let sample = random_sample(rng);
            let (ours, istio) = pair.decide(&sample.bytes(&bed.tokens)).with_context(|| format!("{sample:?}"))?;
            counts.pairs += 1;
            counts.allowed += usize::from(ours && istio);
            if ours == istio {
                continue;
            }
            let mismatch = Mismatch { set: set.clone(), caller: caller.clone(), sample, ours, istio };
            match mismatch.difference() {
                Some(name) => *counts.differences.entry(name).or_default() += 1,
                None => return Ok(Some(mismatch)),
            }
        }
    }
    let mut summary = summary.lock().ok().context("a thread panicked")?;
    summary.pairs += counts.pairs;
    summary.allowed += counts.allowed;
    for (name, count) in counts.differences {
        *summary.differences.entry(name).or_default() += count;
    }
    Ok(None)
}

impl Mismatch {
    /// The named difference that explains a denial by the filter alone. None explains that it lets in more.
    fn difference(&self) -> Option<&'static str> {
        if self.ours {
            return None;
        }
        let text = Value::from(self.set.clone()).to_string();
        let names = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if self.caller.is_misshapen() {
            return Some("identity not of the pattern");
        }
        if self.caller.is_foreign()
            && names(&["amespaces\"", "erviceAccounts\"", "source.namespace", "source.serviceAccount"])
        {
            return Some("trust domain left unsaid");
        }
        if self.sample.repeats_header() && names(&["request.headers["]) {
            return Some("repeated header lines");
        }
        None
    }
}
