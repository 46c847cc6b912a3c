//! SPIRE: servers with bundle endpoints, and agents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use spiffe_authz_integration::port;
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::{tools, wait};

use crate::kubectl::finish;

const START_LIMIT: Duration = Duration::from_secs(60);

/// The SPIRE server of a trust domain. Dropping it ends the process.
#[derive(Debug)]
pub struct Server {
    /// The trust domain.
    pub trust_domain: &'static str,
    process: Process,
    directory: PathBuf,
    port: u16,
    bundle_port: u16,
}

impl Server {
    /// Starts a server that attests agents with join tokens and with `attestor`, a block of its configuration.
    ///
    /// # Errors
    /// Returns an error if the server is not ready in time.
    pub fn start(directory: &Path, trust_domain: &'static str, attestor: &str) -> Result<Self> {
        let data = directory.join("server");
        fs::create_dir_all(&data)?;
        let (port, bundle_port) = (port::free()?, port::free()?);
        let configuration = format!(
            r#"server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{socket}"
  trust_domain = "{trust_domain}"
  data_dir = "{data}"
  log_level = "INFO"
  federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {bundle_port}
      refresh_hint = "10s"
      profile "https_spiffe" {{}}
    }}
  }}
  # SPIRE's own five seconds would make every new entry wait.
  experimental {{ cache_reload_interval = "500ms" }}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3", connection_string = "{data}/data.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  {attestor}
}}
"#,
            socket = directory.join("server.sock").display(),
            data = data.display(),
        );
        fs::write(directory.join("server.conf"), configuration)?;
        let mut command = Command::new(tools::path(tools::SPIRE_SERVER)?);
        command.args(["run", "-config"]).arg(directory.join("server.conf"));
        let process = Process::start(&mut command, directory, "spire-server")?;
        let mut server = Self { trust_domain, process, directory: directory.to_owned(), port, bundle_port };
        let bundle = wait::until("the SPIRE server answers", START_LIMIT, || {
            server.process.check_running()?;
            Ok(server.command(&["bundle", "show"]).ok())
        })?;
        fs::write(directory.join("bootstrap.crt"), bundle)?;
        Ok(server)
    }

    /// The socket of the server's API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("server.sock")
    }

    /// The URL of the bundle endpoint.
    #[must_use]
    pub fn bundle_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.bundle_port)
    }

    /// Runs `spire-server ARGUMENTS…` on this server and returns its output.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::path(tools::SPIRE_SERVER)?);
        finish(command.args(arguments).arg("-socketPath").arg(self.socket()))
    }

    /// Returns the bundle in SPIFFE format.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn bundle(&self) -> Result<String> {
        self.command(&["bundle", "show", "-format", "spiffe"])
    }

    /// Adds the bundle of another server and fetches its updates, like a ClusterFederatedTrustDomain.
    ///
    /// # Errors
    /// Returns an error if a command fails.
    pub fn federate_with(&self, other: &Self) -> Result<()> {
        let file = self.directory.join(format!("{}.bundle", other.trust_domain));
        fs::write(&file, other.bundle()?)?;
        self.command(&[
            "federation",
            "create",
            "-trustDomain",
            other.trust_domain,
            "-bundleEndpointProfile",
            "https_spiffe",
            "-bundleEndpointURL",
            &other.bundle_url(),
            "-endpointSpiffeID",
            &format!("spiffe://{}/spire/server", other.trust_domain),
            "-trustDomainBundleFormat",
            "spiffe",
            "-trustDomainBundlePath",
            &file.to_string_lossy(),
        ])?;
        Ok(())
    }

    /// Returns the registration entries.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn entries(&self) -> Result<Vec<Value>> {
        self.list(&["entry", "show"], "entries")
    }

    /// Returns the federation relationships.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn relationships(&self) -> Result<Vec<Value>> {
        self.list(&["federation", "list"], "federation_relationships")
    }

    /// Returns the federated bundles.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn federated_bundles(&self) -> Result<Vec<Value>> {
        self.list(&["bundle", "list"], "bundles")
    }

    fn list(&self, command: &[&str], field: &str) -> Result<Vec<Value>> {
        let answer = self.command(&[command, &["-output", "json"]].concat())?;
        let Value::Array(items) = serde_json::from_str::<Value>(&answer)?[field].take() else {
            bail!("the response of the SPIRE server has no `{field}`: {answer}")
        };
        Ok(items)
    }

    /// Starts an agent that uses `attestor`, a block of its configuration. The agent identifies workloads by the path
    /// of their program, and serves every bundle as `ROOTCA`, which federation requires.
    ///
    /// # Errors
    /// Returns an error if the agent is not ready in time.
    pub fn agent(&self, attestor: &str, arguments: &[&str]) -> Result<Agent> {
        let data = self.directory.join("agent");
        fs::create_dir_all(&data)?;
        let socket = self.directory.join("agent.sock");
        let configuration = format!(
            r#"agent {{
  data_dir = "{data}"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{socket}"
  trust_domain = "{trust_domain}"
  trust_bundle_path = "{bootstrap}"
  log_level = "INFO"
  sds {{
    default_svid_name = "default"
    default_bundle_name = "null"
    default_all_bundles_name = "ROOTCA"
  }}
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  {attestor}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"#,
            data = data.display(),
            port = self.port,
            socket = socket.display(),
            trust_domain = self.trust_domain,
            bootstrap = self.directory.join("bootstrap.crt").display(),
        );
        fs::write(self.directory.join("agent.conf"), configuration)?;
        let mut command = Command::new(tools::path(tools::SPIRE_AGENT)?);
        command.args(["run", "-config"]).arg(self.directory.join("agent.conf")).args(arguments);
        let mut process = Process::start(&mut command, &self.directory, "spire-agent")?;
        wait::until("the SPIRE agent serves", START_LIMIT, || {
            process.check_running()?;
            Ok(socket.exists().then_some(()))
        })
        .with_context(|| process.tail())?;
        Ok(Agent { _process: process, socket, directory: self.directory.clone() })
    }

    /// Creates a join token for an agent, which gets the SPIFFE ID `parent`.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn join_token(&self, parent: &str) -> Result<String> {
        let answer = self.command(&["token", "generate", "-spiffeID", parent])?;
        let token = answer.lines().find_map(|line| line.strip_prefix("Token: ")).context("no join token")?;
        Ok(token.trim().to_owned())
    }
}

/// A SPIRE agent. Dropping it ends the process.
#[derive(Debug)]
pub struct Agent {
    _process: Process,
    /// The socket for SDS and the Workload API.
    pub socket: PathBuf,
    directory: PathBuf,
}

impl Agent {
    /// Links a program to a path of its own, so that SPIRE identifies it as a separate workload.
    ///
    /// # Errors
    /// Returns an error if the program cannot be linked or copied.
    pub fn workload(&self, name: &str, program: &Path) -> Result<PathBuf> {
        let directory = self.directory.join("workloads").join(name);
        fs::create_dir_all(&directory)?;
        let place = directory.join(program.file_name().context("a program without name")?);
        // Hard links do not cross file systems.
        fs::hard_link(program, &place).or_else(|_| fs::copy(program, &place).map(|_| ()))?;
        Ok(place)
    }
}
