//! A temporary directory of one test. Its path is short enough for UNIX sockets (108 bytes).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Creates an empty directory.
    ///
    /// # Errors
    /// Returns an error if it cannot be created.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("sa-").tempdir().context("cannot create a temporary directory")?))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns a path in the directory.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in the directory atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.join(name);
        write_whole(&path, content)?;
        Ok(path)
    }
}

/// Writes a file by renaming, so that a program that watches it never reads a part.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_whole(path: &Path, content: &str) -> Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, content).with_context(|| format!("{}: cannot write the file", part.display()))?;
    std::fs::rename(&part, path)?;
    Ok(())
}
