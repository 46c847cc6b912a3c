//! The filter against Istio's own RBAC.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use spiffe_authz_integration::differential::{self, Layer};

const PAIRS: usize = 100_000;

#[test]
fn grants_what_istio_grants_but_for_named_differences() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    println!("differential test: seed {seed}; cargo xtask differential --seed {seed} repeats it");
    let summary = differential::run(Layer::Http, PAIRS, seed)?;
    println!("{summary:?}");
    // Were nearly all denied, or none, little would be compared.
    assert!(summary.pairs >= PAIRS && summary.allowed > PAIRS / 10 && summary.allowed < PAIRS * 9 / 10, "{summary:?}");
    // Each named difference occurs, or it is no difference.
    assert_eq!(summary.differences.len(), 3, "{summary:?}");
    Ok(())
}

const CONNECTIONS: usize = 4_000;

#[test]
fn lets_connect_whom_istio_lets_connect_but_for_named_differences() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    println!("differential test: seed {seed}; cargo xtask differential --layer tcp --seed {seed} repeats it");
    let summary = differential::run(Layer::Tcp, CONNECTIONS, seed)?;
    println!("{summary:?}");
    let some = CONNECTIONS / 10..CONNECTIONS * 9 / 10;
    assert!(summary.pairs >= CONNECTIONS && some.contains(&summary.allowed), "{summary:?}");
    assert_eq!(summary.differences.len(), 2, "{summary:?}");
    Ok(())
}
