//! The tools that are not ours: found, or got, and then kept in a per-user cache.

pub(crate) mod control_plane;
mod debian;
pub(crate) mod docker;
pub(crate) mod envoy;
mod go;
mod istio_rbac;
pub(crate) mod spire;
pub(crate) mod wasm;
pub(crate) mod wasm_bindgen;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{versions, workspace};

/// Everything that the demo and the tests run.
pub(crate) struct Tools {
    pub(crate) wasm: wasm::Toolchain,
    envoy: PathBuf,
    previous_envoy: PathBuf,
    oldest_envoy: PathBuf,
    spire: PathBuf,
    istio_rbac: PathBuf,
}

impl Tools {
    /// Finds each tool, and gets those that are not there.
    pub(crate) fn find_or_get() -> Result<Self> {
        let tools = Self {
            wasm: wasm::Toolchain::find_or_get()?,
            envoy: envoy::find_or_get(&versions::ENVOY)?,
            previous_envoy: envoy::find_or_get(&versions::PREVIOUS_ENVOY)?,
            oldest_envoy: envoy::find_or_get(&versions::OLDEST_ENVOY)?,
            spire: spire::find_or_get()?,
            istio_rbac: istio_rbac::find_or_get()?,
        };
        eprintln!("tools: {}; in {}", tools.wasm.name(), workspace::cache()?.display());
        Ok(tools)
    }

    /// Tells a program of `tests/integration` where everything is.
    pub(crate) fn describe_to(&self, command: &mut Command) {
        command
            .env("SPIFFE_AUTHZ_ENVOY", &self.envoy)
            .env("SPIFFE_AUTHZ_ENVOY_PREVIOUS", &self.previous_envoy)
            .env("SPIFFE_AUTHZ_ENVOY_OLDEST", &self.oldest_envoy)
            .env("SPIFFE_AUTHZ_SPIRE_SERVER", self.spire.join("spire-server"))
            .env("SPIFFE_AUTHZ_SPIRE_AGENT", self.spire.join("spire-agent"))
            .env("SPIFFE_AUTHZ_ISTIO_RBAC", self.istio_rbac.join("istio-rbac"))
            .env("SPIFFE_AUTHZ_WASM_IMAGE", self.istio_rbac.join("wasm-image"))
            .env("SPIFFE_AUTHZ_OCI", workspace::dist().join("oci"))
            .env("SPIFFE_AUTHZ_WASM", workspace::dist().join("spiffe-authz.wasm"))
            .env("SPIFFE_AUTHZ_MODULE", workspace::dist().join("libspiffe_authz.so"))
            .env("SPIFFE_AUTHZ_CLI", workspace::dist().join("spiffe-authz"));
    }
}
