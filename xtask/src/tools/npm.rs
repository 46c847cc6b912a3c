//! Packages of npm, by version and hash.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha512};
use tar::Archive;

use crate::process::run_logged;

const LIMIT: Duration = Duration::from_secs(600);

/// Downloads a package, and copies some of its files to a directory, without their folders.
///
/// # Errors
/// Returns an error if npm cannot download, or if the package has another SHA-512 hash or lacks a file.
pub(crate) fn unpack(package: &str, version: &str, sha512: &str, files: &[&str], directory: &Path) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", &format!("{package}@{version}"), "--pack-destination"]).arg(directory);
    run_logged(&format!("downloading {package}"), &mut npm, LIMIT)
        .with_context(|| format!("npm cannot download {package} (Node with npm and a registry are required)"))?;
    let name = package.trim_start_matches('@').replace('/', "-");
    let archive = directory.join(format!("{name}-{version}.tgz"));
    let hash = format!("{:x}", Sha512::digest(fs::read(&archive)?));
    ensure!(hash == sha512, "{}: the SHA-512 hash is {hash}", archive.display());
    let mut found = 0;
    for entry in Archive::new(GzDecoder::new(File::open(&archive)?)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if files.iter().any(|file| path == Path::new(file)) {
            entry.unpack(directory.join(path.file_name().context("an entry has no name")?))?;
            found += 1;
        }
    }
    ensure!(found == files.len(), "{}: expected {} files, found {found}", archive.display(), files.len());
    fs::remove_file(archive)?;
    Ok(())
}
