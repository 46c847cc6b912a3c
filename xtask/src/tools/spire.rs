//! SPIRE server and agent, built from their Go module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{output, run, run_logged};
use crate::versions::{SPIRE, SPIRE_REPLACE};
use crate::workspace::cached;

const LIMIT: Duration = Duration::from_secs(2400);

/// The directory with `spire-server` and `spire-agent`.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    cached(&format!("spire-{SPIRE}"), get)
}

fn get(directory: &Path) -> Result<()> {
    eprintln!("SPIRE {SPIRE}: building server and agent from the Go module (five minutes when nothing is cached)");
    let module = format!("github.com/spiffe/spire@v{SPIRE}");
    let json = output(Command::new("go").args(["mod", "download", "-json", &module]))
        .with_context(|| format!("go could not download {module}; it needs Go and a module proxy"))?;
    let source = PathBuf::from(field(&json, "Dir").context("go named no directory for the module of SPIRE")?);
    let go_mod = directory.join("go.mod");
    for name in ["go.mod", "go.sum"] {
        // Read and written, not copied: a copy would keep the module cache's read-only mode.
        fs::write(directory.join(name), fs::read(source.join(name))?)?;
    }
    run(Command::new("go").args(["mod", "edit", "-replace", SPIRE_REPLACE]).arg(&go_mod))?;
    run_logged(
        &format!("building SPIRE {SPIRE}"),
        Command::new("go")
            .current_dir(&source)
            .args(["build", "-mod=mod"])
            .arg(format!("-modfile={}", go_mod.display()))
            .arg("-o")
            .arg(format!("{}/", directory.display()))
            .args(["./cmd/spire-server", "./cmd/spire-agent"]),
        LIMIT,
    )
    .context("SPIRE needs Go with cgo: a C compiler must be there")?;
    for name in ["go.mod", "go.sum"] {
        fs::remove_file(directory.join(name))?;
    }
    Ok(())
}

/// A text field of Go's indented JSON.
fn field<'j>(json: &'j str, name: &str) -> Option<&'j str> {
    let start = format!("\"{name}\": \"");
    json.lines().find_map(|line| line.trim().strip_prefix(&start)?.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn reads_gos_answer() {
        let json = "{\n\t\"Path\": \"example.org/x\",\n\t\"Dir\": \"/tmp/x@v1\",\n\t\"Sum\": \"h1:abc=\"\n}";
        assert_eq!(field(json, "Dir"), Some("/tmp/x@v1"));
        assert_eq!(field(json, "Zip"), None);
    }
}
