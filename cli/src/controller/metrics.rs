//! The numbers that Prometheus reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The metrics of the controller.
#[derive(Default)]
pub(super) struct Metrics {
    succeeded: AtomicU64,
    failed: AtomicU64,
    applied: AtomicU64,
    deleted: AtomicU64,
    /// The numbers of the last run.
    policies: AtomicU64,
    objects: AtomicU64,
    problems: AtomicU64,
    /// The Unix time of the last run that succeeded, in seconds.
    last_success: AtomicU64,
}

/// The numbers of a run.
#[derive(Default)]
pub(super) struct Found {
    pub(super) policies: usize,
    pub(super) objects: usize,
    pub(super) problems: usize,
}

impl Metrics {
    pub(super) fn succeeded(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.store(since.as_secs(), Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deleted(&self) {
        self.deleted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn found(&self, found: &Found) {
        let set = |metric: &AtomicU64, value: usize| {
            metric.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        set(&self.policies, found.policies);
        set(&self.objects, found.objects);
        set(&self.problems, found.problems);
    }

    /// Returns the text format of Prometheus.
    pub(super) fn text(&self, is_leader: bool) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
            add_metric(&mut text, name, kind, help, samples);
        };
        let of = |metric: &AtomicU64| metric.load(Ordering::Relaxed);
        add(
            "reconciles_total",
            "counter",
            "Comparisons of the cluster with its policies.",
            &[("{result=\"success\"}", of(&self.succeeded)), ("{result=\"error\"}", of(&self.failed))],
        );
        add(
            "writes_total",
            "counter",
            "Objects that were written or deleted.",
            &[("{verb=\"apply\"}", of(&self.applied)), ("{verb=\"delete\"}", of(&self.deleted))],
        );
        add("policies", "gauge", "Policies that the PolicyDeployments select.", &[("", of(&self.policies))]);
        add("objects", "gauge", "Objects that deploy policies.", &[("", of(&self.objects))]);
        add("problems", "gauge", "Problems that keep policies from being deployed.", &[("", of(&self.problems))]);
        add("leader", "gauge", "1 if this replica acts.", &[("", u64::from(is_leader))]);
        add(
            "last_success_timestamp_seconds",
            "gauge",
            "The time of the last comparison that succeeded.",
            &[("", of(&self.last_success))],
        );
        text
    }
}

/// Adds a metric with its samples: the labels and the value of each.
fn add_metric(text: &mut String, name: &str, kind: &str, help: &str, samples: &[(&str, u64)]) {
    const PREFIX: &str = "spiffe_authz_controller_";
    text.push_str(&format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n"));
    for (labels, value) in samples {
        text.push_str(&format!("{PREFIX}{name}{labels} {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Metrics};

    #[test]
    fn the_text_has_every_metric() {
        let metrics = Metrics::default();
        metrics.succeeded();
        metrics.failed();
        metrics.failed();
        metrics.applied();
        metrics.deleted();
        metrics.found(&Found { policies: 3, objects: 2, problems: 1 });
        let text = metrics.text(true);
        let (times, samples): (Vec<&str>, Vec<&str>) = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.strip_prefix("spiffe_authz_controller_").expect("the prefix"))
            .partition(|line| line.starts_with("last_success"));
        let expected = [
            "reconciles_total{result=\"success\"} 1",
            "reconciles_total{result=\"error\"} 2",
            "writes_total{verb=\"apply\"} 1",
            "writes_total{verb=\"delete\"} 1",
            "policies 3",
            "objects 2",
            "problems 1",
            "leader 1",
        ];
        assert_eq!(samples, expected);
        let [time] = times[..] else { panic!("{times:?}") };
        let seconds: u64 = time.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        assert!(seconds > 1_700_000_000, "{time}");
        // Prometheus requires the type of a metric before its samples, once.
        for name in ["reconciles_total", "writes_total", "policies", "objects", "problems", "leader"] {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let line = format!("# TYPE spiffe_authz_controller_{name} {kind}\nspiffe_authz_controller_{name}");
            assert_eq!(text.matches(&line).count(), 1, "{line}");
        }
        assert!(metrics.text(false).contains("leader 0\n"));
    }
}
