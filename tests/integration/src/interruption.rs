//! Programs that clean up when they end, even if they are interrupted.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::Result;

use crate::scratch::Scratch;

enum Event {
    Interrupted,
    Ended(Result<()>),
}

/// Runs `show` in a new directory, and removes the directory at the end or at SIGINT and SIGTERM. With `keep`, an
/// interruption is the normal end.
pub fn run(keep: bool, show: impl FnOnce(&Scratch) -> Result<()> + Send + 'static) -> ExitCode {
    match run_to_end(keep, show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_to_end(keep: bool, show: impl FnOnce(&Scratch) -> Result<()> + Send + 'static) -> Result<()> {
    let scratch = Arc::new(Scratch::new()?);
    let (sender, receiver) = channel();
    let interrupted = sender.clone();
    ctrlc::set_handler(move || send(&interrupted, Event::Interrupted))?;
    let directory = Arc::clone(&scratch);
    thread::spawn(move || send(&sender, Event::Ended(show(&directory))));
    match receiver.recv()? {
        Event::Ended(result) => result,
        Event::Interrupted => {
            // The kernel ends the child processes. Only the directory is left.
            std::fs::remove_dir_all(scratch.path())?;
            std::process::exit(if keep { 0 } else { 130 })
        }
    }
}

/// The receiver is gone when the program ends.
fn send(sender: &Sender<Event>, event: Event) {
    let _ = sender.send(event);
}
