//! Rules in groups, which are looked up by a value of the request.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::affixes::Affixes;
use crate::policy::values::Text;

/// A value that every request of a rule has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A string.
    Text(Text),
    /// A network that contains an address.
    Network(IpNet),
    /// A segment of a path, by its position from 0.
    Segment(usize, Box<str>),
}

/// Groups, by key.
#[derive(Debug)]
pub(super) struct Groups<V> {
    keys: Keys,
    groups: Vec<V>,
}

/// A map from keys to the numbers of groups. It is not generic, because each instance would take some kilobytes of Wasm.
#[derive(Debug, Default)]
struct Keys {
    texts: Affixes,
    networks: FxHashMap<IpNet, usize>,
    /// The lengths of the networks' prefixes, each of which needs one lookup.
    prefix_lengths: Vec<u8>,
    /// The segments of paths, by position. Each position needs one lookup.
    segments: Vec<FxHashMap<Box<[u8]>, usize>>,
}

impl Keys {
    /// Returns the number of `key`, which is `new` if there is none. Returns `None` for `*`, which matches everything.
    fn entry(&mut self, key: &Key, new: usize) -> Option<usize> {
        match key {
            Key::Text(text) => self.texts.entry(text, new),
            Key::Network(network) => {
                if let Err(position) = self.prefix_lengths.binary_search(&network.prefix_len()) {
                    self.prefix_lengths.insert(position, network.prefix_len());
                }
                Some(*self.networks.entry(network.trunc()).or_insert(new))
            }
            Key::Segment(position, literal) => {
                if self.segments.len() <= *position {
                    self.segments.resize_with(position.saturating_add(1), FxHashMap::default);
                }
                Some(*self.segments.get_mut(*position)?.entry(literal.as_bytes().into()).or_insert(new))
            }
        }
    }

    /// Calls `visit` with the number of every network that contains `address`.
    fn visit_address(&self, address: IpAddr, visit: &mut dyn FnMut(usize)) {
        for length in &self.prefix_lengths {
            if let Ok(network) = IpNet::new(address, *length) {
                self.networks.get(&network.trunc()).into_iter().for_each(|number| visit(*number));
            }
        }
    }

    /// Calls `visit` with the number of every string that matches `path`, and of every segment in it.
    fn visit_path(&self, path: &[u8], visit: &mut dyn FnMut(usize)) {
        self.texts.visit(path, visit);
        let segments = path.split(|byte| *byte == b'/').skip(1);
        for (numbers, segment) in self.segments.iter().zip(segments) {
            numbers.get(segment).into_iter().for_each(|number| visit(*number));
        }
    }
}

impl<V> Groups<V> {
    pub(super) fn new() -> Self {
        Self { keys: Keys::default(), groups: Vec::new() }
    }

    /// The group of `key`, which `fresh` creates if there is none. Returns `None` for `*`, which matches everything.
    pub(super) fn entry(&mut self, key: &Key, fresh: impl FnOnce() -> V) -> Option<&mut V> {
        let new = self.groups.len();
        let number = self.keys.entry(key, new)?;
        if number == new {
            self.groups.push(fresh());
        }
        self.groups.get_mut(number)
    }

    /// Calls `visit` with the group of every string that matches `text`.
    pub(super) fn visit_text(&self, text: &[u8], visit: &mut dyn FnMut(&V)) {
        self.keys.texts.visit(text, &mut |number| self.groups.get(number).into_iter().for_each(&mut *visit));
    }

    /// Calls `visit` with the group of every network that contains `address`.
    pub(super) fn visit_address(&self, address: IpAddr, visit: &mut dyn FnMut(&V)) {
        self.keys.visit_address(address, &mut |number| self.groups.get(number).into_iter().for_each(&mut *visit));
    }

    /// Calls `visit` with the group of every string that matches `path`, and of every segment in it.
    pub(super) fn visit_path(&self, path: &[u8], visit: &mut dyn FnMut(&V)) {
        self.keys.visit_path(path, &mut |number| self.groups.get(number).into_iter().for_each(&mut *visit));
    }

    /// Every group.
    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        self.groups.iter()
    }

    /// Converts the groups.
    pub(super) fn map<U>(self, map: impl FnMut(V) -> U) -> Groups<U> {
        Groups { keys: self.keys, groups: self.groups.into_iter().map(map).collect() }
    }
}
