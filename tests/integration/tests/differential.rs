//! Compares the filter with Istio's RBAC, on both layers and with both adapters.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::differential::{self, Comparison, Layer, send_examples};

/// The number of requests, and of connections. Each connection requires a handshake.
const PAIRS: [(Layer, usize); 2] = [(Layer::Http, 100_000), (Layer::Tcp, 4_000)];

/// The number of examples of `diff`. Each requires four handshakes.
const EXAMPLES: usize = 300;

fn seed() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

fn send_examples_of_diff(adapter: Adapter) -> Result<()> {
    let sent = send_examples(adapter, EXAMPLES, seed()?)?;
    println!("{sent:?}");
    assert!(sent.examples >= EXAMPLES && sent.changed >= EXAMPLES / 4, "{sent:?}");
    Ok(())
}

fn compare_with_istio(layer: Layer, adapter: Adapter) -> Result<()> {
    let comparison = Comparison { layer, adapter };
    let seed = seed()?;
    let pairs = PAIRS.iter().find(|(of, _)| *of == layer).map_or(0, |(_, pairs)| *pairs);
    let options = format!("--layer {layer:?} --adapter {adapter:?} --pairs {pairs} --seed {seed}").to_lowercase();
    println!("repeat it with `cargo xtask differential {options}`");
    let summary = differential::run(comparison, pairs, seed)?;
    println!("{summary:?}");
    // If almost all or almost none were denied, the comparison would be weak.
    let some = pairs / 10..pairs * 9 / 10;
    assert!(summary.pairs >= pairs && some.contains(&summary.allowed), "{summary:?}");
    // Each named difference must occur.
    let differences = match (layer, adapter) {
        (Layer::Http, _) => 6,
        (Layer::Tcp, Adapter::Module) => 3,
        (Layer::Tcp, Adapter::Wasm) => 2,
    };
    assert_eq!(summary.differences.len(), differences, "{summary:?}");
    Ok(())
}

#[test]
fn wasm_requests() -> Result<()> {
    compare_with_istio(Layer::Http, Adapter::Wasm)
}

#[test]
fn module_requests() -> Result<()> {
    compare_with_istio(Layer::Http, Adapter::Module)
}

#[test]
fn wasm_connections() -> Result<()> {
    compare_with_istio(Layer::Tcp, Adapter::Wasm)
}

#[test]
fn module_connections() -> Result<()> {
    compare_with_istio(Layer::Tcp, Adapter::Module)
}

#[test]
fn wasm_examples_of_diff() -> Result<()> {
    send_examples_of_diff(Adapter::Wasm)
}

#[test]
fn module_examples_of_diff() -> Result<()> {
    send_examples_of_diff(Adapter::Module)
}
