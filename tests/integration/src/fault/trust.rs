//! The rotation of identities and authorities.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::envoy::Envoy;
use crate::federation::{Federation, Side};
use crate::secrets::{serial_number, trusts};
use crate::spire::Server;
use crate::wait;

/// The time limit for the renewal of an SVID, which takes seconds.
const ROTATION_LIMIT: Duration = Duration::from_secs(30);
const BUNDLE_LIMIT: Duration = Duration::from_secs(30);

/// Waits until every Envoy of these trust domains presents a new certificate.
pub(super) fn identities_rotate(environment: &Federation<'_>, sides: &[Side]) -> Result<()> {
    let envoys: Vec<&Envoy> = sides.iter().flat_map(|side| environment.envoys_of(*side)).collect();
    let before = envoys.iter().map(|envoy| serial_number(envoy)).collect::<Result<Vec<_>>>()?;
    for (envoy, before) in envoys.iter().zip(before) {
        wait::until("another certificate", ROTATION_LIMIT, || Ok((serial_number(envoy)? != before).then_some(())))?;
    }
    Ok(())
}

/// Adds an authority to a trust domain, and revokes the old one, in the order of SPIRE's documentation: peers trust the
/// new authority before it signs.
pub(super) fn authority_rotates(environment: &Federation<'_>, side: Side) -> Result<()> {
    let (server, across) = (&environment.domain(side).spire.server, &environment.domain(side.across()).spire.server);
    let (old, old_id) = (server.authorities()?, server.authority("show", None)?);
    let new_id = server.authority("prepare", None)?;
    let new: Vec<String> = server.authorities()?.into_iter().filter(|authority| !old.contains(authority)).collect();
    let ([old], [new]) = (old.as_slice(), new.as_slice()) else {
        anyhow::bail!("expected one old and one new authority")
    };
    across.refresh()?;
    every_envoy(environment, "the new authority is trusted", |envoy| trusts(envoy, new))?;

    let agent = agent_serial_number(server)?;
    server.authority("activate", Some(&new_id))?;
    server.authority("taint", Some(&old_id))?;
    // SPIRE replaces the SVIDs of the old authority immediately, including the agent's own.
    identities_rotate(environment, &[side])?;
    wait::until("the agent has a new identity", ROTATION_LIMIT, || {
        Ok((agent_serial_number(server)? != agent).then_some(()))
    })?;

    server.authority("revoke", Some(&old_id))?;
    across.refresh()?;
    every_envoy(environment, "the old authority is no longer trusted", |envoy| Ok(!trusts(envoy, old)?))
}

fn every_envoy(environment: &Federation<'_>, what: &str, check: impl Fn(&Envoy) -> Result<bool>) -> Result<()> {
    for envoy in environment.envoys() {
        wait::until(what, BUNDLE_LIMIT, || Ok(check(envoy)?.then_some(())))?;
    }
    Ok(())
}

fn agent_serial_number(server: &Server) -> Result<String> {
    let answer: Value = serde_json::from_str(&server.command(&["agent", "list", "-output", "json"])?)?;
    let agents = answer["agents"].as_array().context("no agents")?;
    ensure!(agents.len() == 1, "{} agents", agents.len());
    Ok(agents[0]["x509svid_serial_number"].as_str().context("no serial number")?.to_owned())
}
