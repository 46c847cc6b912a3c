//! The programs and artifacts under test. `cargo xtask` sets the environment variables with their paths.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The tested release of Envoy.
pub const ENVOY: &str = "SPIFFE_AUTHZ_ENVOY";
/// The oldest supported release of Envoy.
pub const OLDEST_ENVOY: &str = "SPIFFE_AUTHZ_ENVOY_OLDEST";
/// The release before the tested one.
pub const PREVIOUS_ENVOY: &str = "SPIFFE_AUTHZ_ENVOY_PREVIOUS";
/// The latest unsupported release of Envoy.
pub const UNSUPPORTED_ENVOY: &str = "SPIFFE_AUTHZ_ENVOY_UNSUPPORTED";
/// The command `spiffe-authz`.
pub const COMMAND: &str = "SPIFFE_AUTHZ_CLI";
/// SPIRE's server.
pub const SPIRE_SERVER: &str = "SPIFFE_AUTHZ_SPIRE_SERVER";
/// SPIRE's agent.
pub const SPIRE_AGENT: &str = "SPIFFE_AUTHZ_SPIRE_AGENT";
/// The command of Docker, with a running engine. `cargo xtask test --no-compose` does not set it.
pub const DOCKER: &str = "SPIFFE_AUTHZ_DOCKER";
/// The Wasm filter.
pub const WASM: &str = "SPIFFE_AUTHZ_WASM";
/// The dynamic module.
pub const MODULE: &str = "SPIFFE_AUTHZ_MODULE";
/// The dynamic module with a header that causes a panic.
pub const PANICKING_MODULE: &str = "SPIFFE_AUTHZ_MODULE_PANICKING";
/// Istio's own translation of AuthorizationPolicies to RBAC filters.
pub const ISTIO_RBAC: &str = "SPIFFE_AUTHZ_ISTIO_RBAC";
/// Istio's own fetcher of images.
pub const WASM_IMAGE: &str = "SPIFFE_AUTHZ_WASM_IMAGE";
/// The layout directory with the filter's images.
pub const OCI: &str = "SPIFFE_AUTHZ_OCI";
/// Chromium without a window.
pub const CHROMIUM: &str = "SPIFFE_AUTHZ_CHROMIUM";
/// Mermaid's script for browsers.
pub const MERMAID: &str = "SPIFFE_AUTHZ_MERMAID";
/// A Wasm filter that does nothing, for the benchmark.
pub const EMPTY_WASM: &str = "SPIFFE_AUTHZ_EMPTY_WASM";
/// A dynamic module that does nothing, for the benchmark.
pub const EMPTY_MODULE: &str = "SPIFFE_AUTHZ_EMPTY_MODULE";

/// Returns the path of the file that the variable names.
///
/// # Errors
/// Returns an error if the variable is not set or the file does not exist. A missing program never skips a test.
pub fn path(variable: &str) -> Result<PathBuf> {
    let value = env::var_os(variable).with_context(|| {
        format!("{variable} is not set; run `cargo xtask test`, which sets it and installs the program")
    })?;
    let path = PathBuf::from(value);
    ensure!(path.is_file(), "{variable}: {} does not exist", path.display());
    Ok(path)
}
