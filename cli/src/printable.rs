//! Human-readable output: every value is escaped, so that it can neither control a terminal nor add a line.
//!
//! Values come from documents, logs, certificates and Envoy's pages. Anyone who can send a request chooses some of them.
//! [`say!`] is the only way to write such a line: clippy rejects `writeln!`, `println!` and `eprintln!` in this
//! package. It takes values as arguments only, not from the format string, and escapes each of them.

use std::fmt::{self, Display, Write as _};
use std::io;

use anstyle::Style;

/// The characters of Unicode's general category Cf (format), in Unicode 17.
///
/// The standard library has no public function for the category, and no crate in Cargo.lock has one. Copied from
/// `extracted/DerivedGeneralCategory.txt` of the Unicode Character Database.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Returns `true` if a character can change how a terminal shows the others: the categories Cc and Cf, and the line and
/// paragraph separators.
pub(crate) fn is_hostile(character: char) -> bool {
    let is_format = || FORMAT.iter().any(|&(first, last)| (first..=last).contains(&character));
    character.is_control() || (!character.is_ascii() && (matches!(character, '\u{2028}' | '\u{2029}') || is_format()))
}

/// A value whose `Display` escapes hostile characters, such as `\n` and `\u{1b}`.
pub(crate) struct Printable<T>(pub(crate) T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'f, 'b>(&'f mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(position) = rest.find(is_hostile) {
            let (harmless, hostile) = rest.split_at(position);
            self.0.write_str(harmless)?;
            let mut characters = hostile.chars();
            if let Some(character) = characters.next() {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// A value that [`say!`] can write.
pub(crate) trait Show {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl<T: Display + ?Sized> Show for T {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(self).fmt(f)
    }
}

/// A string in a style. It has no `Display`, so that only [`say!`] can write it.
pub(crate) struct Styled(Style, String);

/// Returns a string in a style.
pub(crate) fn styled(style: Style, text: &str) -> Styled {
    Styled(style, text.to_owned())
}

impl Show for Styled {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, text) = self;
        write!(f, "{style}{}{style:#}", Printable(text))
    }
}

/// The `Display` of a value that can be shown. Only [`say!`] makes it.
pub(crate) struct Shown<'v, T: ?Sized>(pub(crate) &'v T);

impl<T: Show + ?Sized> Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)
    }
}

/// Writes one human-readable line: `say!(out, "{}: {}", file, message)`.
///
/// A format string that comes from `concat!` cannot capture variables, so no value escapes the escaping.
macro_rules! say {
    ($out:expr, $format:literal $(, $value:expr)* $(,)?) => {
        $out.write_fmt(format_args!(concat!($format, "\n") $(, $crate::printable::Shown(&$value))*))
    };
}
pub(crate) use say;

/// Escapes each hostile character of a JSON text as `\u…`, except the line breaks of its layout.
///
/// serde_json escapes the control characters below U+0020 only. The others occur inside strings, where JSON allows
/// `\u…` for every character.
pub(crate) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || !is_hostile(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// Writes a JSON value and a line break.
pub(crate) fn write_json(out: &mut impl io::Write, value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    out.write_all(json(&text).as_bytes())?;
    out.write_all(b"\n")
}

/// Writes a JSON value over several lines, for documents that people edit.
pub(crate) fn write_pretty_json(out: &mut impl io::Write, value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    out.write_all(json(&text).as_bytes())?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::{FORMAT, Printable, Shown, is_hostile, json, styled};

    #[test]
    fn hostile_characters_are_escaped_and_others_stay() {
        let text = "it's \"fine\" é e\u{301} \\ 日本 \u{fe0f}";
        assert_eq!(Printable(text).to_string(), text);
        for (hostile, escaped) in [
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("a\nb\r\t", "a\\nb\\r\\t"),
            ("\u{7}\u{7f}\u{85}\u{9b}", "\\u{7}\\u{7f}\\u{85}\\u{9b}"),
            ("\u{202e}\u{2028}\u{2029}\u{2066}", "\\u{202e}\\u{2028}\\u{2029}\\u{2066}"),
            ("\u{feff}\u{200b}\u{ad}\u{e0041}", "\\u{feff}\\u{200b}\\u{ad}\\u{e0041}"),
        ] {
            assert_eq!(Printable(hostile).to_string(), escaped);
            assert_eq!(Printable(escaped).to_string(), escaped, "escaping twice changes nothing");
        }
    }

    /// The standard library escapes at least the categories Cc, Cf, Zl and Zp.
    #[test]
    fn the_table_agrees_with_the_standard_library() {
        assert!(FORMAT.is_sorted() && FORMAT.iter().all(|(first, last)| first <= last));
        for hostile in ('\0'..=char::MAX).filter(|&character| is_hostile(character)) {
            assert_ne!(hostile.escape_debug().to_string(), hostile.to_string(), "{}", hostile.escape_unicode());
        }
    }

    #[test]
    fn styles_reach_the_terminal_and_values_in_them_do_not() {
        let red = AnsiColor::Red.on_default();
        assert_eq!(Shown(&styled(red, "a\u{1b}")).to_string(), format!("{red}a\\u{{1b}}{red:#}"));
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a\u{202e}": "\u{9b}\u{7f}\u{e0041}\u{2028}\n\u{1b}é"});
        for text in [value.to_string(), format!("{value:#}")] {
            let escaped = json(&text);
            assert!(!escaped.chars().any(|character| character != '\n' && is_hostile(character)), "{escaped}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
