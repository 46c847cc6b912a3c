//! A directory of one test, short enough for the path of a UNIX socket (108 bytes), removed at its end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// A directory that goes with this value.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new empty directory.
    ///
    /// # Errors
    /// Returns an error if none can be made.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("sa-").tempdir().context("cannot make a temporary directory")?))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in it, all or nothing.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.join(name);
        write_whole(&path, content)?;
        Ok(path)
    }
}

/// Writes a file by renaming, so that who watches it sees all or nothing.
///
/// # Errors
/// Returns an error if it cannot be written.
pub fn write_whole(path: &Path, content: &str) -> Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, content).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, path)?;
    Ok(())
}
