//! The Docker engine and its Compose plugin: those of the machine, or Debian's engine and the plugin built from its Go module.

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

/// An engine that answers. One that was started here ends with this value.
pub(crate) struct Engine {
    daemon: Option<Child>,
}

impl Engine {
    /// The engine of the machine, or one that is started, with a `docker compose` that works.
    ///
    /// # Errors
    /// In one line, when this machine cannot run containers.
    pub(crate) fn find_or_start() -> Result<Self> {
        let engine = if answers() { Self { daemon: None } } else { Self { daemon: Some(start()?) } };
        install_compose()?;
        Ok(engine)
    }

    /// Leaves the engine running, and says so, if it was started here.
    pub(crate) fn keep(mut self) {
        if let Some(daemon) = self.daemon.take() {
            eprintln!("Docker: dockerd stays up as process {}; `kill {}` ends it", daemon.id(), daemon.id());
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        // By its number; SIGTERM, so that it ends its containers and takes its network rules back.
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

/// The path of the command.
pub(crate) fn client() -> Result<PathBuf> {
    on_path("docker").context("there is no command docker")
}

fn answers() -> bool {
    output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])).is_some()
}

fn start() -> Result<Child> {
    if on_path("dockerd").is_none() {
        let packages = DEBIAN_DOCKER_PACKAGES;
        eprintln!("Docker: no engine answers and none is installed; taking Debian's: {}", packages.join(" "));
        debian::install(&packages).context("this machine cannot run containers: no Docker engine can be installed")?;
    }
    ensure!(
        debian::is_root(),
        "this machine cannot run containers: no Docker engine answers, and starting one needs root"
    );
    let log = target().join("xtask-logs/dockerd.log");
    fs::create_dir_all(target().join("xtask-logs"))?;
    eprintln!("Docker: no engine answers; starting dockerd (log: {})", log.display());
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new("dockerd");
    // In our process group: an interrupt from the keyboard ends both.
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut daemon = command.spawn().context("cannot start dockerd")?;
    let deadline = Instant::now() + START_LIMIT;
    while !answers() {
        if let Some(status) = daemon.try_wait()? {
            bail!("this machine cannot run containers: dockerd ended ({status}); see {}", log.display());
        }
        if Instant::now() > deadline {
            // Its end is all that is left to ask for.
            drop(Engine { daemon: Some(daemon) });
            bail!("this machine cannot run containers: dockerd does not answer; see {}", log.display());
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(daemon)
}

/// Puts the plugin where `docker` looks for it, unless there is one of version 2 or later.
fn install_compose() -> Result<()> {
    let version = output(Command::new("docker").args(["compose", "version", "--short"]));
    if version.is_some_and(|version| !version.trim_start_matches('v').starts_with("1.")) {
        return Ok(());
    }
    let built = cached(&format!("docker-compose-{COMPOSE}"), build_compose)?.join("docker-compose");
    let plugins =
        env::home_dir().context("there is no home directory for Docker's plugins")?.join(".docker/cli-plugins");
    fs::create_dir_all(&plugins)?;
    let place = plugins.join("docker-compose");
    eprintln!("Docker Compose {COMPOSE}: linking {} to {}", place.display(), built.display());
    if place.symlink_metadata().is_ok() {
        fs::remove_file(&place)?;
    }
    symlink(&built, &place).with_context(|| format!("cannot write {}", place.display()))?;
    let works = output(Command::new("docker").args(["compose", "version"])).is_some();
    ensure!(works, "`docker compose` does not work with the plugin {}", place.display());
    Ok(())
}

fn build_compose(directory: &Path) -> Result<()> {
    eprintln!(
        "Docker Compose {COMPOSE}: building the plugin from its Go module (three minutes when nothing is cached)"
    );
    let link = format!("-s -w -X github.com/docker/compose/v2/internal.Version=v{COMPOSE}");
    let module = GoModule {
        path: "github.com/docker/compose/v2",
        version: COMPOSE,
        sum: COMPOSE_SUM,
        beside: "",
        replace: None,
        link: &link,
        programs: &[("docker-compose", "./cmd")],
    };
    module.build(directory)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|place| place.is_file())
}
