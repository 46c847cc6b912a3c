//! Colors. Output goes through `anstream`, which removes them if it is not a terminal.

use anstyle::{AnsiColor, Style};

/// Passed or matched.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Failed, denied or rejected.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Worth attention.
pub(crate) const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// A heading.
pub(crate) const HEADING: Style = Style::new().bold();
/// The mark below a part of a line.
pub(crate) const MARK: Style = AnsiColor::Blue.on_default();
