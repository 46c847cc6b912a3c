//! A Rust toolchain for WebAssembly: rustup's targets, or Debian's compiler with the sources of the standard library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::process::{output, run_logged};
use crate::versions::{DEBIAN_WASM_LINKER, DEBIAN_WASM_PACKAGES};
use crate::workspace;

/// The target of the filter in Envoy.
pub(crate) const WASI: &str = "wasm32-wasip1";
/// The target of wasm-bindgen-test.
pub(crate) const BARE: &str = "wasm32-unknown-unknown";

const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// The source of the compiler.
pub(crate) enum Toolchain {
    /// rustup, with both targets.
    Rustup,
    /// Debian's packages. Cargo also builds the standard library.
    Debian,
}

impl Toolchain {
    /// Uses rustup, or Debian's packages if rustup cannot download.
    pub(crate) fn find_or_get() -> Result<Self> {
        if rustup_has_targets() {
            return Ok(Self::Rustup);
        }
        if debian_is_complete() {
            return Ok(Self::Debian);
        }
        eprintln!("WebAssembly targets: installing {WASI} and {BARE} with rustup");
        let mut rustup = Command::new("rustup");
        match run_logged("rustup target add", rustup.args(["target", "add", WASI, BARE]), RUSTUP_LIMIT) {
            Ok(()) => return Ok(Self::Rustup),
            Err(error) => eprintln!("  rustup failed: {error:#}"),
        }
        eprintln!("WebAssembly targets: installing Debian's compiler instead: {}", DEBIAN_WASM_PACKAGES.join(" "));
        debian::install(&DEBIAN_WASM_PACKAGES)?;
        if debian_is_complete() {
            return Ok(Self::Debian);
        }
        bail!("Debian's packages are installed, but a file of the WebAssembly toolchain is missing")
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Rustup => "WebAssembly by rustup",
            Self::Debian => "WebAssembly by Debian's rustc, which builds the standard library along",
        }
    }

    /// Returns `cargo SUBCOMMAND` for `target`.
    pub(crate) fn cargo(&self, subcommand: &str, target: &str) -> Command {
        let mut command;
        match self {
            Self::Rustup => {
                command = Command::new("cargo");
                command.arg(subcommand);
            }
            Self::Debian => {
                let variable = target.to_uppercase().replace('-', "_");
                command = Command::new("/usr/bin/cargo");
                command
                    .arg(subcommand)
                    .args(["-Z", "build-std=std,panic_abort"])
                    .env("PATH", "/usr/bin:/bin")
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env(format!("CARGO_TARGET_{variable}_LINKER"), DEBIAN_WASM_LINKER);
                if target == WASI {
                    let mut flags = "-L native=/usr/lib/wasm32-wasi -C link-self-contained=no".to_owned();
                    if subcommand == "test" {
                        // The startup file that calls `main`. A module without `main` must not contain it.
                        flags.push_str(" -C link-arg=/usr/lib/wasm32-wasi/crt1-command.o");
                        // The test harness of std uses thread functions that a libc without threads does not have.
                        flags.push_str(" -C link-arg=--unresolved-symbols=ignore-all");
                    }
                    command.env(format!("CARGO_TARGET_{variable}_RUSTFLAGS"), flags);
                }
                // The variables of rustup's cargo, which started this program, would select the wrong compiler.
                for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "RUSTFLAGS", "RUSTC_WRAPPER"] {
                    command.env_remove(variable);
                }
            }
        }
        command.current_dir(workspace::root()).args(["--locked", "--target", target]);
        command.arg("--target-dir").arg(self.target_directory());
        command
    }

    /// Returns the linker for WebAssembly.
    pub(crate) fn linker(&self) -> Result<PathBuf> {
        match self {
            Self::Rustup => {
                let libraries = output(Command::new("rustc").args(["--print", "target-libdir"]));
                let libraries = libraries.context("rustc does not print the directory of its libraries")?;
                // Next to the libraries of the target that the compiler runs on.
                Ok(Path::new(libraries.trim()).with_file_name("bin").join("rust-lld"))
            }
            Self::Debian => Ok(Path::new("/usr/bin").join(DEBIAN_WASM_LINKER)),
        }
    }

    /// Returns a separate directory for Debian's compiler, because two compilers in one directory rebuild everything in
    /// turn.
    pub(crate) fn target_directory(&self) -> PathBuf {
        match self {
            Self::Rustup => workspace::target(),
            Self::Debian => workspace::target().join("debian"),
        }
    }
}

fn rustup_has_targets() -> bool {
    let installed = output(Command::new("rustup").args(["target", "list", "--installed"])).unwrap_or_default();
    [WASI, BARE].iter().all(|target| installed.lines().any(|line| line == *target))
}

fn debian_is_complete() -> bool {
    let sysroot = output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"])).unwrap_or_default();
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
    let linker = Path::new("/usr/bin").join(DEBIAN_WASM_LINKER);
    let libc = Path::new("/usr/lib/wasm32-wasi/libc.a");
    let cargo = Path::new("/usr/bin/cargo");
    [&*sources, &*linker, libc, cargo].iter().all(|path| path.exists())
}
