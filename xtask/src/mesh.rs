//! The mesh on one machine: `tests/mesh/src/bin/mesh.rs` with everything that it needs.

use std::process::Command;

use anyhow::Result;

use crate::tools::Tools;
use crate::tools::control_plane::ControlPlane;
use crate::{artifacts, process, workspace};

/// Becomes the tour of the mesh; with `keep`, it runs until it is interrupted.
pub(crate) fn run(keep: bool) -> Result<()> {
    let (tools, control_plane) = (Tools::find_or_get()?, ControlPlane::find_or_get()?);
    artifacts::build(&tools.wasm)?;
    let mut mesh = Command::new("cargo");
    mesh.current_dir(workspace::root());
    mesh.args(["run", "--quiet", "--locked", "--package", "spiffe-authz-mesh", "--bin", "mesh", "--"]);
    if keep {
        mesh.arg("--keep");
    }
    tools.describe_to(&mut mesh);
    control_plane.describe_to(&mut mesh);
    Err(process::replace(&mut mesh))
}
