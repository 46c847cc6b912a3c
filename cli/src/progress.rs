//! The progress of a command that takes longer than two seconds, on a terminal. It ends with the first output.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The time after which the progress is shown, and the time between two updates.
const DELAYS: [Duration; 2] = [Duration::from_secs(2), Duration::from_millis(500)];
/// Moves to the start of the line, and clears it.
const CLEAR: &[u8] = b"\r\x1b[K";

/// The lines of logs that were read.
static LINES: AtomicU64 = AtomicU64::new(0);
static LINE: Mutex<Line> = Mutex::new(Line::Hidden);

/// The line with the progress.
enum Line {
    Hidden,
    Shown,
    /// The command writes its output.
    Ended,
}

/// Shows the progress from now on, unless the user types the input.
pub(crate) fn start() {
    let reads_input = env::args_os().any(|argument| argument == "-" || argument == "--log");
    if io::stderr().is_terminal() && !(reads_input && io::stdin().is_terminal()) {
        let start = Instant::now();
        thread::spawn(move || {
            let [first, next] = DELAYS;
            thread::sleep(first);
            while show(start.elapsed()) {
                thread::sleep(next);
            }
        });
    }
}

/// Counts a line of a log.
pub(crate) fn count_line() {
    LINES.fetch_add(1, Ordering::Relaxed);
}

/// Shows the elapsed time. Returns `false` if the progress has ended.
fn show(elapsed: Duration) -> bool {
    // Everything locks standard error first, because a command can hold it while it writes.
    let mut stderr = io::stderr().lock();
    let Ok(mut line) = LINE.lock() else { return false };
    if matches!(*line, Line::Ended) {
        return false;
    }
    let lines = match LINES.load(Ordering::Relaxed) {
        0 => String::new(),
        lines => format!("{lines} lines, "),
    };
    let text = format!("working: {lines}{} s", elapsed.as_secs());
    // The progress is not part of the output, so an error is not one of the command.
    let _ = stderr.write_all(&[CLEAR, text.as_bytes()].concat());
    *line = Line::Shown;
    true
}

/// Removes the progress, before output or at the end.
pub(crate) fn end() {
    let mut stderr = io::stderr().lock();
    if let Ok(mut line) = LINE.lock() {
        if matches!(*line, Line::Shown) {
            let _ = stderr.write_all(CLEAR);
        }
        *line = Line::Ended;
    }
}
