//! The images in docker-compose.yaml, built from the pinned binaries if no registry can be reached, and the image of the
//! controller.
//!
//! The images in docker-compose.yaml have the properties of the official images that the compose file uses: names, entrypoints, paths and users. The
//! image of Envoy also has a shell.

mod root_file_system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::root_file_system::RootFileSystem;
use crate::artifacts;
use crate::process::{output, run_logged, shown};
use crate::tools::docker::Engine;
use crate::tools::{envoy, spire};
use crate::versions::{ENVOY, SPIRE};
use crate::workspace::{self, build_key};

const PULL_LIMIT: Duration = Duration::from_secs(300);
/// The label of images that were built here, with a hash of their recipe.
const LABEL: &str = "spiffe-authz.made-of";
/// The sources that make an image, which are part of the recipe.
const SOURCES: [&str; 2] = [include_str!("images.rs"), include_str!("images/root_file_system.rs")];
const ENTRYPOINT: &str = include_str!("images/envoy-entrypoint.sh");
/// The programs that the scripts of examples/compose and the entrypoint use.
const PROGRAMS: [&str; 15] = [
    "bash", "cat", "chmod", "chown", "date", "env", "grep", "id", "mkdir", "rm", "sed", "setpriv", "tail", "tee",
    "timeout",
];

struct Image {
    name: String,
    make: fn() -> Result<RootFileSystem>,
    /// The instructions of a Dockerfile.
    instructions: &'static [&'static str],
}

/// Builds every missing image. Keeps the engine running if it was started here.
pub(crate) fn make() -> Result<()> {
    let command = artifacts::build_command()?;
    let engine = Engine::find_or_start()?;
    for image in images() {
        image.find_or_make()?;
    }
    make_command(&command)?;
    engine.keep();
    Ok(())
}

/// The image in examples/istio/5-authorization/controller/controller.yaml. Its registry does not exist.
const COMMAND: &str = concat!("registry.example.org/spiffe-authz-command:", env!("CARGO_PKG_VERSION"));

/// Builds the image with this command. It needs no other program, and no file that it writes.
fn make_command(command: &Path) -> Result<()> {
    eprintln!("image {COMMAND}: building it from {}", command.display());
    let mut root = RootFileSystem::new(place("command"))?;
    root.add_program(command, "usr/local/bin/spiffe-authz")?;
    let instructions = ["ENTRYPOINT [\"/usr/local/bin/spiffe-authz\"]", "USER 65532:65532"];
    import(COMMAND, &root, &instructions)
}

/// Finds or pulls every image of docker-compose.yaml. Builds those that cannot be pulled.
pub(crate) fn find_or_get() -> Result<()> {
    for image in images() {
        let name = &image.name;
        if image.label().is_none() {
            let mut pull = Command::new("docker");
            match run_logged(&format!("docker pull {name}"), pull.args(["pull", name]), PULL_LIMIT) {
                Ok(()) => continue,
                Err(error) => eprintln!("  cannot pull it: {error:#}"),
            }
        }
        image.find_or_make()?;
    }
    Ok(())
}

fn images() -> [Image; 3] {
    [
        Image {
            name: format!("envoyproxy/envoy:v{}", ENVOY.version),
            make: envoy_root,
            instructions: &[
                "ENTRYPOINT [\"/docker-entrypoint.sh\"]",
                "CMD [\"envoy\", \"-c\", \"/etc/envoy/envoy.yaml\"]",
                "EXPOSE 10000",
            ],
        },
        Image {
            name: format!("ghcr.io/spiffe/spire-server:{SPIRE}"),
            make: spire_server_root,
            instructions: &[
                "ENTRYPOINT [\"/opt/spire/bin/spire-server\", \"run\"]",
                "WORKDIR /opt/spire",
                "USER 1000:1000",
            ],
        },
        Image {
            name: format!("ghcr.io/spiffe/spire-agent:{SPIRE}"),
            make: spire_agent_root,
            instructions: &["ENTRYPOINT [\"/opt/spire/bin/spire-agent\", \"run\"]", "WORKDIR /opt/spire", "USER 0:0"],
        },
    ]
}

