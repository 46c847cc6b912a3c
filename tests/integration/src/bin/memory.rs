//! Measures Envoy's memory with the dynamic module, over many connections and configurations.
//!
//! Run it with `cargo xtask memory`, which provides the programs that it needs. Arguments: the number of connections
//! and of configurations.

use anyhow::{Context as _, Result};
use spiffe_authz_integration::memory::{Amounts, measure};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let connections = arguments.next().context("expected a number of connections")??;
    let reloads = arguments.next().context("expected a number of configurations")??;
    let measured = measure(Amounts { connections, reloads })?;
    let show = |what: &str, count: u32, [early, late]: [u64; 2]| {
        println!("{count} {what}: {early} kB resident after one fifth, {late} kB at the end");
    };
    show("connections", connections, measured.connections);
    show("configurations", reloads, measured.reloads);
    measured.check()
}
