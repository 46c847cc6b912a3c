//! `wasm-bindgen-test-runner` of the version of wasm-bindgen in Cargo.lock. The two must be the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::run_logged;
use crate::workspace::{cached, root, target};

const LIMIT: Duration = Duration::from_secs(1800);

/// Returns the path of the runner.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let version = locked_version(&lock, "wasm-bindgen").context("Cargo.lock does not contain wasm-bindgen")?;
    let entry = cached(&format!("wasm-bindgen-{version}"), |directory| get(version, directory))?;
    Ok(entry.join("bin/wasm-bindgen-test-runner"))
}

fn get(version: &str, directory: &Path) -> Result<()> {
    eprintln!("wasm-bindgen {version}: building its test runner (three minutes)");
    run_logged(
        "building wasm-bindgen-cli",
        // `--locked` would fail, because the lock file of the crate contains a yanked version.
        Command::new("cargo")
            .args(["install", "wasm-bindgen-cli", "--no-track", "--version", version, "--root"])
            .arg(directory)
            .arg("--target-dir")
            .arg(target().join("wasm-bindgen-cli")),
        LIMIT,
    )?;
    fs::remove_dir_all(target().join("wasm-bindgen-cli"))?;
    Ok(())
}

/// Returns the version of `package` in a lock file.
fn locked_version<'l>(lock: &'l str, package: &str) -> Option<&'l str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    #[test]
    fn reads_the_lock_file() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"9\"\n\n[[package]]\nname = \"a\"\nversion = \"0.2.1\"\n";
        assert_eq!(locked_version(lock, "a"), Some("0.2.1"));
        assert_eq!(locked_version(lock, "b"), None);
    }
}
