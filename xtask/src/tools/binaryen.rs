//! `wasm-opt` from the npm package binaryen: Binaryen's optimizer, compiled to JavaScript.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha512};
use tar::Archive;

use crate::process::{run, run_logged};
use crate::versions::{BINARYEN, BINARYEN_SHA512};
use crate::workspace::{build_key, cached};

const LIMIT: Duration = Duration::from_secs(600);

/// The files that wasm-opt needs. The second one says that it is not an ECMAScript module.
const FILES: [&str; 2] = ["package/bin/wasm-opt", "package/bin/package.json"];

/// Optimize for speed, for the features that rustc uses. A stripped module does not list them.
const ARGUMENTS: [&str; 8] = [
    "-O3",
    "--mvp-features",
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// wasm-opt.
pub(crate) struct Optimizer(PathBuf);

impl Optimizer {
    /// Returns `None` if npm cannot download: the filter works without wasm-opt, and is larger.
    pub(crate) fn find_or_get() -> Option<Self> {
        match cached(&format!("binaryen-{BINARYEN}"), get) {
            Ok(entry) => Some(Self(entry.join("wasm-opt"))),
            Err(error) => {
                eprintln!("  no wasm-opt: {error:#}");
                None
            }
        }
    }

    /// Writes an optimized copy of a module next to it, and returns its path. An existing copy of the same module is kept.
    pub(crate) fn optimized(&self, module: &Path) -> Result<PathBuf> {
        let (copy, key_file) = (module.with_extension("optimized.wasm"), module.with_extension("optimized.key"));
        let settings = ARGUMENTS.iter().copied().chain([BINARYEN]).map(str::as_bytes);
        let key = build_key(settings.chain([&*fs::read(module)?]));
        if copy.exists() && fs::read_to_string(&key_file).is_ok_and(|found| found == key) {
            return Ok(copy);
        }
        run(Command::new("node").arg(&self.0).args(ARGUMENTS).arg(module).arg("--output").arg(&copy))?;
        fs::write(key_file, key)?;
        Ok(copy)
    }
}

fn get(directory: &Path) -> Result<()> {
    eprintln!("Binaryen {BINARYEN}: getting wasm-opt from the npm package binaryen");
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", &format!("binaryen@{BINARYEN}"), "--pack-destination"]).arg(directory);
    run_logged("downloading Binaryen", &mut npm, LIMIT)
        .context("npm cannot download Binaryen (Node with npm and a registry with binaryen are required)")?;
    let archive = directory.join(format!("binaryen-{BINARYEN}.tgz"));
    let hash = format!("{:x}", Sha512::digest(fs::read(&archive)?));
    ensure!(hash == BINARYEN_SHA512, "{}: the SHA-512 hash is {hash}", archive.display());
    for entry in Archive::new(GzDecoder::new(File::open(&archive)?)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if FILES.iter().any(|file| path == Path::new(file)) {
            entry.unpack(directory.join(path.file_name().context("an entry has no name")?))?;
        }
    }
    fs::remove_file(archive)?;
    Ok(())
}
