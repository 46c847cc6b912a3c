//! What the guide has brought goes by the guide's own clean-up.

use anyhow::{Result, ensure};
use spiffe_authz_mesh::mesh::Mesh;

pub(crate) fn leaves_nothing_behind(mesh: &Mesh) -> Result<()> {
    ensure!(!mesh.bed.new_objects()?.is_empty() && !mesh.bed.home.entries()?.is_empty(), "the guide has made nothing");
    mesh.clean_up()?;
    Ok(())
}
