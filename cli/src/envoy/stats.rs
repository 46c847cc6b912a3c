//! The page `stats`: counters and gauges. Envoy does not keep all of them.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;

use serde::Deserialize;
use serde_json::Value;

use super::message::Cluster;
use super::page::{self, invalid};

/// A counter or gauge, which is unknown if Envoy does not keep it.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// At least one.
    Some(NonZeroU64),
    /// Zero.
    Zero,
    /// Not in the page.
    Unknown,
}

impl Count {
    /// Returns the number if it is known and at least one.
    pub(crate) const fn some(self) -> Option<u64> {
        match self {
            Self::Some(count) => Some(count.get()),
            Self::Zero | Self::Unknown => None,
        }
    }

    /// Returns the number if it is known.
    pub(crate) const fn known(self) -> Option<u64> {
        match self {
            Self::Some(count) => Some(count.get()),
            Self::Zero => Some(0),
            Self::Unknown => None,
        }
    }
}

/// The page `stats`, or nothing if it was not saved.
#[derive(Debug, Default)]
pub(crate) struct Stats(Option<HashMap<String, u64>>);

/// The counters of one object, such as a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'s> {
    stats: &'s Stats,
    prefix: String,
}

impl Scope<'_> {
    /// Returns a counter or gauge of the object.
    pub(crate) fn count(&self, name: &str) -> Count {
        self.stats.count(&format!("{}{name}", self.prefix))
    }

    /// The prefix of the names of these counters, with the dot at its end.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Stats {
    /// Reads either form of the page.
    pub(crate) fn read(page: Vec<u8>) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct Page {
            stats: Vec<Entry>,
        }
        // Histograms have neither field, and the value of a string readout is a string.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Entry {
            name: Option<String>,
            value: Value,
        }
        let text = page::decode("stats", page)?;
        let is_json = |text: &str| text.trim_start().starts_with('{');
        let json = if is_json(&text) { Some(text.as_str()) } else { page::json_after_lines(&text) };
        if json.is_none() && text.lines().any(|line| line.starts_with("# TYPE ")) {
            return Err(invalid("stats: expected the page `/stats`, found its Prometheus form (save `/stats` itself)"));
        }
        let pair = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        let stats: HashMap<String, u64> = if let Some(json) = json {
            let page: Page = serde_json::from_str(json).map_err(|error| invalid(&format!("stats: {error}")))?;
            page.stats.into_iter().filter_map(|entry| Some((entry.name?, entry.value.as_u64()?))).collect()
        } else {
            text.lines().filter_map(pair).collect()
        };
        // Every running Envoy has counters such as `server.uptime`. Other text can have lines with a colon and a number.
        if stats.keys().any(|name| name.contains('.')) {
            Ok(Self(Some(stats)))
        } else {
            Err(invalid("stats: expected counters, found none (save the page `/stats`)"))
        }
    }

    /// Returns `true` if the page was saved.
    pub(crate) const fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// Returns a counter or gauge whose name contains no name from the configuration.
    pub(crate) fn count(&self, name: &str) -> Count {
        let value = self.0.as_ref().and_then(|stats| stats.get(name)).copied();
        value.map_or(Count::Unknown, |value| NonZeroU64::new(value).map_or(Count::Zero, Count::Some))
    }

    /// Returns the counters of a secret.
    pub(crate) fn of_secret(&self, name: &str) -> Scope<'_> {
        self.scope("sds", name)
    }

    /// Returns the counters of a cluster, which has another name in them if `alt_stat_name` is set.
    pub(crate) fn of_cluster(&self, cluster: &Cluster) -> Scope<'_> {
        let name = if cluster.alt_stat_name.is_empty() { &cluster.name } else { &cluster.alt_stat_name };
        self.scope("cluster", name)
    }

    /// Returns the counters of a Wasm plugin.
    pub(crate) fn of_plugin(&self, name: &str) -> Scope<'_> {
        self.scope("wasm", name)
    }

    fn scope(&self, kind: &str, name: &str) -> Scope<'_> {
        Scope { stats: self, prefix: format!("{kind}.{}.", sanitized(name)) }
    }

    /// Returns the sum of the counters whose names start with one of these.
    pub(crate) fn sum(&self, prefixes: &[&str]) -> Count {
        let Some(stats) = &self.0 else { return Count::Unknown };
        let mut counted = stats.iter().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        let Some((_, first)) = counted.next() else { return Count::Unknown };
        let sum = counted.fold(*first, |sum, (_, value)| sum.saturating_add(*value));
        NonZeroU64::new(sum).map_or(Count::Zero, Count::Some)
    }

    /// Returns the counters with this suffix that are at least one, by their names.
    pub(crate) fn ending_with(&self, suffix: &str) -> Vec<(&str, u64)> {
        let all = self.0.iter().flatten();
        let mut found: Vec<(&str, u64)> = all
            .filter(|(name, value)| **value > 0 && name.ends_with(suffix))
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        found.sort_unstable();
        found
    }
}

