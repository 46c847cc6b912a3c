//! Programs from Go modules, built with the dependencies in their own go.mod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{output, run, run_logged};

const LIMIT: Duration = Duration::from_secs(2400);

/// The `-mod` flag of a build.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dependencies {
    /// Only those of the committed go.mod and go.sum.
    Committed,
    /// The checksum database completes a go.sum that lacks some of them.
    Completed,
}

/// Returns `go` with settings that neither the environment nor `go env -w` can override, so that downloads are checked.
///
/// # Errors
/// Returns an error if the checksum database is off.
pub(crate) fn go(dependencies: Dependencies) -> Result<Command> {
    let mut go = checked_go(dependencies);
    let database = output(checked_go(dependencies).args(["env", "GOSUMDB"])).context("go: cannot start")?;
    ensure!(database.trim() != "off", "Go's checksum database is off (run `go env -u GOSUMDB`)");
    go.env("GOWORK", "off");
    Ok(go)
}

fn checked_go(dependencies: Dependencies) -> Command {
    let flags = match dependencies {
        Dependencies::Committed => "-mod=readonly -buildvcs=false",
        Dependencies::Completed => "-mod=mod -buildvcs=false",
    };
    let mut go = Command::new("go");
    // An empty variable would let `go env -w` decide. `none` is not the path of any module.
    go.env("GOFLAGS", flags).env("GONOSUMDB", "none");
    go.env_remove("GOSUMDB").env_remove("GONOSUMCHECK");
    go
}

/// A Go module and its programs.
pub(crate) struct GoModule<'a> {
    /// The path of the module.
    pub(crate) path: &'a str,
    /// The version of the module, without the `v`.
    pub(crate) version: &'a str,
    /// The checksum of the module, as in go.sum. Go also compares it with its checksum database.
    pub(crate) sum: &'a str,
    /// The version of the dependencies that are in directories of the module's repository. Outside it, they are
    /// separate modules.
    pub(crate) beside: &'a str,
    /// A replacement of a dependency, as an argument of `go mod edit -replace`.
    pub(crate) replace: Option<&'a str>,
    /// Build tags, separated by commas.
    pub(crate) tags: &'a str,
    /// Flags for the linker.
    pub(crate) link: &'a str,
    /// The name and the package of each program.
    pub(crate) programs: &'a [(&'a str, &'a str)],
}

impl GoModule<'_> {
    /// Downloads the module. Returns the directory of the sources.
    pub(crate) fn source(&self) -> Result<PathBuf> {
        let module = format!("{}@v{}", self.path, self.version);
        let json = output(go(Dependencies::Completed)?.args(["mod", "download", "-json", &module]))
            .with_context(|| format!("cannot download {module} (Go and a module proxy are required)"))?;
        let Download { directory, sum } = Download::parse(&json).with_context(|| module.clone())?;
        let expected = self.sum;
        ensure!(sum == expected, "{module} has the checksum {sum}; xtask/src/versions.rs expects {expected}");
        Ok(directory)
    }

    /// Builds the programs in `directory`. It uses copies of the module's go.mod and go.sum, so that the dependencies
    /// are those that the authors tested, and the module cache is not modified.
    pub(crate) fn build(&self, directory: &Path) -> Result<()> {
        let source = self.source()?;
        let go_mod = directory.join("go.mod");
        fs::write(&go_mod, alone(&fs::read_to_string(source.join("go.mod"))?, self.beside))?;
        // `fs::copy` would keep the read-only mode of the module cache.
        fs::write(directory.join("go.sum"), fs::read(source.join("go.sum"))?)?;
        if let Some(replace) = self.replace {
            run(go(Dependencies::Completed)?.args(["mod", "edit", "-replace", replace]).arg(&go_mod))?;
        }
        for (name, package) in self.programs {
            let mut build = go(Dependencies::Completed)?;
            build.current_dir(&source).args(["build", "-tags", self.tags, "-ldflags", self.link]);
            build.arg(format!("-modfile={}", go_mod.display()));
            build.arg("-o").arg(directory.join(name)).arg(package);
            run_logged(&format!("building {name} {}", self.version), &mut build, LIMIT)?;
        }
        for name in ["go.mod", "go.sum"] {
            fs::remove_file(directory.join(name))?;
        }
        Ok(())
    }
}

/// Removes replacements with local directories from a go.mod, and sets their modules (`v0.0.0`) to this version.
fn alone(go_mod: &str, version: &str) -> String {
    let mut text = String::new();
    for line in go_mod.lines().filter(|line| !line.contains("=> ./") && !line.contains("=> ../")) {
        match line.strip_suffix(" v0.0.0") {
            Some(module) => text.push_str(&format!("{module} v{version}")),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The output of `go mod download -json`.
#[derive(Debug, PartialEq, Eq)]
struct Download {
    /// The directory of the sources.
    directory: PathBuf,
    /// The checksum, as in go.sum.
    sum: String,
}

impl Download {
    fn parse(json: &str) -> Result<Self> {
        let output: Value = serde_json::from_str(json).context("the output of `go mod download` is not JSON")?;
        let field = |name: &str| {
            let value = output[name].as_str().map(str::to_owned);
            value.with_context(|| format!("the output of `go mod download` has no `{name}`"))
        };
        Ok(Self { directory: field("Dir")?.into(), sum: field("Sum")? })
    }
}

#[cfg(test)]
mod tests {
    use super::{Dependencies, Download, alone, checked_go, go};

    /// Returns a variable, as `go` reads it in an environment that would turn off the checks.
    fn seen(variable: &str) -> String {
        let mut command = checked_go(Dependencies::Committed);
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("env");
        std::fs::write(&file, "GOFLAGS=-mod=vendor\nGONOSUMDB=*\nGOPRIVATE=*\n").expect("a file");
        command.env("GOENV", &file).env("GOPRIVATE", "*").args(["env", variable]);
        crate::process::output(&mut command).expect("go").trim().to_owned()
    }

    #[test]
    fn the_environment_does_not_turn_off_the_checksum_database() {
        assert_eq!(seen("GOFLAGS"), "-mod=readonly -buildvcs=false");
        assert_eq!(seen("GONOSUMDB"), "none");
        // `go` reads the file: variables without a fixed value come from it.
        assert_eq!(seen("GOPRIVATE"), "*");
        let removed = |name: &str| {
            go(Dependencies::Completed).expect("go").get_envs().any(|(key, value)| key == name && value.is_none())
        };
        assert!(removed("GOSUMDB") && removed("GONOSUMCHECK"));
    }

    #[test]
    fn the_output_of_a_download_is_read() {
        let json = "{\n\t\"Path\": \"example.org/x\",\n\t\"Dir\": \"/tmp/x@v1\",\n\t\"Sum\": \"h1:abc=\"\n}";
        let download = Download { directory: "/tmp/x@v1".into(), sum: "h1:abc=".to_owned() };
        assert_eq!(Download::parse(json).expect("a download"), download);
        let error = Download::parse("{\"Dir\": \"/tmp/x@v1\"}").expect_err("no checksum");
        assert_eq!(error.to_string(), "the output of `go mod download` has no `Sum`");
    }

    #[test]
    fn a_module_stands_alone() {
        let go_mod =
            "require (\n\ta/x v0.0.0\n\tb v0.0.0-2026\n)\n\nreplace (\n\ta/x => ./staging/a/x\n\tb => c v1\n)\n";
        assert_eq!(
            alone(go_mod, "0.37.2"),
            "require (\n\ta/x v0.37.2\n\tb v0.0.0-2026\n)\n\nreplace (\n\tb => c v1\n)\n"
        );
    }
}