impl Image {
    /// Returns the image's label, which is empty for a pulled image, or `None` if there is no image of this name.
    fn label(&self) -> Option<String> {
        let format = format!("--format={{{{index .Config.Labels \"{LABEL}\"}}}}");
        Some(output(Command::new("docker").args(["image", "inspect", &format, &self.name]))?.trim().to_owned())
    }

    fn recipe(&self) -> String {
        build_key([&*self.name, ENTRYPOINT].into_iter().chain(SOURCES))
    }

    fn find_or_make(&self) -> Result<()> {
        let (name, recipe) = (&self.name, self.recipe());
        match self.label() {
            Some(label) if label == recipe => eprintln!("image {name}: already built here"),
            Some(label) if label.is_empty() => eprintln!("image {name}: already pulled"),
            _ => {
                eprintln!("image {name}: building it from the binaries in {}", workspace::cache()?.display());
                let label = format!("LABEL {LABEL}={recipe}");
                import(name, &(self.make)()?, &[&[&*label], self.instructions].concat())?;
            }
        }
        Ok(())
    }
}

/// Makes a file system an image with these instructions of a Dockerfile.
fn import(name: &str, root: &RootFileSystem, instructions: &[&str]) -> Result<()> {
    let archive = root.archive()?;
    let mut import = Command::new("docker");
    import.arg("import");
    for instruction in instructions {
        import.args(["--change", instruction]);
    }
    import.arg(&archive).arg(name).stdout(Stdio::null());
    let status = import.status().context("docker: cannot start")?;
    ensure!(status.success(), "{} failed ({status})", shown(&import));
    fs::remove_file(archive)?;
    Ok(())
}

fn place(name: &str) -> PathBuf {
    workspace::target().join("images").join(name)
}

fn envoy_root() -> Result<RootFileSystem> {
    let mut root = RootFileSystem::new(place("envoy"))?;
    for program in PROGRAMS {
        root.add_system_program(program)?;
    }
    root.link("bash", "usr/bin/sh")?;
    root.add_program(&envoy::find_or_get(&ENVOY)?, "usr/local/bin/envoy")?;
    root.write("docker-entrypoint.sh", ENTRYPOINT, true)?;
    root.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nenvoy:x:101:101::/nonexistent:/bin/false\n", false)?;
    root.write("etc/group", "root:x:0:\nenvoy:x:101:\n", false)?;
    root.directory("etc/envoy")?;
    root.temporary_directory("tmp")?;
    Ok(root)
}

fn spire_server_root() -> Result<RootFileSystem> {
    let mut root = RootFileSystem::new(place("spire-server"))?;
    root.add_program(&spire::find_or_get()?.join("spire-server"), "opt/spire/bin/spire-server")?;
    for path in ["etc/spire/server", "run/spire/server/private", "tmp/spire-server/private", "var/lib/spire/server"] {
        root.owned_directory(path, 1000)?;
    }
    Ok(root)
}

fn spire_agent_root() -> Result<RootFileSystem> {
    let mut root = RootFileSystem::new(place("spire-agent"))?;
    root.add_program(&spire::find_or_get()?.join("spire-agent"), "opt/spire/bin/spire-agent")?;
    for path in ["etc/spire/agent", "run/spire/agent/public", "tmp/spire-agent/public", "var/lib/spire/agent"] {
        root.directory(path)?;
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::{COMMAND, images};
    use crate::workspace;

    #[test]
    fn the_controller_has_the_image_of_the_command() {
        let file = workspace::root().join("examples/istio/5-authorization/controller/controller.yaml");
        let text = fs::read_to_string(file).expect("the manifest");
        assert!(text.contains(&format!("image: {COMMAND}\n")), "{COMMAND} is not in the manifest");
    }

    #[test]
    fn the_compose_file_names_these_images() {
        let named: Vec<String> = images().into_iter().map(|image| image.name).collect();
        for (file, key) in [("docker-compose.yaml", "image: "), ("examples/compose/Dockerfile", "FROM ")] {
            let text = fs::read_to_string(workspace::root().join(file)).expect(file);
            let values = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.split(' ').next());
            // The images that the compose file builds have no version.
            let found: BTreeSet<&str> = values.filter(|name| name.contains(':')).collect();
            assert!(found.len() > 1 && found.iter().all(|name| named.iter().any(|n| n == name)), "{file}: {found:?}");
        }
    }
}
