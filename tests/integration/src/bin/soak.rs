//! Injects faults in random order under a steady load for a given time, and prints a report.
//!
//! Run it with `cargo xtask soak`, which provides the programs that it needs. Arguments: the adapter, the minutes, and
//! the seed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::fault::{Fault, Faults, Outcome, STEADY, callers};
use spiffe_authz_integration::federation::{Changes, FEDERATED, Federation, LOCAL};
use spiffe_authz_integration::load::{Load, Tally};
use spiffe_authz_integration::scratch::Scratch;

/// The time before the first measurement of memory.
const WARM_UP: Duration = Duration::from_secs(10);
/// The duration of a fault that has no end, in seconds. Some are longer than the lifetime of an SVID.
const FAULT_DURATION: std::ops::RangeInclusive<u64> = 1..=25;
/// The pause between two faults, in seconds.
const CALM: std::ops::RangeInclusive<u64> = 0..=3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let adapter: Adapter = arguments.next().context("which adapter?")?.parse()?;
    let minutes: u64 = arguments.next().context("expected a number of minutes")?.parse()?;
    let seed = arguments.next().map_or_else(|| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("soak: {adapter}, {minutes} minutes, seed {seed}");
    let mut random = Rng::with_seed(seed);
    let scratch = Scratch::new()?;
    let mut environment = Federation::start(scratch.path(), Changes { adapter, ..STEADY })?;
    let load = Load::start(callers(&environment)?);
    thread::sleep(WARM_UP);
    let before = memory(&environment)?;

    let (start, length) = (Instant::now(), Duration::from_secs(60 * minutes));
    let mut faults = Faults::on(&mut environment)?;
    let (mut due, mut outcomes) = (Vec::new(), Vec::new());
    let mut end = Ok(());
    while start.elapsed() < length && end.is_ok() {
        // Each fault occurs once before one occurs again.
        if due.is_empty() {
            due = Fault::all(adapter);
            random.shuffle(&mut due);
        }
        let Some(fault) = due.pop() else { break };
        let duration = Duration::from_secs(random.u64(FAULT_DURATION));
        end = faults.run(fault, duration, &load).map(|outcome| {
            println!("{:>5} s  {outcome}", start.elapsed().as_secs());
            outcomes.push(outcome);
        });
        if end.is_ok() && !(load.tally().wrong.is_empty() && faults.flooded.wrong.is_empty()) {
            break;
        }
        thread::sleep(Duration::from_secs(random.u64(CALM)));
    }
    let Faults { flooded, fastest_flood, .. } = faults;
    let (lasted, steady, after) = (start.elapsed(), load.tally(), memory(&environment)?);
    let report = Report { adapter, seed, lasted, steady, flooded, fastest_flood, outcomes, before, after };
    report.print();
    end?;
    report.check()
}

/// The memory of each Envoy, in bytes.
type Memory = [(&'static str, u64); 4];

fn memory(environment: &Federation<'_>) -> Result<Memory> {
    Ok([
        ("httpbin (current)", environment.httpbin.memory()?),
        ("gateway", environment.gateway.memory()?),
        ("client, local domain", environment.caller(LOCAL, "sleep")?.memory()?),
        ("client, federated domain", environment.caller(FEDERATED, "sleep")?.memory()?),
    ])
}

struct Report {
    adapter: Adapter,
    seed: u64,
    lasted: Duration,
    steady: Tally,
    flooded: Tally,
    fastest_flood: f64,
    outcomes: Vec<Outcome>,
    before: Memory,
    after: Memory,
}

impl Report {
    fn check(&self) -> Result<()> {
        let wrong = [self.steady.wrong.as_slice(), &self.flooded.wrong].concat();
        ensure!(wrong.is_empty(), "{} wrong verdicts:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(!self.outcomes.is_empty(), "no fault was injected");
        Ok(())
    }

    /// Prints the report as Markdown.
    fn print(&self) {
        let Self { adapter, seed, lasted, steady, flooded, fastest_flood, outcomes, before, after } = self;
        println!("\n{adapter}, {:.1} minutes, seed {seed}:\n", lasted.as_secs_f64() / 60.0);
        println!("| | |\n|---|---|");
        println!(
            "| Requests of the steady load | {} ({} a second) |",
            steady.requests,
            steady.requests / lasted.as_secs()
        );
        println!(
            "| Connections of floods, one request each | {} (up to {fastest_flood:.0} a second) |",
            flooded.requests
        );
        println!("| Wrong verdicts | {} |", steady.wrong.len() + flooded.wrong.len());
        println!("| Requests without a verdict | {} |", steady.error_count() + flooded.error_count());
        println!("\n| Fault | Times | Recovered after, at most |\n|---|---|---|");
        let mut by_fault: BTreeMap<String, (u32, Duration)> = BTreeMap::new();
        for outcome in outcomes {
            let (times, recovery) = by_fault.entry(outcome.fault.to_string()).or_default();
            *times += 1;
            *recovery = outcome.recovery.max(*recovery);
        }
        for (fault, (times, recovery)) in by_fault {
            println!("| {fault} | {times} | {:.1} s |", recovery.as_secs_f64());
        }
        let mut errors = steady.clone();
        errors.add(flooded.clone());
        println!("\n| Requests without a verdict: status, Envoy's response flags and details | |\n|---|---|");
        for (cause, count) in &errors.errors {
            println!("| `{}` | {count} |", cause.replace('|', "/"));
        }
        println!("\n| Envoy | Memory at the start | At the end |\n|---|---|---|");
        for ((name, before), (_, after)) in before.iter().zip(after) {
            println!("| {name} | {:.1} MB | {:.1} MB |", megabytes(*before), megabytes(*after));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "approximate output")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
