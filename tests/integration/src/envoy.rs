//! A running Envoy.

mod hot_restart;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

pub use self::hot_restart::Epoch;
use crate::bootstrap::Bootstrap;
use crate::http::{Client, Response};
use crate::process::Process;
use crate::{tools, wait};

/// The argument for the number of worker threads. The default here is 1.
pub const WORKERS: &str = "--concurrency";

const READY_LIMIT: Duration = Duration::from_secs(60);

/// A running Envoy. Dropping it ends the process.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
}

/// The arguments for starting an Envoy.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program. SPIRE identifies a workload by this path.
    pub program: PathBuf,
    /// The name of its log files.
    pub name: &'a str,
    /// Additional command-line arguments.
    pub arguments: &'a [&'a str],
}

impl<'a> Start<'a> {
    /// Starts the tested release of Envoy.
    ///
    /// # Errors
    /// Returns an error if the program is missing.
    pub fn tested(name: &'a str) -> Result<Self> {
        Ok(Self { program: tools::path(tools::ENVOY)?, name, arguments: &[] })
    }
}

impl Envoy {
    /// Starts Envoy and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error with the end of the log if Envoy ends, or is not ready in time.
    pub fn start(start: &Start<'_>, bootstrap: &Bootstrap, directory: &Path) -> Result<Self> {
        Self::start_within(READY_LIMIT, start, bootstrap, directory)
    }

    /// Starts Envoy and waits until it is ready, for a program that makes it slow.
    ///
    /// # Errors
    /// Returns an error with the end of the log if Envoy ends, or is not ready in time.
    pub fn start_within(limit: Duration, start: &Start<'_>, bootstrap: &Bootstrap, directory: &Path) -> Result<Self> {
        Self::serving(launch(start, &["--disable-hot-restart"], bootstrap, directory)?, limit)
    }

    fn serving((mut process, admin_file): (Process, PathBuf), limit: Duration) -> Result<Self> {
        let ready = wait::until("Envoy serves", limit, || {
            ensure!(process.ended()?.is_none(), "Envoy ended early");
            let Ok(address) = fs::read_to_string(&admin_file) else { return Ok(None) };
            let Ok(admin) = address.trim().parse() else { return Ok(None) };
            let ready = Client::plain(admin).and_then(|mut client| client.get("/ready"));
            Ok(ready.is_ok_and(|response| response.status == 200).then_some(admin))
        });
        let admin = ready.with_context(|| process.tail())?;
        Ok(Self { process, admin })
    }

    /// Starts Envoy with a configuration that it must reject, waits for its end, and returns the log.
    ///
    /// # Errors
    /// Returns an error if Envoy accepts the configuration.
    pub fn rejected(start: &Start<'_>, bootstrap: &Bootstrap, directory: &Path) -> Result<String> {
        let (mut process, _) = launch(start, &["--disable-hot-restart"], bootstrap, directory)?;
        let status = wait::until("Envoy rejects the configuration", READY_LIMIT, || process.ended())?;
        ensure!(!status.success(), "Envoy ended without an error");
        process.log()
    }

    /// Runs `envoy --mode validate`. Returns `true` if the configuration is valid, and the log.
    ///
    /// # Errors
    /// Returns an error if Envoy cannot be run.
    pub fn validate(bootstrap: &Bootstrap, directory: &Path) -> Result<(bool, String)> {
        let file = directory.join("validate.json");
        fs::write(&file, bootstrap.to_json())?;
        let output = Command::new(tools::path(tools::ENVOY)?)
            .args(["--mode", "validate", "--config-path"])
            .arg(file)
            .output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Returns the address of the listener.
    ///
    /// # Errors
    /// Returns an error if the admin interface does not list it.
    pub fn address(&self) -> Result<SocketAddr> {
        let listeners: Value = serde_json::from_slice(&self.admin("/listeners?format=json")?.body)?;
        let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        let port = socket["port_value"].as_u64().context("Envoy has no listener")?;
        Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
    }

    /// Returns the address and the additional addresses of the first listener.
    ///
    /// # Errors
    /// Returns an error if the admin interface does not list them.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let listeners: Value = serde_json::from_slice(&self.admin("/listeners?format=json")?.body)?;
        let listener = &listeners["listener_statuses"][0];
        let additional = listener["additional_local_addresses"].as_array().into_iter().flatten();
        std::iter::once(&listener["local_address"])
            .chain(additional)
            .map(|address| {
                let port = address["socket_address"]["port_value"].as_u64().context("an address has no port")?;
                Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
            })
            .collect()
    }

    /// The address of the admin interface.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Sends a request to the admin interface.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn admin(&self, path: &str) -> Result<Response> {
        Client::plain(self.admin)?.get(path)
    }

    /// Returns the value of a counter or gauge, or `None` if Envoy does not have it.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn stat(&self, name: &str) -> Result<Option<u64>> {
        let text = self.admin("/stats")?.text();
        Ok(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok()))
    }

    /// Returns the lines of the JSON access log.
    ///
    /// # Errors
    /// Returns an error if a line is not JSON.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        let output = self.process.output()?;
        // The last line can be incomplete.
        let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Waits until the access log has `count` lines, and returns them. An argument of the harness makes Envoy flush the
    /// log. The default interval is ten seconds.
    ///
    /// # Errors
    /// Returns an error if the lines are not written in time.
    pub fn access_log_of(&self, count: usize) -> Result<Vec<Value>> {
        wait::until("the access log has its lines", Duration::from_secs(15), || {
            let lines = self.access_log()?;
            Ok((lines.len() >= count).then_some(lines))
        })
    }

    /// Returns the log.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// Returns the process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns the resident set size in bytes.
    ///
    /// # Errors
    /// Returns an error if `/proc` cannot be read.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("unexpected /proc/PID/status")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Returns the CPU time of the threads, as counted by the scheduler.
    ///
    /// # Errors
    /// Returns an error if `/proc` cannot be read.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // Documentation/scheduler/sched-stats.rst: the first number is the time on the CPU.
            let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += stat.split(' ').next().context("unexpected schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

fn launch(start: &Start<'_>, restart: &[&str], bootstrap: &Bootstrap, directory: &Path) -> Result<(Process, PathBuf)> {
    let config = directory.join(format!("{}.json", start.name));
    fs::write(&config, bootstrap.to_json())?;
    let admin_file = directory.join(format!("{}.admin", start.name));
    let _ = fs::remove_file(&admin_file);
    let mut command = Command::new(&start.program);
    command
        .arg("--config-path")
        .arg(config)
        .arg("--admin-address-path")
        .arg(&admin_file)
        .args(restart)
        .args(if start.arguments.contains(&WORKERS) { &[][..] } else { &[WORKERS, "1"] })
        .args(["--file-flush-interval-msec", "50"])
        .args(["--drain-time-s", "1", "--log-level", "warning", "--component-log-level", "wasm:info"])
        .args(start.arguments)
        // The directory where Envoy looks up dynamic modules without a path.
        .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", directory);
    Ok((Process::start(&mut command, directory, start.name)?, admin_file))
}
