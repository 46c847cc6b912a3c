//! What the guide has brought goes by the guide's own clean-up.

use anyhow::{Result, ensure};
use spiffe_authz_mesh::mesh::{CLEAN_UP, Mesh};

pub(crate) fn leaves_nothing_behind(mesh: &Mesh) -> Result<()> {
    let local = &mesh.environment.local;
    ensure!(!mesh.environment.new_objects()?.is_empty(), "the guide has made no object");
    ensure!(!local.entries()?.is_empty(), "the guide has made no entry");
    let (relationships, bundles) = (local.relationships()?, local.federated_bundles()?);
    ensure!(relationships.len() == 2 && bundles.len() == 2, "the guide has federated {relationships:?}, {bundles:?}");
    mesh.clean_up()?;
    // Whom it stopped half-way runs it again: what is gone is no error.
    mesh.shell.run(CLEAN_UP)?;
    Ok(())
}
