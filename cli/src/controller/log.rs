//! Log lines: one JSON object each, on standard error.

use std::collections::BTreeMap;

use crate::clock;
use crate::printable::write_json;
use crate::stream::stderr;

/// Logs what happened, with these facts.
pub(super) fn info(message: &str, facts: &[(&str, &str)]) {
    write("info", message, facts);
}

/// Logs what is wrong, with these facts.
pub(super) fn error(message: &str, facts: &[(&str, &str)]) {
    write("error", message, facts);
}

fn write(level: &str, message: &str, facts: &[(&str, &str)]) {
    let time = clock::now().map(|time| time.to_string()).unwrap_or_default();
    let mut line: BTreeMap<&str, &str> = facts.iter().copied().collect();
    line.extend([("time", &*time), ("level", level), ("message", message)]);
    // Standard error is the last resort: if it is closed, the metrics remain.
    let _ = write_json(&mut stderr(), &line);
}
