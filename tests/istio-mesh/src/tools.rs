//! The programs of the control plane. `cargo xtask` sets the environment variables with their directories.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The directory of `etcd`.
pub const ETCD: &str = "SPIFFE_AUTHZ_ETCD";
/// The directory of `kube-apiserver`, `kube-controller-manager`, `kube-scheduler` and `kubectl`.
pub const KUBERNETES: &str = "SPIFFE_AUTHZ_KUBERNETES";
/// The directory of `pilot-discovery` (istiod) and `istioctl`.
pub const ISTIO: &str = "SPIFFE_AUTHZ_ISTIO";
/// The directory of `spire-controller-manager`. `crds` has its resource definitions.
pub const CONTROLLER_MANAGER: &str = "SPIFFE_AUTHZ_CONTROLLER_MANAGER";
/// The directory with the resource definitions of the Gateway API in `crds`.
pub const GATEWAY_API: &str = "SPIFFE_AUTHZ_GATEWAY_API";
/// The directory of `kwok`. `stages` has its rules for nodes and pods.
pub const KWOK: &str = "SPIFFE_AUTHZ_KWOK";

/// The directory of `helm`.
pub const HELM: &str = "SPIFFE_AUTHZ_HELM";

/// Returns the path of `name` in the directory of a variable.
///
/// # Errors
/// Returns an error if the variable is not set or the path does not exist. A missing program never skips a test.
pub fn path(variable: &str, name: &str) -> Result<PathBuf> {
    let directory = env::var_os(variable).with_context(|| {
        format!("{variable} is not set; run `cargo xtask test`, which sets it and installs the program")
    })?;
    let path = PathBuf::from(directory).join(name);
    ensure!(path.exists(), "{variable}: {} does not exist", path.display());
    Ok(path)
}
