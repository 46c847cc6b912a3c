//! The table of results, and the comparison with the targets.

use anyhow::{Context as _, Result};
use spiffe_authz_integration::bootstrap::Adapter;

use crate::load::{CLIENTS, Load, Measured, median, quantile};
use crate::policies::Kind;
use crate::variants::{Decider, Subject};

const WASM: Decider = Decider::Ours(Adapter::Wasm);
const MODULE: Decider = Decider::Ours(Adapter::Module);

pub(crate) fn print(load: &Load, measured: &[Measured]) -> Result<()> {
    let Load { requests, connections, rounds } = load;
    println!(
        "{rounds} rounds of {requests} requests over {CLIENTS} mTLS connections, and of {connections} connections with a"
    );
    println!(
        "request each. Envoy's CPU time, user and system, in microseconds: median (the middle half of the rounds)."
    );
    println!(
        "The columns \"over no filter\" and \"relative to no filter\" are medians of comparisons within a round.\n"
    );
    println!(
        "| Variant | µs per request | over no filter | µs per new connection | connections a second | relative to no filter |"
    );
    println!("|---|---|---|---|---|---|");
    let results = Results(measured);
    for Measured { subject, request, connection, rate } in measured {
        println!(
            "| {} | {} | {:+.1} | {} | {:.0} | {:.2} |",
            subject.name(),
            spread(request),
            results.over_no_filter(*subject)?,
            spread(connection),
            median(rate),
            results.share_of_rate(*subject)?
        );
    }
    println!("\n| Target | Limit | Measured | |\n|---|---|---|---|");
    for (target, wanted, value, met) in results.targets()? {
        println!("| {target} | {wanted} | {value:.2} | {} |", if met { "met" } else { "missed" });
    }
    Ok(())
}

pub(crate) fn spread(values: &[f64]) -> String {
    format!("{:.1} ({:.1} to {:.1})", median(values), quantile(values, 1, 4), quantile(values, 3, 4))
}

/// Returns the median of `compare` over the rounds.
pub(crate) fn compared(ones: &[f64], others: &[f64], compare: impl Fn(f64, f64) -> f64) -> f64 {
    let of_rounds: Vec<f64> = ones.iter().zip(others).map(|(one, other)| compare(*one, *other)).collect();
    median(&of_rounds)
}

/// A target, its limit, the measurement, and whether the target is met.
type Target = (&'static str, &'static str, f64, bool);

/// All measurements.
pub(crate) struct Results<'m>(pub(crate) &'m [Measured]);

impl Results<'_> {
    fn of(&self, subject: Subject) -> Result<&Measured> {
        let found = self.0.iter().find(|measured| measured.subject == subject);
        found.with_context(|| format!("{} was not measured", subject.name()))
    }

    /// Returns the microseconds of a request with this subject beyond those without a filter.
    pub(crate) fn over_no_filter(&self, subject: Subject) -> Result<f64> {
        self.over(subject, Subject::plain(Decider::Nothing))
    }

    /// Returns the microseconds of a request with the one subject beyond those with the other.
    fn over(&self, one: Subject, other: Subject) -> Result<f64> {
        Ok(compared(&self.of(one)?.request, &self.of(other)?.request, |one, other| one - other))
    }

    /// Returns the time of a request with the one subject, as a multiple of the other.
    fn growth(&self, one: Subject, other: Subject) -> Result<f64> {
        Ok(compared(&self.of(one)?.request, &self.of(other)?.request, |one, other| one / other))
    }

    /// Returns the rate of new connections, relative to no filter.
    fn share_of_rate(&self, subject: Subject) -> Result<f64> {
        let bare = &self.of(Subject::plain(Decider::Nothing))?.rate;
        Ok(compared(&self.of(subject)?.rate, bare, |rate, bare| rate / bare))
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let paths = |decider, count| Subject::of(decider, Kind::Paths, count);
        let callers = |decider| Subject::of(decider, Kind::Callers, 1000);
        let over = |subject| self.over_no_filter(subject);
        let rbac = Decider::IstiosRbac;
        let mut targets = Vec::new();
        let mut at_most =
            |target, wanted, value: f64, limit: f64| targets.push((target, wanted, value, value <= limit));
        at_most(
            "Module at 1 policy, over RBAC at 1 policy (both over no filter)",
            "≤ 1",
            over(paths(MODULE, 1))? / over(paths(rbac, 1))?,
            1.0,
        );
        at_most(
            "Module at 10,000 policies, over 10",
            "≤ 1.1",
            self.growth(paths(MODULE, 10_000), paths(MODULE, 10))?,
            1.1,
        );
        at_most("Wasm at 10,000 policies, over 10", "≤ 1.1", self.growth(paths(WASM, 10_000), paths(WASM, 10))?, 1.1);
        at_most(
            "Wasm at 1 policy, µs over an empty Wasm filter",
            "≤ 4",
            self.over(paths(WASM, 1), Subject::plain(Decider::EmptyWasm))?,
            4.0,
        );
        let mut at_least =
            |target, wanted, value: f64, limit: f64| targets.push((target, wanted, value, value >= limit));
        let times = |rbac, ours| -> Result<f64> { Ok(over(rbac)? / over(ours)?) };
        at_least("RBAC over module, 1,000 policies", "≥ 300", times(paths(rbac, 1000), paths(MODULE, 1000))?, 300.0);
        at_least("RBAC over module, 1,000 of serviceAccounts", "≥ 300", times(callers(rbac), callers(MODULE))?, 300.0);
        at_least("RBAC over Wasm, 1,000 policies", "≥ 60", times(paths(rbac, 1000), paths(WASM, 1000))?, 60.0);
        at_least("RBAC over Wasm, 1,000 of serviceAccounts", "≥ 60", times(callers(rbac), callers(WASM))?, 60.0);
        at_least(
            "New connections a second with the module, relative to no filter",
            "≥ 0.97",
            self.share_of_rate(paths(MODULE, 1))?,
            0.97,
        );
        at_least(
            "New connections a second with Wasm, relative to no filter",
            "≥ 0.97",
            self.share_of_rate(paths(WASM, 1))?,
            0.97,
        );
        Ok(targets)
    }
}
