//! The filter against Istio's own RBAC, on both layers and with both adapters.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::differential::{self, Comparison, Layer};

/// Verdicts on requests, and on connections, each of which wants a handshake.
const PAIRS: [(Layer, usize); 2] = [(Layer::Http, 100_000), (Layer::Tcp, 4_000)];

fn grants_what_istio_grants_but_for_named_differences(layer: Layer, adapter: Adapter) -> Result<()> {
    let comparison = Comparison { layer, adapter };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let pairs = PAIRS.iter().find(|(of, _)| *of == layer).map_or(0, |(_, pairs)| *pairs);
    let options = format!("--layer {layer:?} --adapter {adapter:?} --pairs {pairs} --seed {seed}").to_lowercase();
    println!("repeat it by `cargo xtask differential {options}`");
    let summary = differential::run(comparison, pairs, seed)?;
    println!("{summary:?}");
    // Were nearly all denied, or none, little would be compared.
    let some = pairs / 10..pairs * 9 / 10;
    assert!(summary.pairs >= pairs && some.contains(&summary.allowed), "{summary:?}");
    // Each named difference occurs, or it is no difference.
    let differences = match (layer, adapter) {
        (Layer::Http, _) => 6,
        (Layer::Tcp, Adapter::Module) => 3,
        (Layer::Tcp, Adapter::Wasm) => 2,
    };
    assert_eq!(summary.differences.len(), differences, "{summary:?}");
    Ok(())
}

#[test]
fn requests_by_wasm() -> Result<()> {
    grants_what_istio_grants_but_for_named_differences(Layer::Http, Adapter::Wasm)
}

#[test]
fn requests_by_the_module() -> Result<()> {
    grants_what_istio_grants_but_for_named_differences(Layer::Http, Adapter::Module)
}

#[test]
fn connections_by_wasm() -> Result<()> {
    grants_what_istio_grants_but_for_named_differences(Layer::Tcp, Adapter::Wasm)
}

#[test]
fn connections_by_the_module() -> Result<()> {
    grants_what_istio_grants_but_for_named_differences(Layer::Tcp, Adapter::Module)
}
