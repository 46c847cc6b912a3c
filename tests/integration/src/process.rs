//! A child process that ends with its owner, even if the owner is killed.
#![expect(unsafe_code, reason = "prctl and kill are C functions")]

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait;

const TAIL_LINES: usize = 30;
const TERMINATION_LIMIT: Duration = Duration::from_secs(3);

/// A running program whose output goes to files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`. The output goes to `<name>.out` and `<name>.err` in `directory`.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
    pub fn start(command: &mut Command, directory: &Path, name: &str) -> Result<Self> {
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.err"));
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let parent = std::process::id();
        // SAFETY: only async-signal-safe functions are called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // The kernel kills the child when the thread that started it ends, even after SIGKILL.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // The parent can have ended before this call.
                if u32::try_from(libc::getppid()) == Ok(parent) {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::Other.into())
                }
            });
        }
        let child = command.spawn().with_context(|| format!("{}: cannot start", command.get_program().display()))?;
        Ok(Self { child, stdout, stderr })
    }

    /// Returns the standard output so far.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.stdout)?).into_owned())
    }

    /// Returns the standard error so far.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.stderr)?).into_owned())
    }

    /// Returns the process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status if the process has ended.
    ///
    /// # Errors
    /// Returns an error if the status is not available.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Checks that the process runs.
    ///
    /// # Errors
    /// Returns an error with the end of its log if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            anyhow::bail!("{} ended early ({status}):\n{}", self.stderr.display(), self.tail());
        }
        Ok(())
    }

    /// Kills the process, as a crash would.
    ///
    /// # Errors
    /// Returns an error if it cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the process if it runs, and waits until it has ended.
    pub fn terminate(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id())
            && matches!(self.child.try_wait(), Ok(None))
        {
            // SAFETY: the child was not waited for, so the process ID still identifies it.
            unsafe { libc::kill(pid, libc::SIGTERM) };
            let ended = wait::until("end of a child", TERMINATION_LIMIT, || Ok(self.child.try_wait()?));
            if ended.is_err() {
                // There is no remedy if the child survives SIGKILL.
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }

    /// Returns the last lines of the log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log().unwrap_or_default() + &self.output().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("── end of {}:\n{}", self.stderr.display(), self.tail());
        }
        self.terminate();
    }
}
