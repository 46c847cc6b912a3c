//! Every check and every test, in an order that fails early.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::bench::ADAPTERS;
use crate::process::{cargo, cargo_binary, shown};
use crate::tools::control_plane::ControlPlane;
use crate::tools::docker::{self, Engine};
use crate::tools::wasm::{BARE, WASI};
use crate::tools::{Tools, cargo_deny, promtool, wasm_bindgen};
use crate::{artifacts, images, monitoring, oci, workspace};

const SOAK_MINUTES: &str = "3";

/// Runs everything, with tests in containers if `with_compose`. Prints the results of the test runners and their sum.
pub(crate) fn run(with_compose: bool) -> Result<()> {
    let tools = Tools::find_or_get()?;
    // Start the engine early, because it can fail. It is stopped at the end of this function if it was started here.
    let engine = if with_compose { Some(containers()?) } else { None };
    let control_plane = ControlPlane::find_or_get()?;
    let checkers = Checkers {
        deny: cargo_deny::find_or_get()?,
        wasm_bindgen_runner: wasm_bindgen::find_or_get()?,
        promtool: promtool::find_or_get()?,
    };
    let mut report = Report::default();
    let result = steps(&tools, &control_plane, &checkers, engine.is_some(), &mut report);
    report.print();
    result
}

/// The programs that one step needs.
struct Checkers {
    deny: PathBuf,
    wasm_bindgen_runner: PathBuf,
    promtool: PathBuf,
}

fn containers() -> Result<Engine> {
    let engine =
        Engine::find_or_start().context("cannot run the tests in containers (use `--no-compose` to skip them)")?;
    images::find_or_get()?;
    Ok(engine)
}

