//! Builds what a user installs, into target/dist.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::run;
use crate::tools::wasm::{Toolchain, WASI};
use crate::workspace;

/// What the filter may weigh: every proxy of a mesh downloads it.
const MAX_WASM_BYTES: u64 = 450_000;

/// Builds the filter and the command.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    fs::create_dir_all(workspace::dist())?;
    eprintln!("building the filter and the command");
    let wasm = build_filter(toolchain, "spiffe-authz-wasm")?;
    let size = fs::metadata(&wasm).with_context(|| format!("{} was not built", wasm.display()))?.len();
    if size > MAX_WASM_BYTES {
        bail!("the filter has {size} bytes, more than {MAX_WASM_BYTES}");
    }
    install(&wasm, "spiffe-authz.wasm")?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    run(cargo.args(["build", "--quiet", "--locked", "--release", "--package", "spiffe-authz-cli"]))?;
    install(&workspace::target().join("release/spiffe-authz"), "spiffe-authz")?;
    eprintln!("built target/dist/spiffe-authz.wasm ({size} bytes) and target/dist/spiffe-authz");
    Ok(())
}

/// Builds a package that is a proxy-wasm filter.
pub(crate) fn build_filter(toolchain: &Toolchain, package: &str) -> Result<PathBuf> {
    run(toolchain.cargo("build", WASI).args(["--quiet", "--profile", "wasm", "--package", package]))?;
    let file = format!("wasm/{}.wasm", package.replace('-', "_"));
    Ok(toolchain.target_directory().join(WASI).join(file))
}

/// Copies beside the place and renames, so that nobody loads half a file.
fn install(from: &Path, name: &str) -> Result<()> {
    let part = workspace::dist().join(format!("{name}.part"));
    fs::copy(from, &part).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&part, workspace::dist().join(name))?;
    Ok(())
}
