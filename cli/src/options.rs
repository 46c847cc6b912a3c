//! The options that several subcommands have.

use clap::ValueEnum;
use spiffe_authz::lint::Severity;

/// The output format.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Human-readable text
    Human,
    /// One JSON object per result
    Json,
}

/// The lowest severity of a finding for which the exit status is 3.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Notes, warnings and errors
    Note,
    /// Warnings and errors
    Warning,
    /// Errors
    Error,
    /// No finding
    Never,
}

impl Level {
    /// Returns `true` if a finding of this severity makes the exit status 3.
    pub(crate) fn is_reached(self, severity: Severity) -> bool {
        match self {
            Self::Note => true,
            Self::Warning => severity >= Severity::Warning,
            Self::Error => severity >= Severity::Error,
            Self::Never => false,
        }
    }
}
