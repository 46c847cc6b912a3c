//! The tables of results, and the comparison with the targets.

use std::fs;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::tools;

use crate::load::{CLIENTS, Load, Measured, STREAMS};
use crate::policies::Kind;
use crate::statistics::{compared, median, quantiles, spread};
use crate::targets::{Limit, Target};
use crate::variants::{Decider, Subject};

/// Prints the results as Markdown.
pub(crate) fn print(load: &Load, measured: &[Measured]) -> Result<()> {
    let Load { requests, connections, rounds } = load;
    println!(
        "Rounds: {rounds}, each of {requests} requests over {CLIENTS} mTLS connections, of as many over one HTTP/2 connection with \
         {STREAMS} streams at once, and of {connections} new connections with a request each.\n"
    );
    let results = Results(measured);
    println!(
        "| Variant | µs per request | over no filter | HTTP/2: µs per request | over no filter | µs per new connection | \
         over no filter | connections a second | relative to no filter |\n|---|---|---|---|---|---|---|---|---|"
    );
    let bare = results.of(Subject::plain(Decider::Nothing))?;
    let difference = |one: &[f64], other: &[f64]| compared(one, other, |one, other| one - other);
    for row in measured {
        println!(
            "| {} | {} | {:+.1} | {} | {:+.1} | {} | {:+.0} | {:.0} | {:.2} |",
            row.subject.name(),
            spread(&row.request),
            difference(&row.request, &bare.request),
            spread(&row.stream),
            difference(&row.stream, &bare.stream),
            spread(&row.connection),
            difference(&row.connection, &bare.connection),
            median(&row.rate),
            results.share_of_rate(row.subject)?
        );
    }
    println!("\n| Latency of a request, µs | p50 | p99 | p99.9 |\n|---|---|---|---|");
    for Measured { subject, latency, .. } in measured {
        let [half, most, nearly_all] = quantiles(latency, [0.5, 0.99, 0.999]);
        println!("| {} | {half:.0} | {most:.0} | {nearly_all:.0} |", subject.name());
    }
    crate::targets::print(&results.targets()?);
    Ok(())
}

const WASM: Decider = Decider::Ours(Adapter::Wasm);
const MODULE: Decider = Decider::Ours(Adapter::Module);

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

    /// Returns the rate of new connections, relative to no filter.
    fn share_of_rate(&self, subject: Subject) -> Result<f64> {
        let bare = &self.of(Subject::plain(Decider::Nothing))?.rate;
        Ok(compared(&self.of(subject)?.rate, bare, |rate, bare| rate / bare))
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let paths = |decider, count| Subject::of(decider, Kind::Paths, count);
        let times = |ours, peer| -> Result<f64> { Ok(self.over_no_filter(ours)? / self.over_no_filter(peer)?) };
        let size = fs::metadata(tools::path(tools::WASM)?)?.len();
        let target = |name: &str, limit, unit, measured| Target { name: name.to_owned(), limit, unit, measured };
        Ok(vec![
            target(
                "module over RBAC, 1 policy, both over no filter",
                Limit::AtMost(1.0),
                "",
                times(paths(MODULE, 1), paths(Decider::IstiosRbac, 1))?,
            ),
            target(
                "module over RBAC's matcher tree, 1,000 policies, both over no filter",
                Limit::AtMost(1.0),
                "",
                times(paths(MODULE, 1000), paths(Decider::MatcherTree, 1000))?,
            ),
            target(
                "Wasm, 1 policy, over an empty Wasm filter",
                Limit::AtMost(3.0),
                " µs",
                self.over(paths(WASM, 1), Subject::plain(Decider::EmptyWasm))?,
            ),
            target(
                "rate of new connections with the module, of no filter",
                Limit::AtLeast(0.95),
                "",
                self.share_of_rate(paths(MODULE, 1))?,
            ),
            target(
                "rate of new connections with Wasm, of no filter",
                Limit::AtLeast(0.93),
                "",
                self.share_of_rate(paths(WASM, 1))?,
            ),
            target("size of `spiffe-authz.wasm`", Limit::AtMost(500.0), " kB", f64::from(u32::try_from(size)?) / 1e3),
        ])
    }
}
