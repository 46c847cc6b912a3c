//! Fuzzing: the targets of `fuzz` with libFuzzer and AddressSanitizer, built by the stable compiler.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace};

/// The names of the targets in `fuzz`.
pub(crate) const TARGETS: [&str; 6] = ["spiffe_id", "certificate", "xfcc", "metadata", "document", "decide"];

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The flags of cargo-fuzz: coverage for libFuzzer, and the sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1 -Cdebug-assertions";

/// Fuzzes one target or all of them, each for this number of minutes.
pub(crate) fn run(target: Option<&str>, minutes: u64) -> Result<()> {
    let chosen: Vec<&str> = TARGETS.into_iter().filter(|name| target.is_none_or(|target| target == *name)).collect();
    let build = workspace::target().join("fuzz");
    let mut cargo = cargo("build");
    cargo.args(["--release", "--features", "libfuzzer", "--target", TRIPLE, "--target-dir"]).arg(&build);
    cargo.args(chosen.iter().flat_map(|name| ["--bin", name]));
    process::run(cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS))?;
    for name in chosen {
        fuzz(name, build.join(TRIPLE).join("release").join(name), minutes)?;
    }
    Ok(())
}

fn fuzz(name: &str, program: PathBuf, minutes: u64) -> Result<()> {
    let corpus = workspace::target().join("fuzz-corpus").join(name);
    let seeds = workspace::target().join("fuzz-seeds").join(name);
    let found = workspace::root().join("fuzz/found").join(name);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    process::run(cargo("run").args(["--bin", "seeds", "--", name]).arg(&seeds))?;
    let mut fuzzer = Command::new(program);
    fuzzer.arg(format!("-max_total_time={}", minutes * 60)).args(["-timeout=10", "-print_final_stats=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/", found.display())).arg(corpus).arg(seeds);
    let status = fuzzer.status().with_context(|| format!("{name}: cannot start the target"))?;
    // Removes the folder if it has no findings, so that it is not committed.
    let _ = fs::remove_dir(&found);
    ensure!(status.success(), "{name}: an input breaks a property; it is in {}", found.display());
    Ok(())
}

fn cargo(subcommand: &str) -> Command {
    process::cargo(&[subcommand, "--quiet", "--locked", "--package", "spiffe-authz-fuzz"])
}
