//! Measures Envoy's CPU time and the latency of requests, with and without the filter, and with Envoy's own filters.
//! Also measures the compilation of 10,000 policies inside Envoy. Prints Markdown for bench/README.md.
//!
//! Run it with `cargo xtask bench`, which provides the programs that it needs. Arguments: requests for each round,
//! connections for each round, rounds, and the file of the plot. With `open-connections` and a number of rounds, it
//! measures requests while many connections are open. With `updates` and a number of updates, it measures requests while
//! the policies change. With `instructions`, it counts Envoy's instructions.

mod authorization_server;
mod instructions;
mod load;
mod machine;
mod open_connections;
mod peers;
mod plot;
mod policies;
mod report;
mod statistics;
mod targets;
mod updates;
mod variants;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::fixture::{Fixture, Validation};

use load::Load;
use variants::{Configured, Fixtures};

const OPEN_CONNECTIONS: &str = "open-connections";
const UPDATES: &str = "updates";
const INSTRUCTIONS: &str = "instructions";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == open_connections::HOLD).is_some() {
        let mut next = || arguments.next().context("expected an address, a file, and a number of connections");
        return open_connections::hold(next()?.parse()?, &PathBuf::from(next()?), next()?.parse()?);
    }
    let mode = arguments.next_if(|first| [OPEN_CONNECTIONS, UPDATES, INSTRUCTIONS].contains(&&**first));
    let mut number = |what: &str| -> Result<u32> {
        Ok(arguments.next().with_context(|| format!("expected a number of {what}"))?.parse()?)
    };
    println!("{}\n", machine::describe()?);
    match mode.as_deref() {
        Some(OPEN_CONNECTIONS) => open_connections::run(number("rounds")?),
        Some(UPDATES) => updates::run(number("updates")?),
        Some(_) => {
            let part = arguments.next().context("expected a part of a name")?;
            with_fixtures(|fixtures| instructions::run(fixtures, &part))
        }
        None => {
            let (requests, connections) = (number("requests")?, number("connections")?);
            let load = Load { requests, connections, rounds: number("rounds")? };
            let file = arguments.next().context("expected a file for the plot")?;
            with_fixtures(|fixtures| compare(fixtures, &load, Path::new(&file)))
        }
    }
}

fn with_fixtures(run: impl FnOnce(&Fixtures<'_>) -> Result<()>) -> Result<()> {
    let wasm = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let module = Fixture::new(Adapter::Module, Validation::Spiffe)?;
    run(&Fixtures::new(&wasm, &module)?)
}

/// Measures every variant, and draws the plot.
fn compare(fixtures: &Fixtures<'_>, load: &Load, file: &Path) -> Result<()> {
    let compilation = fixtures.compiling()?;
    let variants = fixtures.variants()?.iter().map(Configured::start).collect::<Result<_>>()?;
    let measured = load.measure(variants)?;
    report::print(load, &measured)?;
    println!("\n{compilation}");
    plot::draw(file, &measured)?;
    eprintln!("\nThe plot is {}.", file.display());
    Ok(())
}
