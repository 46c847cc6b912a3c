//! The command kubectl, on the cluster of the environment.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    /// For the cluster of `kubeconfig`; what kubectl caches goes beside it.
    ///
    /// # Errors
    /// Returns an error if there is no kubectl.
    pub fn new(kubeconfig: PathBuf) -> Result<Self> {
        let cache = kubeconfig.with_extension("cache");
        Ok(Self { program: tools::path(tools::KUBERNETES, "kubectl")?, kubeconfig, cache })
    }

    /// The file that tells clients where the cluster is.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        command
    }

    /// Runs `kubectl ARGUMENTS…`; returns what it prints.
    ///
    /// # Errors
    /// Returns an error if it fails; with what it says.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        finish(self.command(arguments).stdin(Stdio::null()))
    }

    /// Runs `kubectl ARGUMENTS…`, which must fail; returns what it says.
    ///
    /// # Errors
    /// Returns an error if it does not fail.
    pub fn refused<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output()?;
        ensure!(!output.status.success(), "kubectl did it: {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Applies the manifests of a text.
    ///
    /// # Errors
    /// Returns an error if one is not admitted.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests)
    }

    /// Runs `kubectl ARGUMENTS…` on a text.
    ///
    /// # Errors
    /// Returns an error if it fails; with what it says.
    pub fn with_input<A: AsRef<OsStr>>(&self, arguments: &[A], input: &str) -> Result<String> {
        with_input(&mut self.command(arguments), input)
    }

    /// What `kubectl get ARGUMENTS… -o json` prints.
    ///
    /// # Errors
    /// Returns an error if it fails.
    pub fn get<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Value> {
        let mut command = self.command(&["get", "-o", "json"]);
        Ok(serde_json::from_str(&finish(command.args(arguments).stdin(Stdio::null()))?)?)
    }

    /// The items of `kubectl get ARGUMENTS… -o json`.
    ///
    /// # Errors
    /// Returns an error if it fails.
    pub fn list<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Vec<Value>> {
        let Value::Array(items) = self.get(arguments)?["items"].take() else { bail!("kubectl printed no list") };
        Ok(items)
    }
}

/// Runs a command to its end; returns what it prints.
///
/// # Errors
/// Returns an error if it fails; with what it says.
pub fn finish(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{shown}: {}\n{stderr}{stdout}", output.status);
    Ok(stdout.into_owned())
}

/// Runs a command on a text; returns what it prints.
///
/// # Errors
/// Returns an error if it fails; with what it says.
pub fn with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    // It reads to the end before it prints more than a pipe holds; dropping the pipe is that end.
    child.stdin.take().context("no input to write to")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{shown}: {}\n{stderr}{stdout}", output.status);
    Ok(stdout.into_owned())
}

/// A command as a person would type it, without the directories of the programs.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
