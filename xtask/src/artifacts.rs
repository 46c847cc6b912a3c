//! Builds the files that users install, in target/dist.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, run};
use crate::tools::binaryen::Optimizer;
use crate::tools::wasm::{Toolchain, WASI};
use crate::workspace;

/// The maximum size of the Wasm filter after wasm-opt. Every proxy of a mesh downloads the filter.
const MAX_WASM_BYTES: u64 = 500_000;

/// Builds the Wasm filter, the dynamic module and the command.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    let size = build_wasm(toolchain)?;
    eprintln!("building the dynamic module and the command");
    run(native().args(["--profile", "module", "--package", "spiffe-authz-dynamic-module"]))?;
    install(&workspace::target().join("module").join(MODULE), "libspiffe_authz.so")?;
    build_command()?;
    describe_command()?;
    eprintln!("built in target/dist: spiffe-authz.wasm ({size} bytes), libspiffe_authz.so and spiffe-authz");
    Ok(())
}

/// Builds the command alone. Returns its path.
pub(crate) fn build_command() -> Result<PathBuf> {
    fs::create_dir_all(workspace::dist())?;
    let mut command = native();
    command.args(["--release", "--package", "spiffe-authz-cli"]);
    if let Some(commit) = commit() {
        command.env("SPIFFE_AUTHZ_COMMIT", commit);
    }
    run(&mut command)?;
    install(&workspace::target().join("release/spiffe-authz"), "spiffe-authz")?;
    Ok(workspace::dist().join("spiffe-authz"))
}

/// The shells that have a completion script, with the name of the file that each expects.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "spiffe-authz"), ("fish", "spiffe-authz.fish"), ("zsh", "_spiffe-authz")];

/// Writes the manual pages and the completion scripts of the command, for packages.
fn describe_command() -> Result<()> {
    let command = || Command::new(workspace::dist().join("spiffe-authz"));
    let manual = workspace::dist().join("man/man1");
    fs::create_dir_all(&manual)?;
    run(command().arg("man").arg(manual))?;
    for (shell, name) in COMPLETIONS {
        let directory = workspace::dist().join("completions").join(shell);
        fs::create_dir_all(&directory)?;
        run(command().args(["completions", shell]).stdout(File::create(directory.join(name))?))?;
    }
    Ok(())
}

/// Returns the commit that `spiffe-authz --version` prints, or `None` outside a Git repository.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    let output = git.current_dir(workspace::root()).args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds the Wasm filter alone. Returns the size in bytes.
pub(crate) fn build_wasm(toolchain: &Toolchain) -> Result<u64> {
    fs::create_dir_all(workspace::dist())?;
    eprintln!("building the Wasm filter");
    let Filter { path: wasm, is_optimized } = build_filter(toolchain, "spiffe-authz-wasm")?;
    let size = fs::metadata(&wasm).with_context(|| format!("{}: cannot read the built file", wasm.display()))?.len();
    if is_optimized && size > MAX_WASM_BYTES {
        bail!("the filter has {size} bytes, more than {MAX_WASM_BYTES}");
    }
    install(&wasm, "spiffe-authz.wasm")?;
    Ok(size)
}

/// Builds the dynamic module with a header that causes a panic, for the tests.
pub(crate) fn build_panicking_module() -> Result<PathBuf> {
    run(native().args(["--package", "spiffe-authz-dynamic-module", "--features", "panic-on-request"]))?;
    Ok(workspace::target().join("debug").join(MODULE))
}

/// Builds the dynamic module that does nothing, for the benchmark.
pub(crate) fn build_empty_module() -> Result<PathBuf> {
    run(native().args(["--profile", "module", "--package", "spiffe-authz-empty-module"]))?;
    Ok(workspace::target().join("module/libspiffe_authz_empty_module.so"))
}

/// The file name that Cargo gives the dynamic module.
const MODULE: &str = "libspiffe_authz_dynamic_module.so";

fn native() -> Command {
    cargo(&["build", "--quiet", "--locked"])
}

/// A proxy-wasm filter.
pub(crate) struct Filter {
    pub(crate) path: PathBuf,
    /// Whether wasm-opt has made it smaller, by an eighth.
    is_optimized: bool,
}

/// Builds a package with a proxy-wasm filter.
pub(crate) fn build_filter(toolchain: &Toolchain, package: &str) -> Result<Filter> {
    let mut cargo = toolchain.cargo("build", WASI);
    cargo.args(["--quiet", "--profile", "wasm", "--package", package]);
    cargo.env("CARGO_TARGET_WASM32_WASIP1_LINKER", workspace::root().join("envoy/wasm/link.sh"));
    cargo.env("LINKER", toolchain.linker()?);
    run(&mut cargo)?;
    let file = format!("wasm/{}.wasm", package.replace('-', "_"));
    let path = toolchain.target_directory().join(WASI).join(file);
    Ok(match Optimizer::find_or_get() {
        Some(optimizer) => Filter { path: optimizer.optimized(&path)?, is_optimized: true },
        None => Filter { path, is_optimized: false },
    })
}

/// Copies the file under a temporary name and renames it, so that no program loads a partial file.
fn install(from: &Path, name: &str) -> Result<()> {
    let part = workspace::dist().join(format!("{name}.part"));
    fs::copy(from, &part).with_context(|| format!("{}: cannot copy the file", from.display()))?;
    fs::rename(&part, workspace::dist().join(name))?;
    Ok(())
}
