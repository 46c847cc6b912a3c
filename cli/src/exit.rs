//! Exit statuses, and the errors with exit status 1.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use spiffe_authz::diagnostic::Diagnostic;

use crate::istio::remark::Remark;
use crate::located::{Position, place};
use crate::placed::Placed;
use crate::printable::{Printable, say};
use crate::stream::stderr;

/// The result of a command that ran. Errors that it did not report itself have exit status 1, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Status 0: there is no problem, or the request is allowed.
    Well,
    /// Status 1: the command reported that it could not run.
    WithError,
    /// Status 2: the request is denied.
    WithDenial,
    /// Status 3: there are findings.
    WithFindings,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Well => Self::SUCCESS,
            Ended::WithError => Self::FAILURE,
            Ended::WithDenial => Self::from(2),
            Ended::WithFindings => Self::from(3),
        }
    }
}

/// An error with details. [`report`] writes each on a line of its own.
#[derive(Debug)]
pub(crate) struct Failure {
    heading: String,
    details: Vec<String>,
    /// The remarks of which the details are made, if policies are lost.
    lost: Vec<Remark>,
}

impl Failure {
    const fn new(heading: String, details: Vec<String>) -> Self {
        Self { heading, details, lost: Vec::new() }
    }

    /// Returns the failure of the document in `place`, which does not compile.
    pub(crate) fn of_document(place: &str, errors: &[Placed]) -> Self {
        let details = errors.iter().map(|error| error.text(place)).collect();
        Self::new(format!("{place}: document rejected: {}", errors_in_words(errors.len())), details)
    }

    /// Returns the failure of options that do not make a valid document.
    pub(crate) fn of_options(errors: &[Diagnostic]) -> Self {
        let heading = format!("the options do not make a document: {}", errors_in_words(errors.len()));
        Self::new(heading, errors.iter().map(ToString::to_string).collect())
    }

    /// Returns the failure of AuthorizationPolicies of which a part is lost.
    pub(crate) fn of_policies(place: &str, remarks: &[Remark]) -> Self {
        let lost: Vec<Remark> = remarks.iter().filter(|remark| remark.lost.is_some()).cloned().collect();
        let heading = format!("{place}: the policies cannot be read: {}", errors_in_words(lost.len()));
        Self { heading, details: lost.iter().map(ToString::to_string).collect(), lost }
    }

    /// Returns the failure of a file with these errors, each with its position.
    pub(crate) fn of_file(file: &str, errors: &[(Option<Position>, String)]) -> io::Error {
        let line = |(position, message): &(Option<Position>, String)| format!("{}: {message}", place(file, *position));
        if let [only] = errors {
            return io::Error::other(line(only));
        }
        let heading = format!("{file}: {}", errors_in_words(errors.len()));
        io::Error::other(Self::new(heading, errors.iter().map(line).collect()))
    }
}

/// Returns a number of errors.
pub(crate) fn errors_in_words(count: usize) -> String {
    if count == 1 { "1 error".to_owned() } else { format!("{count} errors") }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.heading)
    }
}

impl Error for Failure {}

/// Returns the details of an error, or the error if it has none.
pub(crate) fn details(error: &io::Error) -> Vec<String> {
    match error.get_ref().and_then(|error| error.downcast_ref::<Failure>()) {
        Some(Failure { details, .. }) if !details.is_empty() => details.clone(),
        _ => vec![error.to_string()],
    }
}

/// Returns the remarks on policies that are lost, of which an error is made.
pub(crate) fn lost(error: &io::Error) -> &[Remark] {
    error.get_ref().and_then(|error| error.downcast_ref::<Failure>()).map_or(&[], |failure| &failure.lost)
}

/// Returns an error with its details on one line.
pub(crate) fn text(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<Failure>()) {
        Some(Failure { heading, details, .. }) => format!("{heading}: {}", details.join("; ")),
        None => error.to_string(),
    }
}

/// Writes an error to standard error.
pub(crate) fn report(error: &io::Error) -> ExitCode {
    let failure = error.get_ref().and_then(|error| error.downcast_ref::<Failure>());
    // Standard error is the last resort: if it is closed, the exit status remains.
    let _ = match failure {
        Some(Failure { heading, details, .. }) => say!(stderr(), "error: {}:", heading)
            .and_then(|()| details.iter().try_for_each(|detail| say!(stderr(), "  {}", detail))),
        None => say!(stderr(), "error: {}", error),
    };
    ExitCode::FAILURE
}

/// Writes help, or an error in the command line. clap repeats arguments unescaped, so they are escaped and parsed again
/// with `parse`, which returns the error.
pub(crate) fn of_command_line(error: &clap::Error, parse: impl Fn(Vec<String>) -> Option<clap::Error>) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        };
    }
    let escaped = std::env::args_os().map(|argument| Printable(argument.to_string_lossy()).to_string());
    match parse(escaped.collect()) {
        Some(escaped) if escaped.use_stderr() => {
            // Standard error is the last resort, as above.
            let _ = escaped.print();
        }
        // Escaping repaired the argument.
        _ => {
            let _ = say!(stderr(), "error: {}", error.kind());
        }
    }
    ExitCode::FAILURE
}
