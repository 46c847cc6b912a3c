//! `wasm-opt` from the npm package binaryen: Binaryen's optimizer, compiled to JavaScript.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::npm;
use crate::process::run;
use crate::versions::{BINARYEN, BINARYEN_SHA512};
use crate::workspace::{build_key, cached};

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
    npm::unpack("binaryen", BINARYEN, BINARYEN_SHA512, &FILES, directory)
}
