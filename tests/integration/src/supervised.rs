//! A program that starts again when it ends, as the container of a pod does.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::Process;

const INTERVAL: Duration = Duration::from_millis(200);

/// A running program that is started again when it ends. Dropping it ends the program.
#[derive(Debug)]
pub struct Supervised {
    // Dropping the sender stops the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervised {
    /// Supervises a running `process`. `start` starts it again: its argument counts the starts, and the first start is
    /// not one of them. Each end of the program is printed, with the end of its log.
    ///
    /// # Errors
    /// Returns an error if no thread can be started.
    pub fn new(
        name: &'static str,
        mut process: Process,
        start: impl Fn(usize) -> Result<Process> + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let supervise = move || {
            let mut starts = 0;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let Err(end) = process.check_running() else { continue };
                println!("{name} is started again: {end:#}");
                starts += 1;
                match start(starts) {
                    Ok(started) => process = started,
                    Err(error) => println!("{name} cannot be started again: {error:#}"),
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(supervise).context("cannot start a thread")?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::scratch::Scratch;
    use crate::wait;

    const LIMIT: Duration = Duration::from_secs(20);

    /// The first two starts end at once. The third one continues, until its owner ends it.
    #[test]
    fn starts_again_until_it_is_dropped() -> Result<()> {
        let scratch = Scratch::new()?;
        let directory = scratch.path().to_owned();
        let start = move |number: usize| {
            let script = if number < 2 { "exit 1" } else { "echo running; exec sleep 1000" };
            Process::start(Command::new("sh").args(["-c", script]), &directory, &format!("program-{number}"))
        };
        let supervised = Supervised::new("program", start(0)?, start)?;
        let output = scratch.path().join("program-2.out");
        wait::until("the third start", LIMIT, || {
            Ok(fs::read_to_string(&output).is_ok_and(|text| text == "running\n").then_some(()))
        })?;
        drop(supervised);
        assert!(!scratch.path().join("program-3.out").exists(), "it was started a fourth time");
        Ok(())
    }
}
