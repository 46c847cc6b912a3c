//! The table, and whether the targets are met.

use anyhow::{Context as _, Result};
use spiffe_authz_integration::bootstrap::Adapter;

use crate::load::{CLIENTS, Load, Measured, median};
use crate::policies::Kind;
use crate::variants::{Decider, Subject};

const WASM: Decider = Decider::Ours(Adapter::Wasm);
const MODULE: Decider = Decider::Ours(Adapter::Module);

pub(crate) fn print(load: &Load, measured: &[Measured]) -> Result<()> {
    let Load { requests, connections, rounds } = load;
    println!(
        "{rounds} rounds of {requests} requests over {CLIENTS} mTLS connections, and of {connections} connections with a"
    );
    println!("request each. Envoy's CPU time, user and system, in microseconds: median (lowest to highest round).\n");
    println!("| Variant | µs per request | over no filter | µs per new connection | connections a second |");
    println!("|---|---|---|---|---|");
    let results = Results(measured);
    for Measured { subject, request, connection, rate } in measured {
        println!(
            "| {} | {} | {:+.1} | {} | {:.0} |",
            subject.name(),
            spread(request),
            results.over_no_filter(*subject)?,
            spread(connection),
            median(rate)
        );
    }
    println!("\n| Target | Wanted | Measured | |\n|---|---|---|---|");
    for (target, wanted, value, met) in results.targets()? {
        println!("| {target} | {wanted} | {value:.2} | {} |", if met { "met" } else { "missed" });
    }
    Ok(())
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({low:.1} to {high:.1})", median(values))
}

/// A target, what is wanted, what was measured, and whether that is enough.
type Target = (&'static str, &'static str, f64, bool);

/// Everything that was measured.
pub(crate) struct Results<'m>(pub(crate) &'m [Measured]);

impl Results<'_> {
    fn of(&self, subject: Subject) -> Result<&Measured> {
        let found = self.0.iter().find(|measured| measured.subject == subject);
        found.with_context(|| format!("{} was not measured", subject.name()))
    }

    fn request(&self, subject: Subject) -> Result<f64> {
        Ok(median(&self.of(subject)?.request))
    }

    fn rate(&self, subject: Subject) -> Result<f64> {
        Ok(median(&self.of(subject)?.rate))
    }

    /// Microseconds that a request takes more than without filter.
    pub(crate) fn over_no_filter(&self, subject: Subject) -> Result<f64> {
        Ok(self.request(subject)? - self.request(Subject::plain(Decider::Nothing))?)
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
            self.request(paths(MODULE, 10_000))? / self.request(paths(MODULE, 10))?,
            1.1,
        );
        at_most(
            "Wasm at 10,000 policies, over 10",
            "≤ 1.1",
            self.request(paths(WASM, 10_000))? / self.request(paths(WASM, 10))?,
            1.1,
        );
        at_most(
            "Wasm at 1 policy, µs over an empty Wasm filter",
            "≤ 4",
            self.request(paths(WASM, 1))? - self.request(Subject::plain(Decider::EmptyWasm))?,
            4.0,
        );
        let mut at_least =
            |target, wanted, value: f64, limit: f64| targets.push((target, wanted, value, value >= limit));
        let times = |rbac, ours| -> Result<f64> { Ok(over(rbac)? / over(ours)?) };
        at_least("RBAC over module, 1,000 policies", "≥ 300", times(paths(rbac, 1000), paths(MODULE, 1000))?, 300.0);
        at_least("RBAC over module, 1,000 of serviceAccounts", "≥ 300", times(callers(rbac), callers(MODULE))?, 300.0);
        at_least("RBAC over Wasm, 1,000 policies", "≥ 60", times(paths(rbac, 1000), paths(WASM, 1000))?, 60.0);
        at_least("RBAC over Wasm, 1,000 of serviceAccounts", "≥ 60", times(callers(rbac), callers(WASM))?, 60.0);
        let bare = self.rate(Subject::plain(Decider::Nothing))?;
        at_least(
            "New connections a second with the module, of those without filter",
            "≥ 0.97",
            self.rate(paths(MODULE, 1))? / bare,
            0.97,
        );
        at_least(
            "New connections a second with Wasm, of those without filter",
            "≥ 0.97",
            self.rate(paths(WASM, 1))? / bare,
            0.97,
        );
        Ok(targets)
    }
}
