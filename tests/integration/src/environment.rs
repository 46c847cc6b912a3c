//! The environment of the examples: SPIRE, the server's Envoy with its workload, and an Envoy for each caller.

use std::path::Path;
use std::time::Duration;

use anyhow::{Error, Result};

use crate::bootstrap::{Adapter, Bootstrap};
use crate::envoy::{Envoy, Start};
use crate::spire::Spire;
use crate::upstream::Upstream;
use crate::{tools, wait};

/// The lifetime of an SVID in the examples.
pub const SVID_TTL: Duration = Duration::from_secs(3600);

const SECRETS_LIMIT: Duration = Duration::from_secs(20);

/// SPIRE, and the protected workload with its Envoy.
#[derive(Debug)]
pub struct Environment<'d> {
    /// The Envoy with the filter.
    pub server: Envoy,
    /// The workload.
    pub upstream: Upstream,
    /// The SPIRE server and agent.
    pub spire: Spire,
    directory: &'d Path,
}

impl<'d> Environment<'d> {
    /// Starts everything except the callers. `ttl` is the lifetime of SVIDs. `change` modifies the server's bootstrap.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub fn start(
        adapter: Adapter,
        directory: &'d Path,
        ttl: Duration,
        change: impl FnOnce(Bootstrap) -> Result<Bootstrap>,
    ) -> Result<Self> {
        let spire = Spire::start(directory, ttl)?;
        let upstream = Upstream::start()?;
        let bootstrap = change(Bootstrap::server(adapter, upstream.port())?.agent(&spire.socket())?)?;
        let server = envoy(&spire, "httpbin", "httpbin", &bootstrap, directory)?;
        Ok(Self { server, upstream, spire, directory })
    }

    /// Starts the Envoy of a caller. `name` is the name of its registration entry.
    ///
    /// # Errors
    /// Returns an error if the Envoy does not start.
    pub fn caller(&self, name: &str) -> Result<Envoy> {
        let bootstrap = Bootstrap::client(self.server.address()?.port())?.agent(&self.spire.socket())?;
        let caller = envoy(&self.spire, name, name, &bootstrap, self.directory)?;
        await_identity(&caller)?;
        Ok(caller)
    }
}

/// Waits until an Envoy has its secrets. Envoy is ready before the secrets of an upstream arrive, and responds with 503
/// until then.
///
/// # Errors
/// Returns an error if the secrets do not arrive in time.
pub fn await_identity(envoy: &Envoy) -> Result<()> {
    wait::until("the caller has its identity", SECRETS_LIMIT, || {
        let has = |secret: &str| Ok::<_, Error>(envoy.stat(&format!("sds.{secret}.update_success"))? > Some(0));
        Ok((has("default")? && has("ROOTCA")?).then_some(()))
    })
}

/// Starts the Envoy of the registered `workload`. `name` is the name of its files.
///
/// # Errors
/// Returns an error if the Envoy does not start.
pub fn envoy(spire: &Spire, workload: &str, name: &str, bootstrap: &Bootstrap, directory: &Path) -> Result<Envoy> {
    let program = spire.workload(workload, &tools::path(tools::ENVOY)?)?;
    Envoy::start(&Start { program, name, arguments: &[] }, bootstrap, directory)
}
