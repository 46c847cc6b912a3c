//! Sets of the classes of an attribute.

/// The number of classes in a word.
const BITS: usize = u64::BITS as usize;

/// A set of small numbers. It keeps only the words between the smallest and the largest number, because most sets of a policy set
/// are a single class among thousands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Set {
    /// The index of the first word.
    first: usize,
    /// The words. Neither the first nor the last one is zero.
    words: Box<[u64]>,
}

impl Set {
    /// Returns the set of all numbers below `len`.
    pub(super) fn full(len: usize) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(BITS)];
        if let Some(last) = words.last_mut().filter(|_| !len.is_multiple_of(BITS)) {
            *last = (1 << (len % BITS)) - 1;
        }
        Self::trimmed(0, &words)
    }

    fn trimmed(first: usize, words: &[u64]) -> Self {
        let Some(start) = words.iter().position(|word| *word != 0) else { return Self::default() };
        let end = words.iter().rposition(|word| *word != 0).map_or(start, |last| last + 1);
        Self { first: first + start, words: words[start..end].into() }
    }

    fn word(&self, index: usize) -> u64 {
        index.checked_sub(self.first).and_then(|index| self.words.get(index)).copied().unwrap_or(0)
    }

    const fn end(&self) -> usize {
        self.first + self.words.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.word(number / BITS) & (1 << (number % BITS)) != 0
    }

    pub(super) fn intersects(&self, other: &Self) -> bool {
        let shared = self.first.max(other.first)..self.end().min(other.end());
        shared.into_iter().any(|index| self.word(index) & other.word(index) != 0)
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let first = self.first.max(other.first);
        let words: Vec<u64> =
            (first..self.end().min(other.end())).map(|index| self.word(index) & other.word(index)).collect();
        Self::trimmed(first, &words)
    }

    pub(super) fn or(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() {
            return self.clone();
        }
        let first = self.first.min(other.first);
        let words: Vec<u64> =
            (first..self.end().max(other.end())).map(|index| self.word(index) | other.word(index)).collect();
        Self::trimmed(first, &words)
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        let words: Vec<u64> = (self.first..self.end()).map(|index| self.word(index) & !other.word(index)).collect();
        Self::trimmed(self.first, &words)
    }

    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The smallest number.
    pub(super) fn first(&self) -> Option<usize> {
        self.words.first().map(|word| self.first * BITS + word.trailing_zeros() as usize)
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut words = Vec::new();
        for number in numbers {
            let index = number / BITS;
            if words.len() <= index {
                words.resize(index + 1, 0);
            }
            words[index] |= 1 << (number % BITS);
        }
        Self::trimmed(0, &words)
    }
}

#[cfg(test)]
mod tests {
    use super::Set;

    #[test]
    fn operations_agree_with_lists() {
        let lists: [&[usize]; 7] = [&[], &[0], &[63, 64], &[1, 200], &[128, 129, 200], &[0, 64, 128, 192], &[500]];
        for one in lists {
            for other in lists {
                let (a, b): (Set, Set) = (one.iter().copied().collect(), other.iter().copied().collect());
                let listed = |keep: &dyn Fn(usize) -> bool| (0..600).filter(|number| keep(*number)).collect::<Set>();
                assert_eq!(a.and(&b), listed(&|n| one.contains(&n) && other.contains(&n)));
                assert_eq!(a.or(&b), listed(&|n| one.contains(&n) || other.contains(&n)));
                assert_eq!(a.without(&b), listed(&|n| one.contains(&n) && !other.contains(&n)));
                assert_eq!(a.intersects(&b), one.iter().any(|n| other.contains(n)));
                assert!((0..600).all(|n| a.contains(n) == one.contains(&n)));
                assert_eq!((a.first(), a.count()), (one.first().copied(), one.len()));
            }
        }
        for len in [0, 1, 63, 64, 65, 128, 129] {
            assert_eq!(Set::full(len), (0..len).collect());
        }
    }
}
