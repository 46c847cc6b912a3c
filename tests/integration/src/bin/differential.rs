//! Runs the differential test. Use `cargo xtask differential`. Arguments: layer, adapter, number of pairs, seed.

use anyhow::{Context as _, Result, bail};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::differential::{self, Comparison, Layer};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let layer = match arguments.next().context("which layer?")?.as_str() {
        "http" => Layer::Http,
        "tcp" => Layer::Tcp,
        other => bail!("unknown layer `{other}` (expected `http` or `tcp`)"),
    };
    let adapter: Adapter = arguments.next().context("which adapter?")?.parse()?;
    let pairs = arguments.next().context("expected a number of pairs")?.parse()?;
    let seed = arguments.next().context("which seed?")?.parse()?;
    let summary = differential::run(Comparison { layer, adapter }, pairs, seed)?;
    println!("seed {seed}: {} pairs in {} s, {} allowed by both", summary.pairs, summary.seconds, summary.allowed);
    for (name, count) in &summary.differences {
        println!("{count} denied by the filter alone: {name}");
    }
    Ok(())
}
