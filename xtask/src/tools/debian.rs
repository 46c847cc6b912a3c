//! Debian's packages.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{output, run_logged};

const LIMIT: Duration = Duration::from_secs(900);

/// Installs packages.
///
/// # Errors
/// Returns an error with the command for root if this user is not root, or if `apt-get` fails.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let remedy = format!("as root: apt-get update && apt-get install {}", packages.join(" "));
    if !is_root() {
        bail!("packages are missing ({remedy})");
    }
    run_logged("apt-get update", Command::new("apt-get").args(["update", "-qq"]), LIMIT)
        .with_context(|| remedy.clone())?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-qq", "--no-install-recommends"]);
    run_logged(&format!("apt-get install {}", packages.join(" ")), install.args(packages), LIMIT).context(remedy)
}

/// Returns `true` if this user is root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0")
}
