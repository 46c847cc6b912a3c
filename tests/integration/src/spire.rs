//! SPIRE servers and agents, from the files of examples/bootstrap.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::server::{Federated, Server, first_authority_key};
use crate::bootstrap::{AGENT_SOCKET, text_example};
use crate::process::Process;
use crate::{tools, wait};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Where the examples have the programs of the workloads.
const WORKLOADS: &str = "/opt/workloads";
/// Where SPIRE's own interval is shortened: five seconds, it would make a new entry wait for as long.
const LOG_LEVEL: &str = "log_level      = \"INFO\"\n";
const INTERVAL: &str = "experimental { sync_interval = \"1s\" }\n";
/// What would look for a Docker daemon where the tests themselves run in a container.
const DOCKER_ATTESTOR: &str = "  WorkloadAttestor \"docker\" {\n    plugin_data {}\n  }\n";
/// How long the identities of the examples live, in seconds.
const TTL: &str = "\"x509_svid_ttl\": 3600";

/// A trust domain: its server and one agent; ended when dropped.
#[derive(Debug)]
pub struct Spire {
    // The agent ends first.
    agent: Option<Process>,
    /// The server.
    pub server: Server,
}

impl Spire {
    /// Starts both for example.org, with the registration entries of the examples, each good for `ttl`.
    ///
    /// # Errors
    /// Returns an error if one does not start in time.
    pub fn start(directory: &Path, ttl: Duration) -> Result<Self> {
        let server = Server::start(directory, "example.org", None)?;
        Self::register(server, "spire/entries.json", ttl, &[])
    }

    /// Registers the entries of a file of the examples, each good for `ttl`, with more substitutions; then starts an agent.
    ///
    /// # Errors
    /// Returns an error if the server refuses an entry, or the agent does not start in time.
    pub fn register(server: Server, entries: &str, ttl: Duration, substitutions: &[(&str, &str)]) -> Result<Self> {
        let directory = server.directory().to_owned();
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (workloads, ttl) = (at("workloads"), format!("\"x509_svid_ttl\": {}", ttl.as_secs()));
        let substitutions = [&[(WORKLOADS, &*workloads), (TTL, &*ttl)], substitutions].concat();
        fs::write(directory.join("entries.json"), text_example(entries, &substitutions)?)?;
        // Before the agent, which then finds them in one of its first rounds.
        server.command(&["entry", "create", "-data", &at("entries.json")])?;

        fs::create_dir_all(directory.join("agent"))?;
        let agent_conf = text_example(
            "spire/agent.conf",
            &[
                (LOG_LEVEL, INTERVAL),
                ("spire-server.${TRUST_DOMAIN}", "127.0.0.1"),
                ("8081", &server.port().to_string()),
                (AGENT_SOCKET, &at("agent.sock")),
                ("/var/lib/spire/agent", &at("agent")),
                (DOCKER_ATTESTOR, ""),
            ],
        )?;
        fs::write(directory.join("agent.conf"), agent_conf)?;
        fs::write(directory.join("agent/bootstrap.crt"), server.authorities()?.concat())?;
        let agent_id = format!("spiffe://{}/agent", server.trust_domain());
        let token = server.command(&["token", "generate", "-spiffeID", &agent_id])?;
        let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).context("no join token")?;
        fs::write(directory.join("agent/join-token"), token)?;
        let mut spire = Self { agent: None, server };
        spire.restart_agent()?;
        Ok(spire)
    }

    /// The agent's socket, for SDS and the Workload API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.server.directory().join("agent.sock")
    }

    /// Makes `program` the workload `name` of the examples: SPIRE tells workloads by the path of their program.
    ///
    /// # Errors
    /// Returns an error if it cannot be linked or copied.
    pub fn workload(&self, name: &str, program: &Path) -> Result<PathBuf> {
        let directory = self.server.directory().join("workloads").join(name);
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
    /// Returns an error if it does not run.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.kill()
    }

    /// Starts the agent; after the first time it comes back by the keys on its disk.
    ///
    /// # Errors
    /// Returns an error if it does not start in time.
    pub fn restart_agent(&mut self) -> Result<()> {
        let socket = self.socket();
        // A killed agent leaves its socket behind.
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let directory = self.server.directory();
        let mut command = Command::new(tools::path(tools::SPIRE_AGENT)?);
        command.args(["run", "-expandEnv", "-config"]).arg(directory.join("agent.conf"));
        command.env("TRUST_DOMAIN", self.server.trust_domain());
        let mut agent = Process::start(&mut command, directory, "spire-agent")?;
        wait::until("the SPIRE agent serves", START_LIMIT, || {
            agent.check_running()?;
            Ok(socket.exists().then_some(()))
        })?;
        self.agent = Some(agent);
        Ok(())
    }
}
