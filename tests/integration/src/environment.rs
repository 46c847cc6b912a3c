//! The place of the examples, whole: SPIRE, the server's Envoy with its workload, and an Envoy for each caller.

use std::path::Path;
use std::time::Duration;

use anyhow::{Error, Result};

use crate::bootstrap::{Adapter, Bootstrap};
use crate::envoy::{Envoy, Start};
use crate::spire::Spire;
use crate::upstream::Upstream;
use crate::{tools, wait};

/// The longest life of an identity in the examples.
pub const LONG: Duration = Duration::from_secs(3600);

const SECRETS_LIMIT: Duration = Duration::from_secs(20);

/// SPIRE, the protected workload and its Envoy.
#[derive(Debug)]
pub struct Environment<'d> {
    /// The Envoy with the filter.
    pub server: Envoy,
    /// The workload behind it.
    pub upstream: Upstream,
    /// Where the identities come from.
    pub spire: Spire,
    directory: &'d Path,
}

impl<'d> Environment<'d> {
    /// Starts everything but the callers. Identities are good for `ttl`; `fit` may change the server's bootstrap.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub fn start(directory: &'d Path, ttl: Duration, fit: impl FnOnce(Bootstrap) -> Result<Bootstrap>) -> Result<Self> {
        Self::with(Adapter::Wasm, directory, ttl, fit)
    }

    /// As `start`, with this adapter.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub fn with(
        adapter: Adapter,
        directory: &'d Path,
        ttl: Duration,
        fit: impl FnOnce(Bootstrap) -> Result<Bootstrap>,
    ) -> Result<Self> {
        let spire = Spire::start(directory, ttl)?;
        let upstream = Upstream::start()?;
        let bootstrap = fit(Bootstrap::server_with(adapter, upstream.port())?.agent(&spire.socket())?)?;
        let server = envoy(&spire, "httpbin", "httpbin", &bootstrap, directory)?;
        Ok(Self { server, upstream, spire, directory })
    }

    /// Starts the Envoy of a caller that SPIRE knows by this name.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn caller(&self, name: &str) -> Result<Envoy> {
        let bootstrap = Bootstrap::client(self.server.address()?.port())?.agent(&self.spire.socket())?;
        let caller = envoy(&self.spire, name, name, &bootstrap, self.directory)?;
        await_identity(&caller)?;
        Ok(caller)
    }
}

/// Waits until an Envoy has its secrets: it serves before an upstream's are there, and answers 503 until then.
///
/// # Errors
/// Returns an error if the secrets do not arrive in time.
pub fn await_identity(envoy: &Envoy) -> Result<()> {
    wait::until("the caller has its identity", SECRETS_LIMIT, || {
        let has = |secret: &str| Ok::<_, Error>(envoy.stat(&format!("sds.{secret}.update_success"))? > Some(0));
        Ok((has("default")? && has("ROOTCA")?).then_some(()))
    })
}

/// Starts the Envoy of the workload that SPIRE knows by `workload`; its files have the name `name`.
///
/// # Errors
/// Returns an error if it does not start.
pub fn envoy(spire: &Spire, workload: &str, name: &str, bootstrap: &Bootstrap, directory: &Path) -> Result<Envoy> {
    let program = spire.workload(workload, &tools::path(tools::ENVOY)?)?;
    Envoy::start(&Start { program, name, arguments: &[] }, bootstrap, directory)
}
