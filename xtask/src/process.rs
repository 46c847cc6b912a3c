//! Runs other programs, in the foreground or with a log file.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};

use crate::workspace;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const LOG_TAIL_LINES: usize = 20;

/// Returns `cargo` with these arguments, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root()).args(arguments);
    cargo
}

/// Returns `cargo SUBCOMMAND` for a binary of a package. The arguments of the binary follow after `--`.
pub(crate) fn cargo_binary(subcommand: &str, package: &str, binary: &str) -> Command {
    cargo(&[subcommand, "--quiet", "--locked", "--package", package, "--bin", binary])
}

/// Runs `command` with the output of this process, and waits for its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{}: cannot start", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Replaces this process with `command`, so that a signal reaches it. Returns only if this fails.
pub(crate) fn replace(command: &mut Command) -> Error {
    let error = command.exec();
    Error::new(error).context(format!("{}: cannot start", shown(command)))
}

/// Returns the standard output of `command`, or `None` if it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a long step with its output in a log file, and prints a line every 15 seconds.
pub(crate) fn run_logged(what: &str, command: &mut Command, limit: Duration) -> Result<()> {
    let log = log_file(what)?;
    eprintln!("  {what} … (log: {})", log.display());
    let file = File::create(&log).with_context(|| format!("{}: cannot write the file", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("{}: cannot start", shown(command)))?;
    let start = Instant::now();
    let mut next_line = PROGRESS_INTERVAL;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{what}: not finished after {} s; see {}", limit.as_secs(), log.display());
        }
        if start.elapsed() > next_line {
            eprintln!("  {what}: {} s", start.elapsed().as_secs());
            next_line += PROGRESS_INTERVAL;
        }
        thread::sleep(POLL_INTERVAL);
    };
    if !status.success() {
        eprintln!("{}", tail(&log)?);
        bail!("{what} failed ({status}); see {}", log.display());
    }
    eprintln!("  {what}: done in {} s", start.elapsed().as_secs());
    Ok(())
}

fn log_file(what: &str) -> Result<PathBuf> {
    let directory = workspace::target().join("xtask-logs");
    std::fs::create_dir_all(&directory)?;
    let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(directory.join(format!("{name}.log")))
}

fn tail(log: &Path) -> Result<String> {
    let mut text = Vec::new();
    File::open(log)?.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
}

/// Returns the command line.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
