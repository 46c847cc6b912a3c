//! The clean-up of the guide removes everything that the guide created.

use anyhow::{Result, ensure};
use spiffe_authz_mesh::mesh::{CLEAN_UP, Mesh};

pub(crate) fn removes_everything(mesh: &Mesh) -> Result<()> {
    let local = &mesh.environment.local;
    ensure!(!mesh.environment.new_objects()?.is_empty(), "the guide created no object");
    ensure!(!local.entries()?.is_empty(), "the guide created no entry");
    let (relationships, bundles) = (local.relationships()?, local.federated_bundles()?);
    ensure!(
        relationships.len() == 2 && bundles.len() == 2,
        "expected two federated trust domains, found {relationships:?}, {bundles:?}"
    );
    mesh.clean_up()?;
    // A user can repeat an interrupted clean-up. Objects that are already deleted are not errors.
    mesh.shell.run(CLEAN_UP)?;
    Ok(())
}
