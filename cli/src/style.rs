//! Colours, which reach a terminal only: whoever writes does it through `anstream`.

use anstyle::{AnsiColor, Style};

/// What passes, or matches.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What does not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// What deserves a look.
pub(crate) const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// What leads through the rest.
pub(crate) const HEADING: Style = Style::new().bold();