/// Returns the end of the counter of rejected updates of an object with this name from the configuration.
pub(crate) fn of_updates(name: &str) -> String {
    format!(".{}.update_rejected", sanitized(name))
}

/// Returns a name from the configuration as Envoy writes it in the names of counters.
///
/// Source: `Stats::Utility::sanitizeStatsName`. The longest separator wins.
fn sanitized(name: &str) -> String {
    name.replace("://", "_").replace(":/", "_").replace([':', '\0'], "_")
}

#[cfg(test)]
mod tests {
    use super::super::message::Cluster;
    use super::{Count, Stats};

    fn stats(page: &str) -> Stats {
        Stats::read(page.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_counter_has_three_states() {
        for page in [
            "a.a: 2\na.b: 0\na.c: P0(nan,1)\n",
            r#"{"stats": [{"name": "a.a", "value": 2}, {"name": "a.b", "value": 0}, {"name": "a.c", "value": "text"}, {"histograms": {}}]}"#,
            "Defaulted container \"istio-proxy\"\n{\"stats\": [{\"name\": \"a.a\", \"value\": 2}, {\"name\": \"a.b\", \"value\": 0}]}",
        ] {
            let stats = stats(page);
            let known = ["a.a", "a.b", "a.c"].map(|name| stats.count(name).known());
            assert_eq!(known, [Some(2), Some(0), None], "{page}");
            assert_eq!((stats.count("a.a").some(), stats.count("a.b").some()), (Some(2), None));
        }
        assert_eq!(Stats::default().count("a"), Count::Unknown);
        for page in [
            "",
            "no counter",
            "port: 80",
            "{}",
            r#"{"stats": []}"#,
            r#"{"stats": [{"histograms": {}}]}"#,
            "# TYPE envoy_a counter\nenvoy_a{} 1: 2\n",
        ] {
            assert!(Stats::read(page.as_bytes().to_vec()).is_err(), "{page}");
        }
    }

    #[test]
    fn names_are_sanitized() {
        let page = stats("sds.spiffe_example.org/a.x: 1\nsds.file-root_etc/ca.x: 2\ncluster.a_b.x: 3\nwasm.n_p.x: 4\n");
        assert_eq!(page.of_secret("spiffe://example.org/a").count("x").known(), Some(1));
        assert_eq!(page.of_secret("file-root:/etc/ca").count("x").known(), Some(2));
        let cluster = |name: &str, alt: &str| Cluster {
            name: name.to_owned(),
            alt_stat_name: alt.to_owned(),
            ..Cluster::default()
        };
        assert_eq!(page.of_cluster(&cluster("a:b", "")).count("x").known(), Some(3));
        assert_eq!(page.of_cluster(&cluster("other", "a:b")).count("x").known(), Some(3));
        assert_eq!(page.of_plugin("n\0p").count("x").known(), Some(4));
    }

    #[test]
    fn sums_are_unknown_without_a_counter() {
        let page = stats("wasmcustom.d.a: 1\nwasmcustom.d.b: 2\nzero.a: 0\n");
        assert_eq!(page.sum(&["wasmcustom.d"]).known(), Some(3));
        assert_eq!(page.sum(&["zero."]), Count::Zero);
        assert_eq!(page.sum(&["other."]), Count::Unknown);
        assert_eq!(page.ending_with(".b"), [("wasmcustom.d.b", 2)]);
    }
}
