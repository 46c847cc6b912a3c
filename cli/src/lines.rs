//! The lines of a file.

use crate::located::Position;

/// The number of characters between two known offsets.
const STEP: usize = 64;

/// The content of a file, whose positions are found without a search.
#[derive(Debug)]
pub(crate) struct Lines {
    text: String,
    /// The beginning of each line: the number of bytes and of characters before it.
    starts: Vec<[usize; 2]>,
    /// The offset of every [`STEP`]th character in bytes.
    marks: Vec<usize>,
}

/// The part of a line around a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Around<'l> {
    pub(crate) before: &'l str,
    pub(crate) after: &'l str,
    /// Whether the line has characters before the part.
    pub(crate) is_start_cut: bool,
    /// Whether the line has characters after the part.
    pub(crate) is_end_cut: bool,
}

impl From<String> for Lines {
    fn from(text: String) -> Self {
        let (mut starts, mut marks) = (Vec::new(), Vec::new());
        let mut is_start = true;
        for (characters, (bytes, character)) in text.char_indices().enumerate() {
            if is_start {
                starts.push([bytes, characters]);
            }
            if characters % STEP == 0 {
                marks.push(bytes);
            }
            is_start = character == '\n';
        }
        Self { text, starts, marks }
    }
}

impl Lines {
    /// Returns the line with this number, which starts at 1, without its end.
    pub(crate) fn get(&self, number: u32) -> Option<&str> {
        let index = index(number)?;
        let start = self.starts.get(index)?[0];
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next[0]);
        let line = self.text.get(start..end)?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// Returns at most `count` characters of a line before a position, and at most `count` after it. A position after the
    /// line is that of its end.
    pub(crate) fn around(&self, Position { line, column }: Position, count: usize) -> Option<Around<'_>> {
        let text = self.get(line)?;
        let [first, before] = *self.starts.get(index(line)?)?;
        let end = first + text.len();
        // The offset of the character with this index in the line.
        let offset = |index: usize| self.offset(before.saturating_add(index)).min(end);
        let column = index(column)?;
        let middle = offset(column);
        let part = |from: usize, to: usize| self.text.get(from..to).unwrap_or_default();
        let (start, stop) = (offset(column.saturating_sub(count)), offset(column.saturating_add(count)));
        Some(Around {
            before: part(start, middle),
            after: part(middle, stop),
            is_start_cut: start > first,
            is_end_cut: stop < end,
        })
    }

    /// Returns the offset in bytes of the character with this index in the text.
    fn offset(&self, index: usize) -> usize {
        let Some(mark) = self.marks.get(index / STEP) else { return self.text.len() };
        let rest = self.text.get(*mark..).unwrap_or_default();
        rest.char_indices().nth(index % STEP).map_or(self.text.len(), |(bytes, _)| mark + bytes)
    }
}

/// Returns the index for a number that starts at 1.
fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Around, Lines, STEP};
    use crate::located::Position;

    #[test]
    fn lines_are_those_of_the_text() {
        for text in ["", "a", "a\n", "a\nb", "\n\na\r\nb\r\n\r\n", "ü\n\u{2028}\nb"] {
            let lines = Lines::from(text.to_owned());
            let found: Vec<&str> = (1..).map_while(|number| lines.get(number)).collect();
            assert_eq!(found, text.lines().collect::<Vec<_>>(), "{text:?}");
            assert_eq!(lines.get(0), None);
        }
    }

    #[test]
    fn positions_are_found_in_long_lines() {
        let line: String = ('a'..='z').chain("äöü".chars()).cycle().take(5 * STEP).collect();
        let text = format!("{line}\r\n{line}\n");
        let lines = Lines::from(text);
        let characters: Vec<char> = line.chars().collect();
        for (number, column) in [(1, 0), (1, 70), (2, 0), (2, 64), (2, 319), (2, 320), (2, 400)] {
            let position = Position { line: number, column: u32::try_from(column).unwrap() + 1 };
            let found = lines.around(position, 7).unwrap();
            let at = column.min(characters.len());
            let (start, end) = (column.saturating_sub(7).min(at), (column + 7).min(characters.len()));
            let [before, after] =
                [(start, at), (at, end)].map(|(from, to)| characters[from..to].iter().collect::<String>());
            let expected =
                Around { before: &before, after: &after, is_start_cut: start > 0, is_end_cut: end < characters.len() };
            assert_eq!(found, expected, "{number}:{column}");
        }
        assert_eq!(lines.around(Position { line: 3, column: 1 }, 7), None);
    }

    /// Code that reads the line for each position needs minutes for this input, and otherwise seconds.
    #[test]
    fn positions_are_found_in_bounded_time() {
        let lines = Lines::from("ü".repeat(1_000_000));
        let start = Instant::now();
        for column in 1..=50_000 {
            let Around { before, after, .. } = lines.around(Position { line: 1, column: 20 * column }, 7).unwrap();
            assert_eq!([before, after].map(str::len), [14, if column < 50_000 { 14 } else { 2 }]);
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
