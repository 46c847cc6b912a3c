//! Istio's own translation of AuthorizationPolicies to Envoy's RBAC filters, for the differential test: the Go program in
//! `tests/istio-rbac`, built once for each version of its source.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::run_logged;
use crate::workspace::{cached, root};

const LIMIT: Duration = Duration::from_secs(1800);

/// The path of the program.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    let source = root().join("tests/istio-rbac");
    let mut hasher = DefaultHasher::new();
    for name in ["go.mod", "go.sum", "main.go"] {
        fs::read(source.join(name)).with_context(|| format!("tests/istio-rbac has no {name}"))?.hash(&mut hasher);
    }
    let entry = cached(&format!("istio-rbac-{:016x}", hasher.finish()), |directory| {
        eprintln!(
            "Istio's RBAC builder: building tests/istio-rbac from Istio's Go module (four minutes when nothing is cached)"
        );
        let mut build = Command::new("go");
        build.current_dir(&source).args(["build", "-o"]).arg(directory.join("istio-rbac")).arg(".");
        run_logged("building tests/istio-rbac", &mut build, LIMIT)
    })?;
    Ok(entry.join("istio-rbac"))
}
