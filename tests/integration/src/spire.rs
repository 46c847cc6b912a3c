//! A SPIRE server and agent, from the files of examples/bootstrap/spire.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bootstrap::{AGENT_SOCKET, text_example};
use crate::process::Process;
use crate::{tools, wait};

const START_LIMIT: Duration = Duration::from_secs(60);

/// The trust domain of the example.
const TRUST_DOMAIN: &str = "example.org";
/// The SPIFFE ID of the agent in the examples.
const AGENT_ID: &str = "spiffe://example.org/agent";
/// Where the examples have the programs of the workloads.
const WORKLOADS: &str = "/opt/workloads";
/// Where SPIRE's own intervals are shortened: five seconds each, they would make a new entry wait for ten.
const LOG_LEVEL: &str = "log_level    = \"INFO\"\n";
const SERVER_INTERVAL: &str = "experimental { cache_reload_interval = \"500ms\" }\n";
const AGENT_LOG_LEVEL: &str = "log_level      = \"INFO\"\n";
const AGENT_INTERVAL: &str = "experimental { sync_interval = \"1s\" }\n";
/// What would look for a Docker daemon where the tests themselves run in a container.
const DOCKER_ATTESTOR: &str = "  WorkloadAttestor \"docker\" {\n    plugin_data {}\n  }\n";
/// How long the identities of the examples live, in seconds.
const TTL: &str = "\"x509_svid_ttl\": 3600";

/// A trust domain's server and one agent; ended when dropped.
#[derive(Debug)]
pub struct Spire {
    // The agent ends first.
    agent: Option<Process>,
    _server: Process,
    directory: PathBuf,
}

impl Spire {
    /// Starts both, with the registration entries of the examples, each good for `ttl`.
    ///
    /// # Errors
    /// When one does not start in time.
    pub fn start(directory: &Path, ttl: Duration) -> Result<Self> {
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (server_socket, server_data, agent_data) = (at("server.sock"), at("server"), at("agent"));
        fs::create_dir_all(&server_data)?;
        fs::create_dir_all(&agent_data)?;
        let port = free_port()?.to_string();

        let server_conf = text_example(
            "spire/server.conf",
            &[
                (LOG_LEVEL, SERVER_INTERVAL),
                ("0.0.0.0", "127.0.0.1"),
                ("8081", &port),
                ("/run/spire/server/api.sock", &server_socket),
                ("/var/lib/spire/server", &server_data),
            ],
        )?;
        fs::write(directory.join("server.conf"), server_conf)?;
        let agent_conf = text_example(
            "spire/agent.conf",
            &[
                (AGENT_LOG_LEVEL, AGENT_INTERVAL),
                ("spire-server.${TRUST_DOMAIN}", "127.0.0.1"),
                ("8081", &port),
                (AGENT_SOCKET, &at("agent.sock")),
                ("/var/lib/spire/agent", &agent_data),
                (DOCKER_ATTESTOR, ""),
            ],
        )?;
        fs::write(directory.join("agent.conf"), agent_conf)?;
        let ttl = format!("\"x509_svid_ttl\": {}", ttl.as_secs());
        let entries = text_example("spire/entries.json", &[(WORKLOADS, &at("workloads")), (TTL, &ttl)])?;
        fs::write(directory.join("entries.json"), entries)?;

        let mut command = Command::new(tools::path(tools::SPIRE_SERVER)?);
        command.args(["run", "-config"]).arg(directory.join("server.conf"));
        let mut server = Process::start(&mut command, directory, "spire-server")?;
        let bundle = wait::until("the SPIRE server answers", START_LIMIT, || {
            server.check_running()?;
            Ok(server_command(directory, &["bundle", "show"]).ok())
        })?;
        fs::write(directory.join("agent/bootstrap.crt"), bundle)?;
        // Before the agent, which then finds them in one of its first rounds.
        server_command(directory, &["entry", "create", "-data", &at("entries.json")])?;
        let mut spire = Self { agent: None, _server: server, directory: directory.to_owned() };
        let token = server_command(directory, &["token", "generate", "-spiffeID", AGENT_ID])?;
        let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).context("no join token")?;
        fs::write(directory.join("agent/join-token"), token.trim())?;
        spire.run_agent()?;
        Ok(spire)
    }

    fn run_agent(&mut self) -> Result<()> {
        let socket = self.socket();
        // A killed agent leaves its socket behind.
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let mut command = Command::new(tools::path(tools::SPIRE_AGENT)?);
        command.args(["run", "-expandEnv", "-config"]).arg(self.directory.join("agent.conf"));
        command.env("TRUST_DOMAIN", TRUST_DOMAIN);
        let mut agent = Process::start(&mut command, &self.directory, "spire-agent")?;
        wait::until("the SPIRE agent serves", START_LIMIT, || {
            agent.check_running()?;
            Ok(socket.exists().then_some(()))
        })?;
        self.agent = Some(agent);
        Ok(())
    }

    /// The agent's socket, for SDS and the Workload API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// Makes `program` the workload `name` of the examples: SPIRE tells workloads by the path of their program.
    ///
    /// # Errors
    /// When it cannot be linked or copied.
    pub fn workload(&self, name: &str, program: &Path) -> Result<PathBuf> {
        let directory = self.directory.join("workloads").join(name);
        fs::create_dir_all(&directory)?;
        let place = directory.join("envoy");
        if !place.exists() {
            // Another file system takes no link.
            fs::hard_link(program, &place).or_else(|_| fs::copy(program, &place).map(|_| ()))?;
        }
        Ok(place)
    }

    /// Kills the agent, as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.kill()
    }

    /// Starts the agent again; it comes back by the keys on its disk.
    ///
    /// # Errors
    /// When it does not start in time.
    pub fn restart_agent(&mut self) -> Result<()> {
        self.run_agent()
    }
}

/// Runs a command of spire-server on the server of `directory`.
fn server_command(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tools::path(tools::SPIRE_SERVER)?)
        .args(arguments)
        .arg("-socketPath")
        .arg(directory.join("server.sock"))
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "spire-server {}: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port that was free just now. SPIRE cannot choose one by itself.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
