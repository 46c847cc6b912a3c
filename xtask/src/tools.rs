//! The third-party tools. Missing ones are installed in a cache of the user.

pub(crate) mod binaryen;
pub(crate) mod cargo_deny;
mod chromium;
pub(crate) mod control_plane;
mod debian;
pub(crate) mod docker;
pub(crate) mod envoy;
mod go;
mod istio_rbac;
mod npm;
pub(crate) mod promtool;
pub(crate) mod spire;
pub(crate) mod wasm;
pub(crate) mod wasm_bindgen;

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Result, anyhow};

use crate::{versions, workspace};

/// Finds the tools of the tests, and installs missing ones.
pub(crate) fn find_or_get_all() -> Result<()> {
    Tools::find_or_get()?;
    control_plane::ControlPlane::find_or_get()?;
    promtool::find_or_get()?;
    Ok(())
}

/// The programs of the demo: Envoy and SPIRE.
pub(crate) struct Runtime {
    envoy: PathBuf,
    spire: PathBuf,
}

impl Runtime {
    /// Finds each program, and installs missing ones.
    pub(crate) fn find_or_get() -> Result<Self> {
        Ok(Self { envoy: envoy::find_or_get(&versions::ENVOY)?, spire: spire::find_or_get()? })
    }

    /// Does the same while `build` runs, because Go builds SPIRE and Cargo builds our programs.
    pub(crate) fn find_or_get_during(build: impl FnOnce() -> Result<()>) -> Result<Self> {
        thread::scope(|scope| {
            let runtime = scope.spawn(Self::find_or_get);
            let built = build();
            let runtime = runtime.join().map_err(|_| anyhow!("getting the tools panicked"))?;
            built.and(runtime)
        })
    }

    /// Sets the environment variables with the paths of these programs and the Wasm filter, for `tests/integration`.
    pub(crate) fn describe_to(&self, command: &mut Command) {
        command
            .env("SPIFFE_AUTHZ_ENVOY", &self.envoy)
            .env("SPIFFE_AUTHZ_SPIRE_SERVER", self.spire.join("spire-server"))
            .env("SPIFFE_AUTHZ_SPIRE_AGENT", self.spire.join("spire-agent"))
            .env("SPIFFE_AUTHZ_WASM", workspace::dist().join("spiffe-authz.wasm"));
    }
}

/// The tools of the tests.
pub(crate) struct Tools {
    pub(crate) wasm: wasm::Toolchain,
    runtime: Runtime,
    previous_envoy: PathBuf,
    oldest_envoy: PathBuf,
    unsupported_envoy: PathBuf,
    istio_rbac: PathBuf,
    chromium: PathBuf,
    mermaid: PathBuf,
}

impl Tools {
    /// Finds each tool, and installs missing ones.
    pub(crate) fn find_or_get() -> Result<Self> {
        // The build uses it if it exists.
        binaryen::Optimizer::find_or_get();
        let tools = Self {
            wasm: wasm::Toolchain::find_or_get()?,
            runtime: Runtime::find_or_get()?,
            previous_envoy: envoy::find_or_get(&versions::PREVIOUS_ENVOY)?,
            oldest_envoy: envoy::find_or_get(&versions::OLDEST_ENVOY)?,
            unsupported_envoy: envoy::find_or_get(&versions::UNSUPPORTED_ENVOY)?,
            istio_rbac: istio_rbac::find_or_get()?,
            chromium: chromium::find_or_get()?,
            mermaid: chromium::mermaid()?,
        };
        eprintln!("tools: {}; in {}", tools.wasm.name(), workspace::cache()?.display());
        Ok(tools)
    }

    /// Sets the environment variables with the paths of all tools, for `tests/integration`.
    pub(crate) fn describe_to(&self, command: &mut Command) {
        self.runtime.describe_to(command);
        command
            .env("SPIFFE_AUTHZ_ENVOY_PREVIOUS", &self.previous_envoy)
            .env("SPIFFE_AUTHZ_ENVOY_OLDEST", &self.oldest_envoy)
            .env("SPIFFE_AUTHZ_ENVOY_UNSUPPORTED", &self.unsupported_envoy)
            .env("SPIFFE_AUTHZ_ISTIO_RBAC", self.istio_rbac.join("istio-rbac"))
            .env("SPIFFE_AUTHZ_WASM_IMAGE", self.istio_rbac.join("wasm-image"))
            .env("SPIFFE_AUTHZ_CHROMIUM", &self.chromium)
            .env("SPIFFE_AUTHZ_MERMAID", &self.mermaid)
            .env("SPIFFE_AUTHZ_OCI", workspace::dist().join("oci"))
            .env("SPIFFE_AUTHZ_MODULE", workspace::dist().join("libspiffe_authz.so"))
            .env("SPIFFE_AUTHZ_CLI", workspace::dist().join("spiffe-authz"));
    }
}
