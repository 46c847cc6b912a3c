//! The mesh on one machine: `tests/istio-mesh/src/bin/mesh.rs` with the tools that it needs.

use anyhow::Result;

use crate::tools::Runtime;
use crate::tools::control_plane::ControlPlane;
use crate::tools::wasm::Toolchain;
use crate::{artifacts, process, workspace};

/// Executes the mesh. With `keep`, it runs until it is interrupted.
pub(crate) fn run(keep: bool) -> Result<()> {
    let toolchain = Toolchain::find_or_get()?;
    let runtime = Runtime::find_or_get_during(|| artifacts::build(&toolchain))?;
    let control_plane = ControlPlane::find_or_get()?;
    let mut mesh = process::cargo_binary("run", "spiffe-authz-mesh", "mesh");
    if keep {
        mesh.args(["--", "--keep"]);
    }
    runtime.describe_to(&mut mesh);
    mesh.env("SPIFFE_AUTHZ_CLI", workspace::dist().join("spiffe-authz"));
    control_plane.describe_to(&mut mesh);
    Err(process::replace(&mut mesh))
}
