//! The command kubectl for the cluster of the environment.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::tools;

/// kubectl with its configuration.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// Uses the cluster of `kubeconfig`. The cache of kubectl is next to this file.
    ///
    /// # Errors
    /// Returns an error if kubectl is not installed.
    pub fn new(kubeconfig: PathBuf) -> Result<Self> {
        let cache = kubeconfig.with_extension("cache");
        Ok(Self { program: tools::path(tools::KUBERNETES, "kubectl")?, kubeconfig, cache })
    }

    /// The kubeconfig of the cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The path of kubectl.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        command
    }

    /// Runs `kubectl ARGUMENTS…` and returns its output.
    ///
    /// # Errors
    /// Returns an error with the output if the command fails.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        finish(self.command(arguments).stdin(Stdio::null()))
    }

    /// Runs `kubectl ARGUMENTS…`, which must fail, and returns its error output.
    ///
    /// # Errors
    /// Returns an error if the command succeeds.
    pub fn rejected<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output()?;
        ensure!(!output.status.success(), "kubectl succeeded: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// Returns an error if the API server rejects one.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests)
    }

    /// Runs `kubectl ARGUMENTS…` with this input.
    ///
    /// # Errors
    /// Returns an error with the output if the command fails.
    pub fn with_input<A: AsRef<OsStr>>(&self, arguments: &[A], input: &str) -> Result<String> {
        with_input(&mut self.command(arguments), input)
    }

    /// Returns the result of `kubectl get ARGUMENTS… -o json`.
    ///
    /// # Errors
    /// Returns an error if it fails.
    pub fn get<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Value> {
        let mut command = self.command(&["get", "-o", "json"]);
        Ok(serde_json::from_str(&finish(command.args(arguments).stdin(Stdio::null()))?)?)
    }

    /// Returns the items of `kubectl get ARGUMENTS… -o json`.
    ///
    /// # Errors
    /// Returns an error if it fails.
    pub fn list<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Vec<Value>> {
        let Value::Array(items) = self.get(arguments)?["items"].take() else { bail!("kubectl printed no list") };
        Ok(items)
    }
}

/// Runs a command and returns its output.
///
/// # Errors
/// Returns an error with the output if the command fails.
pub fn finish(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("{shown}: cannot start"))?;
    succeeded(&shown, output)
}

/// Runs a command with this input and returns its output.
///
/// # Errors
/// Returns an error with the output if the command fails.
pub fn with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown}: cannot start"))?;
    // kubectl reads its input to the end before it prints more than a pipe can buffer. Dropping the pipe closes it.
    child.stdin.take().context("no input to write to")?.write_all(input.as_bytes())?;
    succeeded(&shown, child.wait_with_output()?)
}

fn succeeded(shown: &str, output: Output) -> Result<String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{shown}: {}\n{stderr}{stdout}", output.status);
    Ok(stdout.into_owned())
}

/// The command line.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
