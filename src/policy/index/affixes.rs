//! A map that is looked up by exact strings, prefixes and suffixes, in time that does not depend on its size.

use rustc_hash::FxHashMap;

use crate::policy::values::Text;

/// A map from `Text` to values.
#[derive(Debug)]
pub(crate) struct Affixes<V> {
    exact: FxHashMap<Box<[u8]>, V>,
    prefixes: ByLength<V>,
    suffixes: ByLength<V>,
}

#[derive(Debug)]
struct ByLength<V> {
    /// The lengths of the keys, in ascending order, each of which needs one lookup.
    lengths: Vec<usize>,
    values: FxHashMap<Box<[u8]>, V>,
}

impl<V> Default for Affixes<V> {
    fn default() -> Self {
        Self { exact: FxHashMap::default(), prefixes: ByLength::default(), suffixes: ByLength::default() }
    }
}

impl<V> Default for ByLength<V> {
    fn default() -> Self {
        Self { lengths: Vec::new(), values: FxHashMap::default() }
    }
}

impl<V> Affixes<V> {
    /// The value of `text`, which `fresh` creates if there is none. Returns `None` for `*`, which matches everything.
    pub(crate) fn entry(&mut self, text: &Text, fresh: impl FnOnce() -> V) -> Option<&mut V> {
        let key = text.literal().as_bytes();
        match text {
            Text::Present => None,
            Text::Exact(_) => Some(self.exact.entry(key.into()).or_insert_with(fresh)),
            Text::Prefix(_) => Some(self.prefixes.entry(key, fresh)),
            Text::Suffix(_) => Some(self.suffixes.entry(key, fresh)),
        }
    }

    /// Calls `visit` with the value of every key that matches `subject`.
    pub(crate) fn visit<'v>(&'v self, subject: &[u8], mut visit: impl FnMut(&'v V)) {
        self.exact.get(subject).into_iter().for_each(&mut visit);
        for head in self.prefixes.up_to(subject.len()).filter_map(|length| subject.get(..length)) {
            self.prefixes.values.get(head).into_iter().for_each(&mut visit);
        }
        for tail in self.suffixes.up_to(subject.len()).filter_map(|length| subject.get(subject.len() - length..)) {
            self.suffixes.values.get(tail).into_iter().for_each(&mut visit);
        }
    }

    /// The values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.prefixes.values.values()).chain(self.suffixes.values.values())
    }

    /// Converts the values.
    pub(crate) fn map<U>(self, mut map: impl FnMut(V) -> U) -> Affixes<U> {
        Affixes {
            exact: self.exact.into_iter().map(|(key, value)| (key, map(value))).collect(),
            prefixes: self.prefixes.map(&mut map),
            suffixes: self.suffixes.map(&mut map),
        }
    }
}

impl<V> ByLength<V> {
    fn entry(&mut self, key: &[u8], fresh: impl FnOnce() -> V) -> &mut V {
        if let Err(position) = self.lengths.binary_search(&key.len()) {
            self.lengths.insert(position, key.len());
        }
        self.values.entry(key.into()).or_insert_with(fresh)
    }

    fn up_to(&self, length: usize) -> impl Iterator<Item = usize> {
        self.lengths.iter().copied().take_while(move |candidate| *candidate <= length)
    }

    fn map<U>(self, map: &mut impl FnMut(V) -> U) -> ByLength<U> {
        ByLength {
            lengths: self.lengths,
            values: self.values.into_iter().map(|(key, value)| (key, map(value))).collect(),
        }
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
        for text in texts {
            assert_eq!(affixes.entry(&Text::new(text), || text), Some(&mut &*text));
        }
        assert_eq!(affixes.entry(&Text::Present, || "*"), None);
        for subject in ["", "a", "ab", "abc", "b", "xab"] {
            let mut found = Vec::new();
            affixes.visit(subject.as_bytes(), |text| found.push(*text));
            found.sort_unstable();
            let mut expected: Vec<_> =
                texts.into_iter().filter(|text| Text::new(text).matches(subject.as_bytes())).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{subject}");
        }
    }
}
