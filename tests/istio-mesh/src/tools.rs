//! The programs of the control plane, as `cargo xtask` names their directories in the environment.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// Holds `etcd`.
pub const ETCD: &str = "SPIFFE_AUTHZ_ETCD";
/// Holds `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kubectl`.
pub const KUBERNETES: &str = "SPIFFE_AUTHZ_KUBERNETES";
/// Holds `pilot-discovery` (istiod), `istioctl`.
pub const ISTIO: &str = "SPIFFE_AUTHZ_ISTIO";
/// Holds `spire-controller-manager`, and its resource definitions in `crds`.
pub const CONTROLLER_MANAGER: &str = "SPIFFE_AUTHZ_CONTROLLER_MANAGER";
/// Holds the resource definitions of the Gateway API in `crds`.
pub const GATEWAY_API: &str = "SPIFFE_AUTHZ_GATEWAY_API";
/// Holds `kwok`, and what it does to nodes and pods in `stages`.
pub const KWOK: &str = "SPIFFE_AUTHZ_KWOK";

/// The path `name` in the directory that the variable names.
///
/// # Errors
/// Returns an error if the variable is not set or there is no such path: a missing program fails, it never skips.
pub fn path(variable: &str, name: &str) -> Result<PathBuf> {
    let directory = env::var_os(variable)
        .with_context(|| format!("{variable} is not set; `cargo xtask test` sets it and gets what it names"))?;
    let path = PathBuf::from(directory).join(name);
    ensure!(path.exists(), "{variable}: there is no {}", path.display());
    Ok(path)
}
