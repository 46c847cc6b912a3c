//! Excerpts of a file: the line of a problem, with a mark below it.

use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::lines::{Around, Lines};
use crate::located::Position;
use crate::printable::Printable;
use crate::style::{HEADING, MARK};

/// The number of characters of a line that are shown before a position, and after it.
const SHOWN: usize = 60;

/// Writes the line at a position of a file, with a mark below the name or value there.
pub(crate) fn write(out: &mut impl Write, lines: &Lines, position: Position) -> io::Result<()> {
    let Some(around) = lines.around(position, SHOWN) else { return Ok(()) };
    let Around { before, after, is_start_cut, is_end_cut } = around;
    let (marked, rest) = after.split_at(token(after));
    let (left, right) = (if is_start_cut { "…" } else { "" }, if is_end_cut { "…" } else { "" });
    // The renderer replaces control characters, and the rest of the output escapes them.
    let before = format!("{left}{}", Printable(before));
    let marked = Printable(marked).to_string();
    let line = format!("{before}{marked}{}{right}", Printable(rest));
    let mark = AnnotationKind::Primary.span(before.len()..before.len() + marked.len());
    let number = usize::try_from(position.line).unwrap_or_default();
    let snippet = Snippet::source(line).line_start(number).annotation(mark);
    let renderer = Renderer::styled().term_width(4 * SHOWN).line_num(HEADING).error(MARK);
    let excerpt = renderer.render(&[Group::with_level(Level::ERROR).element(snippet)]);
    // The excerpt has styles of its own, and the text in it is escaped.
    out.write_all(excerpt.as_bytes())?;
    out.write_all(b"\n")
}

/// Returns the number of bytes of the name or value at the start of a line.
fn token(text: &str) -> usize {
    match text.chars().next() {
        Some(quote @ ('"' | '\'')) => text.get(1..).and_then(|rest| rest.find(quote)).map_or(text.len(), |end| end + 2),
        Some('[' | '{' | '-' | '|' | '>') => 1,
        _ => {
            let end = text.find([',', ']', '}', '#']).unwrap_or(text.len());
            let end = text.find(": ").map_or(end, |colon| colon.min(end));
            text.get(..end).unwrap_or(text).trim_end().trim_end_matches(':').len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::lines::Lines;
    use crate::located::Position;

    fn excerpt(text: &str, line: u32, column: u32) -> String {
        let mut out = Vec::new();
        write(&mut out, &Lines::from(text.to_owned()), Position { line, column }).unwrap();
        anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
    }

    #[test]
    fn the_mark_is_below_the_value() {
        assert_eq!(excerpt("a:\n  bc: [\"x y\", z]\n", 2, 8), "  |\n2 |   bc: [\"x y\", z]\n  |        ^^^^^\n");
        assert_eq!(excerpt("a:\n  bc: d e # f\n", 2, 3), "  |\n2 |   bc: d e # f\n  |   ^^\n");
        assert_eq!(excerpt("\ta: \u{1b}b", 1, 5), "  |\n1 | \\ta: \\u{1b}b\n  |      ^^^^^^^\n");
        assert_eq!(excerpt("a", 9, 1), "");
        let long = format!("{}x: y{}", "a".repeat(100), "b".repeat(100));
        let shown = excerpt(&long, 1, 101);
        assert!(shown.lines().all(|line| line.chars().count() < 140) && shown.contains('…'), "{shown}");
    }
}
