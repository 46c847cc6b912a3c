//! Text in XML, for JUnit.

use std::io::{self, Write};

use crate::printable::{is_hostile, say};

/// Writes a line of XML, whose values are escaped.
pub(crate) fn write_line(out: &mut impl Write, line: &str) -> io::Result<()> {
    say!(out, "{}", line)
}

/// Escapes a string for an XML attribute. Control characters, and the two others that XML 1.0 section 2.2 excludes, become
/// U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character if is_hostile(character) => escaped.push_str(&format!("&#x{:x};", u32::from(character))),
            character => escaped.push(character),
        }
    }
    escaped
}
