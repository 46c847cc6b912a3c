//! Measures Envoy's CPU time for a request with and without the filter, and with Istio's RBAC filter and the same
//! policies. Also measures the compilation of 10,000 policies inside Envoy.
//!
//! Run it with `cargo xtask bench`, which provides the programs that it needs. Arguments: requests for each round,
//! connections for each round, rounds, and the file of the plot. With `open-connections` and a number of rounds, it
//! measures requests while many connections are open.

mod load;
mod open_connections;
mod plot;
mod policies;
mod report;
mod variants;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::fixture::{Fixture, Validation};

use load::Load;
use variants::Fixtures;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == "open-connections").is_some() {
        return open_connections::run(arguments.next().context("expected a number of rounds")?.parse()?);
    }
    if arguments.next_if(|first| first == open_connections::HOLD).is_some() {
        let mut next = || arguments.next().context("expected an address, a file, and a number of connections");
        return open_connections::hold(next()?.parse()?, &PathBuf::from(next()?), next()?.parse()?);
    }
    let mut number = |what: &str| -> Result<u32> {
        Ok(arguments.next().with_context(|| format!("expected a number of {what}"))?.parse()?)
    };
    let load = Load { requests: number("requests")?, connections: number("connections")?, rounds: number("rounds")? };
    let file = PathBuf::from(arguments.next().context("expected a file for the plot")?);
    let wasm = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let module = Fixture::new(Adapter::Module, Validation::Spiffe)?;
    let fixtures = Fixtures::new(&wasm, &module)?;
    println!("{}\n", fixtures.compiling()?);
    let measured = load.measure(fixtures.variants()?)?;
    report::print(&load, &measured)?;
    plot::draw(&file, &measured)?;
    println!("\nThe plot is {}.", file.display());
    Ok(())
}
