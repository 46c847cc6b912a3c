//! The lines of a file.

/// The content of a file, whose lines are found without a search.
#[derive(Debug)]
pub(crate) struct Lines {
    text: String,
    /// The offset of each line in bytes.
    starts: Vec<usize>,
}

impl From<String> for Lines {
    fn from(text: String) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1));
        let starts = starts.filter(|start| *start < text.len()).collect();
        Self { text, starts }
    }
}

impl Lines {
    /// Returns the line with this number, which starts at 1, without its end.
    pub(crate) fn get(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let rest = self.text.get(*self.starts.get(index)?..)?;
        rest.lines().next()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_those_of_the_text() {
        for text in ["", "a", "a\n", "a\nb", "\n\na\r\nb\r\n\r\n", "ü\n\u{2028}\nb"] {
            let lines = Lines::from(text.to_owned());
            let found: Vec<&str> = (1..).map_while(|number| lines.get(number)).collect();
            assert_eq!(found, text.lines().collect::<Vec<_>>(), "{text:?}");
            assert_eq!(lines.get(0), None);
        }
    }
}
