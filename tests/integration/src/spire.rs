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

/// The directory of the workloads' programs in the examples.
const WORKLOADS: &str = "/opt/workloads";
/// The line of the example that `INTERVAL` replaces. SPIRE's default of five seconds would delay every new entry.
const LOG_LEVEL: &str = "log_level      = \"INFO\"\n";
const INTERVAL: &str = "experimental { sync_interval = \"1s\" }\n";
/// The block that is removed, because the plugin would look for a Docker daemon.
const DOCKER_ATTESTOR: &str = "  WorkloadAttestor \"docker\" {\n    plugin_data {}\n  }\n";
/// The lifetime of SVIDs in the examples.
const TTL: &str = "\"x509_svid_ttl\": 3600";

/// A trust domain: the server and one agent. Dropping it ends both.
#[derive(Debug)]
pub struct Spire {
    // The agent ends before the server.
    agent: Option<Process>,
    /// The server.
    pub server: Server,
}

impl Spire {
    /// Starts example.org with the registration entries of the examples. `ttl` is the lifetime of their SVIDs.
    ///
    /// # Errors
    /// Returns an error if the server or the agent is not ready in time.
    pub fn start(directory: &Path, ttl: Duration) -> Result<Self> {
        let server = Server::start(directory, "example.org", None)?;
        Self::register(server, "spire/entries.json", ttl, &[])
    }

    /// Registers the entries of an example's file, with this lifetime and more substitutions. Then starts an agent.
    ///
    /// # Errors
    /// Returns an error if the server rejects an entry, or the agent is not ready in time.
    pub fn register(server: Server, entries: &str, ttl: Duration, substitutions: &[(&str, &str)]) -> Result<Self> {
        let directory = server.directory().to_owned();
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (workloads, ttl) = (at("workloads"), format!("\"x509_svid_ttl\": {}", ttl.as_secs()));
        let substitutions = [&[(WORKLOADS, &*workloads), (TTL, &*ttl)], substitutions].concat();
        fs::write(directory.join("entries.json"), text_example(entries, &substitutions)?)?;
        // The entries exist before the agent starts, so its first synchronizations include them.
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

    /// Makes `program` the workload `name` of the examples. SPIRE identifies a workload by the path of its program.
    ///
    /// # Errors
    /// Returns an error if the program cannot be linked or copied.
    pub fn workload(&self, name: &str, program: &Path) -> Result<PathBuf> {
        let directory = self.server.directory().join("workloads").join(name);
        fs::create_dir_all(&directory)?;
        let place = directory.join("envoy");
        if !place.exists() {
            // Hard links do not cross file systems.
            fs::hard_link(program, &place).or_else(|_| fs::copy(program, &place).map(|_| ()))?;
        }
        Ok(place)
    }

    /// Kills the agent, as a crash would.
    ///
    /// # Errors
    /// Returns an error if the agent does not run.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.kill()
    }

    /// Starts the agent. After the first time, it attests with the keys on its disk.
    ///
    /// # Errors
    /// Returns an error if the agent is not ready in time.
    pub fn restart_agent(&mut self) -> Result<()> {
        let socket = self.socket();
        // A killed agent does not remove its socket.
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
