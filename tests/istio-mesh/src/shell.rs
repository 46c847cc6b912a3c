//! A shell in a copy of examples/istio, in which the commands of the guide run in the environment.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use spiffe_authz_integration::tools as programs;

use crate::environment::Environment;
use crate::istio::Webhooks;
use crate::kubectl::finish;
use crate::tools;

/// The shell with its environment variables.
#[derive(Debug, Clone)]
pub struct Shell {
    files: PathBuf,
    programs: PathBuf,
    path: OsString,
    variables: Vec<(&'static str, PathBuf)>,
    shown: bool,
}

impl Shell {
    /// Copies examples/istio, because some commands write to it, and adds kubectl, istioctl and `spiffe-authz` to the
    /// path. If `shown`, steps, commands and their output are printed.
    ///
    /// # Errors
    /// Returns an error if a program is missing.
    pub fn new(environment: &Environment, webhooks: &Webhooks, shown: bool) -> Result<Self> {
        let files = environment.directory().join("istio");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/istio"), &files)?;
        let programs = environment.directory().join("bin");
        fs::create_dir_all(&programs)?;
        symlink(environment.kubectl().program(), programs.join("kubectl"))?;
        symlink(programs::path(programs::COMMAND)?, programs.join("spiffe-authz"))?;
        let istioctl = tools::path(tools::ISTIO, "istioctl")?;
        let settings = webhooks.settings().map(|setting| format!(" --set {setting}")).concat();
        // The guide does not contain the settings that istiod as a process needs.
        let body = format!("[ \"$1\" = install ] && set -- \"$@\"{settings}\nexec {} \"$@\"", istioctl.display());
        script(&programs.join("istioctl"), &body)?;
        let server = programs::path(programs::SPIRE_SERVER)?;
        let body = format!("exec {} \"$@\" -socketPath {}", server.display(), environment.local.socket().display());
        script(&programs.join("spire-server"), &body)?;
        script(&programs.join("helm"), &helm(environment))?;
        let variables = vec![
            ("KUBECONFIG", environment.kubectl().kubeconfig().to_owned()),
            ("SPIRE_SERVER", programs.join("spire-server")),
            ("WASM", programs::path(programs::WASM)?),
        ];
        let rest = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(programs.clone()).chain(env::split_paths(&rest)))?;
        Ok(Self { files, programs, path, variables, shown })
    }

    /// Prints the title of a step.
    pub fn step(&self, title: &str) {
        if self.shown {
            println!("\n── {title}");
        }
    }

    /// Runs a command line of the guide and returns its output.
    ///
    /// # Errors
    /// Returns an error with the output if the command fails.
    pub fn run(&self, line: &str) -> Result<String> {
        if self.shown {
            println!("$ {line}");
        }
        let mut command = Command::new("sh");
        command.current_dir(&self.files).args(["-c", line]).env("PATH", &self.path);
        let output = finish(command.envs(self.variables.iter().map(|(name, value)| (name, value))))?;
        if self.shown {
            print!("{output}");
        }
        Ok(output)
    }

    /// Replaces a value in a file of the guide, as a user does with a deployment-specific one.
    ///
    /// # Errors
    /// Returns an error if the file does not contain it.
    pub fn substitute(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.files.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("{file}: cannot read the file"))?;
        ensure!(text.contains(from), "{file}: expected `{from}`");
        Ok(fs::write(path, text.replace(from, to))?)
    }

    /// The directory of the programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The copy of examples/istio.
    #[must_use]
    pub fn files(&self) -> &Path {
        &self.files
    }
}

/// Returns a script that replaces helm. No package registry has SPIRE's charts, so `uninstall` deletes the objects that
/// this environment created instead.
fn helm(environment: &Environment) -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/spire.yaml");
    format!(
        "case \"$*\" in\n\
         'status -n spire-server spire' | 'status -n spire-server spire-crds') ;;\n\
         'delete -n spire-server spire') exec kubectl delete -f {} ;;\n\
         'delete -n spire-server spire-crds') ;;\n\
         *) echo \"no helm here: $*\" >&2; exit 1 ;;\nesac\n# for {}",
        manifest.display(),
        environment.local.trust_domain
    )
}

fn script(path: &Path, body: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}: cannot read the directory", from.display()))? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}
