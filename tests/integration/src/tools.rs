//! The programs and artifacts under test, as `cargo xtask` names them in the environment.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// Envoy of the release that is tested.
pub const ENVOY: &str = "SPIFFE_AUTHZ_ENVOY";
/// The oldest Envoy that is supported.
pub const OLDEST_ENVOY: &str = "SPIFFE_AUTHZ_ENVOY_OLDEST";
/// The release before the one that is tested.
pub const PREVIOUS_ENVOY: &str = "SPIFFE_AUTHZ_ENVOY_PREVIOUS";
/// The last Envoy that is not supported.
pub const UNSUPPORTED_ENVOY: &str = "SPIFFE_AUTHZ_ENVOY_UNSUPPORTED";
/// The command `spiffe-authz`.
pub const COMMAND: &str = "SPIFFE_AUTHZ_CLI";
/// SPIRE's server.
pub const SPIRE_SERVER: &str = "SPIFFE_AUTHZ_SPIRE_SERVER";
/// SPIRE's agent.
pub const SPIRE_AGENT: &str = "SPIFFE_AUTHZ_SPIRE_AGENT";
/// The command of Docker, whose engine answers; not set by `cargo xtask test --no-compose`.
pub const DOCKER: &str = "SPIFFE_AUTHZ_DOCKER";
/// The Wasm filter.
pub const WASM: &str = "SPIFFE_AUTHZ_WASM";
/// The dynamic module.
pub const MODULE: &str = "SPIFFE_AUTHZ_MODULE";
/// The dynamic module with a header that makes it panic.
pub const PANICKING_MODULE: &str = "SPIFFE_AUTHZ_MODULE_PANICKING";
/// Istio's own translation of AuthorizationPolicies to RBAC filters.
pub const ISTIO_RBAC: &str = "SPIFFE_AUTHZ_ISTIO_RBAC";
/// Istio's own fetcher of images.
pub const WASM_IMAGE: &str = "SPIFFE_AUTHZ_WASM_IMAGE";
/// The layout directory with the filter's images.
pub const OCI: &str = "SPIFFE_AUTHZ_OCI";
/// A Wasm filter that does nothing, for the benchmark.
pub const EMPTY_WASM: &str = "SPIFFE_AUTHZ_EMPTY_WASM";

/// The file that the variable names.
///
/// # Errors
/// Returns an error if the variable is not set or there is no such file: a missing program fails, it never skips.
pub fn path(variable: &str) -> Result<PathBuf> {
    let value = env::var_os(variable)
        .with_context(|| format!("{variable} is not set; `cargo xtask test` sets it and gets what it names"))?;
    let path = PathBuf::from(value);
    ensure!(path.is_file(), "{variable}: there is no file {}", path.display());
    Ok(path)
}
