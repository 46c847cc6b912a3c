//! Where things are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where our own artifacts go.
pub(crate) fn dist() -> PathBuf {
    root().join("target/dist")
}

/// The per-user cache of third-party tools, so that another clone finds them.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("there is no home directory; set XDG_CACHE_HOME to a directory for the tools")?;
    Ok(base.join("spiffe-authz"))
}

/// The cache entry `name`, made by `make` in an empty directory if it is not there yet. An entry is complete or absent:
/// it is made beside its place and then renamed.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let entry = cache()?.join(name);
    if entry.is_dir() {
        return Ok(entry);
    }
    let part = cache()?.join(format!("{name}.part-{}", std::process::id()));
    fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    let made = make(&part).and_then(|()| {
        fs::rename(&part, &entry).or_else(|error| if entry.is_dir() { Ok(()) } else { Err(error.into()) })
    });
    if part.exists() {
        // Go and cargo leave read-only directories behind at most in their own caches, never here.
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    made.map(|()| entry)
}
