//! The bounded cache of one worker.

use std::borrow::Borrow;
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// A map with at most twice `CAPACITY` entries that keeps those used last.
///
/// Entries live in two generations. Once the recent one is full, it becomes the older one, and the older one is dropped. An
/// entry that is read moves to the recent generation. A working set of up to `CAPACITY` keys is therefore never dropped.
#[derive(Debug)]
pub(super) struct Memory<K, V, const CAPACITY: usize> {
    recent: FxHashMap<K, V>,
    older: FxHashMap<K, V>,
}

impl<K, V, const CAPACITY: usize> Default for Memory<K, V, CAPACITY> {
    fn default() -> Self {
        Self { recent: FxHashMap::default(), older: FxHashMap::default() }
    }
}

impl<K: Hash + Eq, V: Clone, const CAPACITY: usize> Memory<K, V, CAPACITY> {
    /// Returns the value of `key`, and keeps it for longer.
    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(found) = self.recent.get(key) {
            return Some(found.clone());
        }
        let (key, value) = self.older.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.recent.len() >= CAPACITY {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, value);
    }

    /// Drops the entries for which `keep` returns `false`.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.recent.retain(|key, value| keep(key, value));
        self.older.retain(|key, value| keep(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    impl<K, V, const CAPACITY: usize> Memory<K, V, CAPACITY> {
        pub(crate) fn len(&self) -> usize {
            self.recent.len() + self.older.len()
        }
    }

    #[test]
    fn a_working_set_within_the_capacity_is_never_dropped() {
        let mut memory = Memory::<u32, u32, 4>::default();
        for key in 0..4 {
            memory.insert(key, key);
        }
        for other in 100..200 {
            memory.insert(other, other);
            for key in 0..3 {
                assert_eq!(memory.get(&key), Some(key), "after {other}");
            }
            assert!(memory.len() <= 8);
        }
        assert_eq!(memory.get(&100), None);
    }

    #[test]
    fn entries_can_be_dropped() {
        let mut memory = Memory::<u32, u32, 2>::default();
        for key in 0..4 {
            memory.insert(key, key);
        }
        memory.retain(|key, _| *key % 2 == 1);
        assert_eq!([0, 1, 2, 3].map(|key| memory.get(&key)), [None, Some(1), None, Some(3)]);
    }
}
