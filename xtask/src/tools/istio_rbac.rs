//! Istio's own code for the tests: the Go programs in `tests/istio-rbac`, which translate AuthorizationPolicies to
//! Envoy's RBAC filters and pull images like a proxy. They are built once for each version of their source.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::go::{Dependencies, go};
use crate::process::run_logged;
use crate::workspace::{build_key, cached, root};

const LIMIT: Duration = Duration::from_secs(1800);

/// The name and the package of each program.
const PROGRAMS: [(&str, &str); 2] = [("istio-rbac", "."), ("wasm-image", "./wasm-image")];

/// Returns the directory of the programs.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    let source = root().join("tests/istio-rbac");
    let files = ["go.mod", "go.sum", "main.go", "wasm-image/main.go"]
        .into_iter()
        .map(|name| fs::read(source.join(name)).with_context(|| format!("tests/istio-rbac has no {name}")))
        .collect::<Result<Vec<_>>>()?;
    cached(&format!("istio-rbac-{:.16}", build_key(files)), |directory| {
        eprintln!(
            "Istio's RBAC builder: building tests/istio-rbac from Istio's Go module (four minutes without a cache)"
        );
        for (name, package) in PROGRAMS {
            let mut build = go(Dependencies::Committed)?;
            build.current_dir(&source).args(["build", "-o"]).arg(directory.join(name)).arg(package);
            run_logged(&format!("building {name}"), &mut build, LIMIT)?;
        }
        Ok(())
    })
}
