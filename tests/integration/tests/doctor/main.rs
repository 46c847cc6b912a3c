//! The command `doctor`: a real Envoy produces each finding alone, and a healthy Envoy none.

mod calling;
mod hbone;
mod listeners;
mod running;
mod secrets;
mod spire;
mod support;
mod updates;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::tools;

use crate::support::{healthy, run, wait_for};

#[test]
fn a_healthy_envoy_has_no_findings() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    // The oldest release is tested in a version with known bypasses: the only one with a Wasm engine.
    let vulnerable: &[(&str, &[&str])] = &[("-", &["envoy-vulnerable"])];
    for (program, wanted, status) in [(tools::ENVOY, &[][..], 0), (tools::OLDEST_ENVOY, vulnerable, 3)] {
        let start = Start { program: tools::path(program)?, ..Start::tested("server")? };
        let envoy = Envoy::start(&start, &healthy(&fixture)?, fixture.scratch.path())?;
        let answer = wait_for(&envoy, fixture.scratch.path(), wanted)?;
        assert_eq!(answer.status, Some(status));
        let fine = answer.report["fine"].as_array().context("a list")?;
        let layers: BTreeSet<&str> = fine.iter().filter_map(|fine| fine["layer"].as_str()).collect();
        assert_eq!(layers.len(), 7, "{layers:?}");
        let (found, text) = run(&[&format!("http://{}/", envoy.admin_address())])?;
        assert_eq!(found, Some(status));
        let errors = if wanted.len() == 1 { "1 error".to_owned() } else { format!("{} errors", wanted.len()) };
        assert!(text.ends_with(&format!("\n{errors}, 0 warnings, 0 notes\n")), "{text}");
        assert!(text.contains("the SPIFFE validator, with a bundle for `example.org`, `example.io`"), "{text}");
    }
    Ok(())
}

/// An Envoy of a client makes no decisions. The secrets of its clusters are checked.
#[test]
fn the_envoy_of_a_client_is_checked() -> Result<()> {
    let scratch = Scratch::new()?;
    let bootstrap = Bootstrap::client(1)?.agent(&scratch.join("no-agent.sock"))?;
    let envoy = Envoy::start(&Start::tested("client")?, &bootstrap, scratch.path())?;
    wait_for(&envoy, scratch.path(), &[("-", &["nothing-to-guard"]), ("httpbin", &["agent-unreachable"])])?;
    Ok(())
}
