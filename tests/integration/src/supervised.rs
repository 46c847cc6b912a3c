//! A program that starts again when it ends, as the container of a pod does.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::Process;

const INTERVAL: Duration = Duration::from_millis(200);

/// A running program that is started again when it ends. Dropping it ends the program.
#[derive(Debug)]
pub struct Supervised {
    /// A message restarts the program, which is then confirmed. Dropping the sender stops the thread.
    restart: Option<Sender<Sender<()>>>,
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
        let (restart, asked) = mpsc::channel::<Sender<()>>();
        let supervise = move || {
            let mut starts = 0;
            loop {
                let confirmation = match (asked.recv_timeout(INTERVAL), process.check_running()) {
                    (Err(RecvTimeoutError::Disconnected), _) => return,
                    (Err(RecvTimeoutError::Timeout), Ok(())) => continue,
                    (Err(RecvTimeoutError::Timeout), Err(end)) => {
                        println!("{name} is started again: {end:#}");
                        None
                    }
                    (Ok(confirmation), _) => {
                        process.terminate();
                        Some(confirmation)
                    }
                };
                starts += 1;
                match start(starts) {
                    Ok(started) => process = started,
                    Err(error) => println!("{name} cannot be started again: {error:#}"),
                }
                // Nobody can wait for the confirmation any longer.
                let _ = confirmation.map(|confirmation| confirmation.send(()));
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(supervise).context("cannot start a thread")?;
        Ok(Self { restart: Some(restart), thread: Some(thread) })
    }

    /// Ends the program, and starts it again.
    ///
    /// # Errors
    /// Returns an error if the thread that supervises the program has panicked.
    pub fn restart(&self) -> Result<()> {
        let (confirmation, confirmed) = mpsc::channel();
        self.restart.as_ref().context("the program has ended")?.send(confirmation)?;
        Ok(confirmed.recv()?)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.restart.take());
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

    /// The first two starts end at once. The third one continues, until it is told to start again.
    #[test]
    fn starts_again_until_it_is_dropped() -> Result<()> {
        let scratch = Scratch::new()?;
        let directory = scratch.path().to_owned();
        let start = move |number: usize| {
            let script = if number < 2 { "exit 1" } else { "echo running; exec sleep 1000" };
            Process::start(Command::new("sh").args(["-c", script]), &directory, &format!("program-{number}"))
        };
        let supervised = Supervised::new("program", start(0)?, start)?;
        let running = |number: usize| {
            let output = scratch.path().join(format!("program-{number}.out"));
            wait::until("a start", LIMIT, || {
                Ok(fs::read_to_string(&output).is_ok_and(|text| text == "running\n").then_some(()))
            })
        };
        running(2)?;
        supervised.restart()?;
        running(3)?;
        drop(supervised);
        assert!(!scratch.path().join("program-4.out").exists(), "it was started once more");
        Ok(())
    }
}
