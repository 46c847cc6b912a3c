//! The paths of the workspace and the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The directory of our artifacts.
pub(crate) fn dist() -> PathBuf {
    root().join("target/dist")
}

/// The cache of third-party tools, which all clones of a user share.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("cannot find the home directory (set XDG_CACHE_HOME to a directory for the tools)")?;
    Ok(base.join("spiffe-authz"))
}

/// Returns the SHA-256 hash of `parts`, in hexadecimal: a key of what was built from them.
pub(crate) fn build_key<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        // With the lengths, different parts cannot give the same bytes.
        hash.update(part.len().to_string());
        hash.update(":");
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// Returns the cache entry `name`. If it is missing, `make` fills an empty directory, which is then renamed: an entry is
/// complete or absent.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    cached_in(&cache()?, name, make)
}

fn cached_in(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let entry = cache.join(name);
    if entry.is_dir() {
        return Ok(entry);
    }
    let part = cache.join(format!("{name}.part-{}", std::process::id()));
    // An interrupted run with the same process ID can have left files in this directory.
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("{}: cannot remove the directory", part.display()))?;
    }
    fs::create_dir_all(cache).with_context(|| format!("{}: cannot create the directory", cache.display()))?;
    fs::create_dir(&part).with_context(|| format!("{}: cannot create the directory", part.display()))?;
    let made = make(&part).and_then(|()| {
        fs::rename(&part, &entry).or_else(|error| if entry.is_dir() { Ok(()) } else { Err(error.into()) })
    });
    if part.exists() {
        // Only the caches of Go and Cargo have read-only directories.
        fs::remove_dir_all(&part).with_context(|| format!("{}: cannot remove the directory", part.display()))?;
    }
    made.map(|()| entry)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::bail;

    use super::cached_in;

    #[test]
    fn an_entry_is_made_in_an_empty_directory() {
        let cache = tempfile::tempdir().expect("a directory");
        let left_over = cache.path().join(format!("tool.part-{}", std::process::id()));
        fs::create_dir_all(&left_over).expect("a directory");
        fs::write(left_over.join("half"), "half a program").expect("a file");
        let entry = cached_in(cache.path(), "tool", |directory| {
            assert_eq!(fs::read_dir(directory)?.count(), 0, "the left-over directory is used again");
            Ok(fs::write(directory.join("program"), "a program")?)
        });
        assert!(entry.expect("an entry").join("program").is_file());
        assert!(!left_over.exists());
    }

    #[test]
    fn an_entry_that_is_complete_is_not_made_again_and_one_that_fails_leaves_nothing() {
        let cache = tempfile::tempdir().expect("a directory");
        let failed = cached_in(cache.path(), "tool", |directory| {
            fs::write(directory.join("half"), "half a program")?;
            bail!("interrupted")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(cache.path()).expect("a directory").count(), 0);
        cached_in(cache.path(), "tool", |_| Ok(())).expect("an entry");
        cached_in(cache.path(), "tool", |_| bail!("made again")).expect("the same entry");
    }
}
