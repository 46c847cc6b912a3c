//! The Docker engine and the Compose plugin of this machine, or Debian's engine and a plugin built from its Go module.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::debian;
use super::go::GoModule;
use crate::process::output;
use crate::versions::{COMPOSE, COMPOSE_SUM, DEBIAN_DOCKER_PACKAGES};
use crate::workspace::{cached, target};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A running engine. Dropping it stops an engine that was started here.
pub(crate) struct Engine {
    daemon: Option<Child>,
}

impl Engine {
    /// Finds a running engine or starts one, with a working `docker compose`.
    ///
    /// # Errors
    /// Returns an error if this machine cannot run containers.
    pub(crate) fn find_or_start() -> Result<Self> {
        let engine = if answers() { Self { daemon: None } } else { Self { daemon: Some(start()?) } };
        install_compose()?;
        Ok(engine)
    }

    /// Keeps the engine running if it was started here, and prints its process ID.
    pub(crate) fn keep(mut self) {
        if let Some(daemon) = self.daemon.take() {
            eprintln!("Docker: dockerd keeps running as process {} (stop it with `kill {}`)", daemon.id(), daemon.id());
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        // SIGTERM makes dockerd stop its containers and remove its network rules.
        let told = Command::new("kill").arg(daemon.id().to_string()).status();
        let deadline = Instant::now() + STOP_LIMIT;
        while told.is_ok() && Instant::now() < deadline {
            if !matches!(daemon.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
        eprintln!("Docker: dockerd (process {}) did not end", daemon.id());
    }
}

/// Returns the path of the command.
pub(crate) fn client() -> Result<PathBuf> {
    on_path("docker").context("cannot find the command docker")
}

fn answers() -> bool {
    output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])).is_some()
}

fn start() -> Result<Child> {
    if on_path("dockerd").is_none() {
        let packages = DEBIAN_DOCKER_PACKAGES;
        eprintln!("Docker: no engine runs and none is installed; installing Debian's packages: {}", packages.join(" "));
        debian::install(&packages).context("this machine cannot run containers: no Docker engine can be installed")?;
    }
    ensure!(
        debian::is_root(),
        "this machine cannot run containers: no Docker engine answers, and starting one needs root"
    );
    let log = target().join("xtask-logs/dockerd.log");
    fs::create_dir_all(target().join("xtask-logs"))?;
    eprintln!("Docker: no engine runs; starting dockerd (log: {})", log.display());
    let file = File::create(&log).with_context(|| format!("{}: cannot write the file", log.display()))?;
    let mut command = Command::new("dockerd");
    // dockerd is in our process group, so an interrupt from the keyboard ends both.
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut daemon = command.spawn().context("dockerd: cannot start")?;
    let deadline = Instant::now() + START_LIMIT;
    while !answers() {
        if let Some(status) = daemon.try_wait()? {
            bail!("this machine cannot run containers: dockerd ended ({status}); see {}", log.display());
        }
        if Instant::now() > deadline {
            // Stop it.
            drop(Engine { daemon: Some(daemon) });
            bail!("this machine cannot run containers: dockerd does not respond; see {}", log.display());
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(daemon)
}

/// Installs the plugin in the directory of Docker's plugins, unless version 2 or later is installed.
fn install_compose() -> Result<()> {
    let version = output(Command::new("docker").args(["compose", "version", "--short"]));
    if version.is_some_and(|version| !version.trim_start_matches('v').starts_with("1.")) {
        return Ok(());
    }
    let built = cached(&format!("docker-compose-{COMPOSE}"), build_compose)?.join("docker-compose");
    let plugins =
        env::home_dir().context("cannot find the home directory for Docker's plugins")?.join(".docker/cli-plugins");
    fs::create_dir_all(&plugins)?;
    let place = plugins.join("docker-compose");
    eprintln!("Docker Compose {COMPOSE}: linking {} to {}", place.display(), built.display());
    if place.symlink_metadata().is_ok() {
        fs::remove_file(&place)?;
    }
    symlink(&built, &place).with_context(|| format!("{}: cannot create the link", place.display()))?;
    let works = output(Command::new("docker").args(["compose", "version"])).is_some();
    ensure!(works, "`docker compose` does not work with the plugin {}", place.display());
    Ok(())
}

fn build_compose(directory: &Path) -> Result<()> {
    eprintln!("Docker Compose {COMPOSE}: building the plugin from its Go module (three minutes without a cache)");
    let link = format!("-s -w -X github.com/docker/compose/v2/internal.Version=v{COMPOSE}");
    let module = GoModule {
        path: "github.com/docker/compose/v2",
        version: COMPOSE,
        sum: COMPOSE_SUM,
        beside: "",
        replace: None,
        tags: "",
        link: &link,
        programs: &[("docker-compose", "./cmd")],
    };
    module.build(directory)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|place| place.is_file())
}
