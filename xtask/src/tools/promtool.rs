//! promtool, which checks and tests the rules of Prometheus.

use std::path::PathBuf;

use anyhow::Result;

use super::go::GoModule;
use crate::versions::{PROMETHEUS, PROMETHEUS_SUM};
use crate::workspace::cached;

/// Returns the path of the program.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    let module = GoModule {
        path: "github.com/prometheus/prometheus",
        version: PROMETHEUS,
        sum: PROMETHEUS_SUM,
        beside: PROMETHEUS,
        replace: None,
        // Service discovery needs the libraries of all cloud providers, and no rule needs it.
        tags: "remove_all_sd",
        link: "-s -w",
        programs: &[("promtool", "./cmd/promtool")],
    };
    let entry = cached(&format!("prometheus-{PROMETHEUS}"), |directory| {
        eprintln!("promtool {PROMETHEUS}: building it from Prometheus' Go module (three minutes without a cache)");
        module.build(directory)
    })?;
    Ok(entry.join("promtool"))
}
