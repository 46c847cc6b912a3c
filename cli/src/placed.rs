//! Diagnostics with their position in a file.

use spiffe_authz::diagnostic::Diagnostic;

use crate::located::positions::Positions;
use crate::located::{Position, place};
use crate::suggestion;

/// A diagnostic with its position in the file, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) position: Option<Position>,
    pub(crate) diagnostic: Diagnostic,
}

impl Placed {
    /// Returns a diagnostic with its position in a document, and with a suggestion.
    pub(crate) fn of(diagnostic: Diagnostic, positions: &Positions<'_>) -> Self {
        let position = positions.at(&diagnostic.pointer, suggestion::is_about_name(&diagnostic));
        let help = suggestion::of_diagnostic(&diagnostic);
        Self { position: Some(position), diagnostic: Diagnostic { help, ..diagnostic } }
    }

    /// Returns the file, the position and the diagnostic on one line.
    pub(crate) fn text(&self, file: &str) -> String {
        let Self { position, diagnostic } = self;
        format!("{}: {diagnostic}", place(file, *position))
    }
}
