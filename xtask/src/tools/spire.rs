//! SPIRE server and agent, built from their Go module.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::go::GoModule;
use crate::versions::{SPIRE, SPIRE_REPLACE, SPIRE_SUM};
use crate::workspace::cached;

/// Returns the directory with `spire-server` and `spire-agent`.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    cached(&format!("spire-{SPIRE}"), |directory| {
        eprintln!("SPIRE {SPIRE}: building server and agent from the Go module (five minutes without a cache)");
        let module = GoModule {
            path: "github.com/spiffe/spire",
            version: SPIRE,
            sum: SPIRE_SUM,
            beside: SPIRE,
            replace: Some(SPIRE_REPLACE),
            tags: "",
            link: "",
            programs: &[("spire-server", "./cmd/spire-server"), ("spire-agent", "./cmd/spire-agent")],
        };
        module.build(directory).context("cannot build SPIRE (Go with cgo and a C compiler are required)")
    })
}
