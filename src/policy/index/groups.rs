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

/// A map from keys to groups.
#[derive(Debug)]
pub(super) struct Groups<V> {
    texts: Affixes<V>,
    networks: FxHashMap<IpNet, V>,
    /// The lengths of the networks' prefixes, each of which needs one lookup.
    prefix_lengths: Vec<u8>,
    /// The segments of paths, by position. Each position needs one lookup.
    segments: Vec<FxHashMap<Box<[u8]>, V>>,
}

impl<V> Default for Groups<V> {
    fn default() -> Self {
        Self {
            texts: Affixes::default(),
            networks: FxHashMap::default(),
            prefix_lengths: Vec::new(),
            segments: Vec::new(),
        }
    }
}

impl<V> Groups<V> {
    /// The group of `key`, which `fresh` creates if there is none. Returns `None` for `*`, which matches everything.
    pub(super) fn entry(&mut self, key: &Key, fresh: impl FnOnce() -> V) -> Option<&mut V> {
        match key {
            Key::Text(text) => self.texts.entry(text, fresh),
            Key::Network(network) => {
                if let Err(position) = self.prefix_lengths.binary_search(&network.prefix_len()) {
                    self.prefix_lengths.insert(position, network.prefix_len());
                }
                Some(self.networks.entry(network.trunc()).or_insert_with(fresh))
            }
            Key::Segment(position, literal) => {
                if self.segments.len() <= *position {
                    self.segments.resize_with(position.saturating_add(1), FxHashMap::default);
                }
                Some(self.segments.get_mut(*position)?.entry(literal.as_bytes().into()).or_insert_with(fresh))
            }
        }
    }

    /// Calls `visit` with the group of every string that matches `text`.
    pub(super) fn visit_text<'v>(&'v self, text: &[u8], visit: impl FnMut(&'v V)) {
        self.texts.visit(text, visit);
    }

    /// Calls `visit` with the group of every network that contains `address`.
    pub(super) fn visit_address<'v>(&'v self, address: IpAddr, mut visit: impl FnMut(&'v V)) {
        for length in &self.prefix_lengths {
            if let Ok(network) = IpNet::new(address, *length) {
                self.networks.get(&network.trunc()).into_iter().for_each(&mut visit);
            }
        }
    }

    /// Calls `visit` with the group of every string that matches `path`, and of every segment in it.
    pub(super) fn visit_path<'v>(&'v self, path: &[u8], mut visit: impl FnMut(&'v V)) {
        self.texts.visit(path, &mut visit);
        let segments = path.split(|byte| *byte == b'/').skip(1);
        for (groups, segment) in self.segments.iter().zip(segments) {
            groups.get(segment).into_iter().for_each(&mut visit);
        }
    }

    /// Every group.
    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        self.texts.iter().chain(self.networks.values()).chain(self.segments.iter().flat_map(FxHashMap::values))
    }

    /// Converts the groups.
    pub(super) fn map<U>(self, mut map: impl FnMut(V) -> U) -> Groups<U> {
        Groups {
            texts: self.texts.map(&mut map),
            networks: self.networks.into_iter().map(|(key, value)| (key, map(value))).collect(),
            prefix_lengths: self.prefix_lengths,
            segments: self
                .segments
                .into_iter()
                .map(|groups| groups.into_iter().map(|(key, value)| (key, map(value))).collect())
                .collect(),
        }
    }
}
