//! A map that is looked up by exact strings, prefixes and suffixes, in time that does not depend on its size.

use rustc_hash::FxHashMap;

use crate::policy::values::Text;

/// A map from `Text` to numbers.
#[derive(Debug, Default)]
pub(super) struct Affixes {
    exact: FxHashMap<Box<[u8]>, usize>,
    prefixes: ByLength,
    suffixes: ByLength,
}

#[derive(Debug, Default)]
struct ByLength {
    /// The lengths of the keys, in ascending order, each of which needs one lookup.
    lengths: Vec<usize>,
    numbers: FxHashMap<Box<[u8]>, usize>,
}

impl Affixes {
    /// Returns the number of `text`, which is `new` if there is none. Returns `None` for `*`, which matches everything.
    pub(super) fn entry(&mut self, text: &Text, new: usize) -> Option<usize> {
        let key = text.literal().as_bytes();
        match text {
            Text::Present => None,
            Text::Exact(_) => Some(*self.exact.entry(key.into()).or_insert(new)),
            Text::Prefix(_) => Some(self.prefixes.entry(key, new)),
            Text::Suffix(_) => Some(self.suffixes.entry(key, new)),
        }
    }

    /// Calls `visit` with the number of every key that matches `subject`.
    pub(super) fn visit(&self, subject: &[u8], visit: &mut dyn FnMut(usize)) {
        self.exact.get(subject).into_iter().for_each(|number| visit(*number));
        for head in self.prefixes.up_to(subject.len()).filter_map(|length| subject.get(..length)) {
            self.prefixes.numbers.get(head).into_iter().for_each(|number| visit(*number));
        }
        for tail in self.suffixes.up_to(subject.len()).filter_map(|length| subject.get(subject.len() - length..)) {
            self.suffixes.numbers.get(tail).into_iter().for_each(|number| visit(*number));
        }
    }
}

impl ByLength {
    fn entry(&mut self, key: &[u8], new: usize) -> usize {
        if let Err(position) = self.lengths.binary_search(&key.len()) {
            self.lengths.insert(position, key.len());
        }
        *self.numbers.entry(key.into()).or_insert(new)
    }

    fn up_to(&self, length: usize) -> impl Iterator<Item = usize> {
        self.lengths.iter().copied().take_while(move |candidate| *candidate <= length)
    }
}

#[cfg(test)]
mod tests {
    use super::{Affixes, Text};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn finds_what_matches_and_nothing_else() {
        let texts = ["ab", "a", "a*", "ab*", "abc*", "*b", "*ab", "*bc", "b*", "x"];
        let mut affixes = Affixes::default();
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(affixes.entry(&Text::new(text), number), Some(number));
            assert_eq!(affixes.entry(&Text::new(text), 99), Some(number));
        }
        assert_eq!(affixes.entry(&Text::Present, 99), None);
        for subject in ["", "a", "ab", "abc", "b", "xab"] {
            let mut found = Vec::new();
            affixes.visit(subject.as_bytes(), &mut |number| found.push(texts[number]));
            found.sort_unstable();
            let mut expected: Vec<_> =
                texts.into_iter().filter(|text| Text::new(text).matches(subject.as_bytes())).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{subject}");
        }
    }
}
