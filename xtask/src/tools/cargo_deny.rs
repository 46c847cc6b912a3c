//! `cargo-deny`, which checks the dependencies against `deny.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::run_logged;
use crate::versions::CARGO_DENY;
use crate::workspace::{cached, target};

const LIMIT: Duration = Duration::from_secs(1800);

/// Returns the path of the program.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    Ok(cached(&format!("cargo-deny-{CARGO_DENY}"), get)?.join("bin/cargo-deny"))
}

fn get(directory: &Path) -> Result<()> {
    eprintln!("cargo-deny {CARGO_DENY}: building it (five minutes)");
    let build = target().join("cargo-deny");
    run_logged(
        "building cargo-deny",
        Command::new("cargo")
            .args(["install", "cargo-deny", "--locked", "--no-track", "--version", CARGO_DENY, "--root"])
            .arg(directory)
            .arg("--target-dir")
            .arg(&build),
        LIMIT,
    )?;
    fs::remove_dir_all(build)?;
    Ok(())
}