fn steps(
    tools: &Tools,
    control_plane: &ControlPlane,
    checkers: &Checkers,
    with_compose: bool,
    report: &mut Report,
) -> Result<()> {
    report.check("format", cargo(&["fmt", "--all", "--check"]))?;
    report.check("clippy", cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut dependencies = Command::new(&checkers.deny);
    // The database of advisories is not part of the repository.
    dependencies.args(["--locked", "--workspace", "check", "licenses", "sources", "bans"]);
    dependencies.current_dir(workspace::root());
    report.check("licenses, sources and duplicates of the dependencies", dependencies)?;
    let core = ["test", "--locked", "--package", "spiffe-authz", "--features", "analysis"];
    report.tests("the core", cargo(&core))?;
    report.tests("the command and xtask", cargo(&["test", "--locked", "-p", "spiffe-authz-cli", "-p", "xtask"]))?;

    let mut rules = Command::new(&checkers.promtool);
    rules.args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(monitoring::rules());
    report.check("the syntax of the alert rules", rules)?;
    let mut tables = Command::new(&checkers.promtool);
    tables.args(["test", "rules"]).arg(monitoring::rules_test()).arg(monitoring::write_queries_test()?);
    report.check("the alert rules, and the queries of dashboard and documentation", tables)?;

    let fuzz = cargo(&["test", "--locked", "--package", "spiffe-authz-fuzz"]);
    report.tests("the seeds and findings of fuzzing", fuzz)?;

    let mut wasi = tools.wasm.cargo("test", WASI);
    wasi.args(["--package", "spiffe-authz", "--lib", "--test", "*"]);
    wasi.env(
        "CARGO_TARGET_WASM32_WASIP1_RUNNER",
        // node's WASI crashes in V8's fast calls if the memory of the module has become large (seen in 20.20).
        format!(
            "node --no-warnings --no-turbo-fast-api-calls {}",
            workspace::root().join("xtask/wasi-runner.mjs").display()
        ),
    );
    report.tests("the core on wasm32-wasip1, by node", wasi)?;
    let mut bare = tools.wasm.cargo("test", BARE);
    bare.args(["--package", "spiffe-authz", "--lib"]);
    bare.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", &checkers.wasm_bindgen_runner);
    report.tests("the core on wasm32-unknown-unknown, by wasm-bindgen-test", bare)?;

    let mut sanitized = cargo(&["test", "--locked", "--package", "spiffe-authz-dynamic-module"]);
    // With a target, the flags do not apply to build scripts. The sanitizer comes with the stable compiler.
    sanitized.args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"]).arg(workspace::target().join("sanitizer"));
    sanitized.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    report.tests("the dynamic module's hooks under AddressSanitizer", sanitized)?;

    artifacts::build(&tools.wasm)?;
    oci::build()?;
    let mut integration = cargo(&["test", "--locked", "--package", "spiffe-authz-integration"]);
    tools.describe_to(&mut integration);
    integration.env("SPIFFE_AUTHZ_MODULE_PANICKING", artifacts::build_panicking_module()?);
    if with_compose {
        integration.env("SPIFFE_AUTHZ_DOCKER", docker::client()?);
    } else {
        println!("\n── skipping the tests in containers (--no-compose)");
        integration.args(["--", "--skip", "containers::"]);
    }
    report.tests("real Envoy and real SPIRE", integration)?;
    let mut mesh = cargo(&["test", "--locked", "--package", "spiffe-authz-mesh"]);
    tools.describe_to(&mut mesh);
    control_plane.describe_to(&mut mesh);
    report.tests("a mesh: real Kubernetes, Istio, SPIRE and Envoys", mesh)?;
    for adapter in ADAPTERS {
        let mut soak = cargo_binary("run", "spiffe-authz-integration", "soak");
        tools.describe_to(soak.args(["--", adapter, SOAK_MINUTES]));
        report.check(&format!("a short soak, {adapter}"), soak)?;
    }
    let mut doc = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    report.check("documentation", doc)
}

/// The steps, their duration, and the results of the test runners.
#[derive(Default)]
struct Report {
    steps: Vec<(String, u64)>,
    closing_lines: Vec<String>,
    counts: Counts,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Report {
    /// Runs a step without tests.
    fn check(&mut self, name: &str, command: Command) -> Result<()> {
        self.step(name, command).map(|_| ())
    }

    /// Runs a step that must run at least one test.
    fn tests(&mut self, name: &str, command: Command) -> Result<()> {
        if self.step(name, command)? == Counts::default() {
            bail!("{name}: no test ran");
        }
        Ok(())
    }

    fn step(&mut self, name: &str, mut command: Command) -> Result<Counts> {
        println!("\n── {name}: {}", shown(&command));
        let start = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("{}: cannot start", shown(&command)))?;
        let mut counts = Counts::default();
        for line in BufReader::new(child.stdout.take().context("no output to read")?).lines() {
            let line = line?;
            println!("{line}");
            if let Some(closing) = closing_line(&line) {
                counts.passed += closing.passed;
                counts.failed += closing.failed;
                self.closing_lines.push(format!("{name}: {line}"));
            }
        }
        let status = child.wait()?;
        self.counts.passed += counts.passed;
        self.counts.failed += counts.failed;
        self.steps.push((name.to_owned(), start.elapsed().as_secs()));
        if !status.success() {
            bail!("{name} failed: {}", shown(&command));
        }
        Ok(counts)
    }

    fn print(&self) {
        println!("\n── summary");
        for (name, seconds) in &self.steps {
            println!("{seconds:>5} s  {name}");
        }
        for line in &self.closing_lines {
            println!("{line}");
        }
        println!("{} passed, {} failed", self.counts.passed, self.counts.failed);
    }
}

/// Parses the counts in `test result: ok. 8 passed; 0 failed; …`.
fn closing_line(line: &str) -> Option<Counts> {
    let mut words = line.strip_prefix("test result: ")?.split_whitespace().skip(1);
    let passed = words.next()?.parse().ok()?;
    let failed = words.nth(1)?.parse().ok()?;
    Some(Counts { passed, failed })
}

#[cfg(test)]
mod tests {
    use super::{Counts, closing_line};

    #[test]
    fn reads_closing_lines() {
        let line = "test result: FAILED. 8 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(closing_line(line), Some(Counts { passed: 8, failed: 2 }));
        assert_eq!(closing_line("running 8 tests"), None);
    }
}
