//! The mesh on one machine: `tests/istio-mesh/src/bin/mesh.rs` with the tools that it needs.

use std::process::Command;

use anyhow::Result;

use crate::tools::Runtime;
use crate::tools::control_plane::ControlPlane;
use crate::tools::wasm::Toolchain;
use crate::{artifacts, process, workspace};

/// Executes the mesh. With `keep`, it runs until it is interrupted.
pub(crate) fn run(keep: bool) -> Result<()> {
    let mut mesh = process::cargo_binary("run", "spiffe-authz-mesh", "mesh");
    if keep {
        mesh.args(["--", "--keep"]);
    }
    execute(mesh)
}

/// Measures the controller with thousands of policies, in a mesh.
pub(crate) fn measure() -> Result<()> {
    let mut test = process::cargo(&["test", "--quiet", "--locked", "--package", "spiffe-authz-mesh", "--test", "mesh"]);
    test.args(["--", "--ignored", "--nocapture", "controller::two_thousand_policies"]);
    execute(test)
}

/// Executes a command with the tools and the artifacts that a mesh needs.
fn execute(mut mesh: Command) -> Result<()> {
    let toolchain = Toolchain::find_or_get()?;
    let runtime = Runtime::find_or_get_during(|| artifacts::build(&toolchain))?;
    let control_plane = ControlPlane::find_or_get()?;
    runtime.describe_to(&mut mesh);
    mesh.env("SPIFFE_AUTHZ_CLI", workspace::dist().join("spiffe-authz"));
    control_plane.describe_to(&mut mesh);
    Err(process::replace(&mut mesh))
}
