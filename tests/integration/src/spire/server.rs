//! A SPIRE server and its commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::START_LIMIT;
use crate::bootstrap::text_example;
use crate::process::Process;
use crate::{port, tools, wait};

/// The line of the example that `INTERVAL` replaces. SPIRE's default of five seconds would delay every new entry.
const LOG_LEVEL: &str = "log_level    = \"INFO\"\n";
const INTERVAL: &str = "experimental { cache_reload_interval = \"500ms\" }\n";

/// A SPIRE server. Dropping it ends the process.
#[derive(Debug)]
pub struct Server {
    process: Option<Process>,
    directory: PathBuf,
    trust_domain: String,
    port: u16,
    federated: Option<Federated>,
}

/// The bundle endpoints of a server that federates and of the other trust domain.
#[derive(Debug, Clone)]
pub struct Federated {
    /// The port of the server's own bundle endpoint.
    pub port: u16,
    /// The other trust domain.
    pub with: String,
    /// The port of the other trust domain's bundle endpoint.
    pub their_port: u16,
}

impl Server {
    /// Starts the server of a trust domain in this directory, and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if the server is not ready in time.
    pub fn start(directory: &Path, trust_domain: &str, federated: Option<Federated>) -> Result<Self> {
        let (port, data) = (port::free()?, directory.join("server"));
        fs::create_dir_all(&data)?;
        let configuration = configuration(directory, port, federated.as_ref())?;
        fs::write(directory.join("server.conf"), configuration)?;
        let (directory, trust_domain) = (directory.to_owned(), trust_domain.to_owned());
        let mut server = Self { process: None, directory, trust_domain, port, federated };
        server.restart()?;
        Ok(server)
    }

    /// Starts the server again with the data on its disk.
    ///
    /// # Errors
    /// Returns an error if the server is not ready in time.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = Command::new(tools::path(tools::SPIRE_SERVER)?);
        command.args(["run", "-expandEnv", "-config"]).arg(self.directory.join("server.conf"));
        command.env("TRUST_DOMAIN", &self.trust_domain);
        if let Some(federated) = &self.federated {
            command.env("FEDERATED_TRUST_DOMAIN", &federated.with);
        }
        let mut process = Process::start(&mut command, &self.directory, "spire-server")?;
        wait::until("the SPIRE server answers", START_LIMIT, || {
            process.check_running()?;
            Ok(self.command(&["bundle", "show"]).ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops the server, as in maintenance.
    ///
    /// # Errors
    /// Returns an error if the server does not run.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("the server does not run").map(drop)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The directory of this trust domain.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The port of the server's API.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command of spire-server on this server, and returns its output.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(tools::path(tools::SPIRE_SERVER)?)
            .args(arguments)
            .arg("-socketPath")
            .arg(self.directory.join("server.sock"))
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "spire-server {}: {error}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sets the bundle of another trust domain, as the first step of a federation.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn learn(&self, trust_domain: &str, format: &str, bundle: &str) -> Result<()> {
        let file = self.directory.join(format!("{trust_domain}.bundle"));
        fs::write(&file, bundle)?;
        let id = format!("spiffe://{trust_domain}");
        let path = file.to_string_lossy();
        self.command(&["bundle", "set", "-format", format, "-id", &id, "-path", &path]).map(|_| ())
    }

    /// Fetches the bundle of the federated trust domain immediately.
    ///
    /// # Errors
    /// Returns an error if the bundle endpoint does not respond with a bundle.
    pub fn refresh(&self) -> Result<()> {
        let with = &self.federated.as_ref().context("this server has no federated trust domain")?.with;
        self.command(&["federation", "refresh", "-id", with]).map(|_| ())
    }

    /// Returns the certificates of the server's authorities, in PEM.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn authorities(&self) -> Result<Vec<String>> {
        const END: &str = "-----END CERTIFICATE-----\n";
        Ok(self.command(&["bundle", "show"])?.split_inclusive(END).map(str::to_owned).collect())
    }

    /// Runs `localauthority x509 <action>`, with the ID of an authority if the action requires one. Returns the ID of
    /// the authority in the output.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn authority(&self, action: &str, id: Option<&str>) -> Result<String> {
        let mut arguments = vec!["localauthority", "x509", action, "-output", "json"];
        arguments.extend(id.iter().flat_map(|id| ["-authorityID", id]));
        let answer: Value = serde_json::from_str(&self.command(&arguments)?)?;
        let authorities = answer.as_object().context("no object")?;
        // `show` prints several authorities, the other actions one.
        let authority = authorities.get("active").or_else(|| authorities.values().next());
        let id = authority.and_then(|authority| authority["authority_id"].as_str());
        id.map(str::to_owned).context("the output has no authority")
    }

    /// Mints an X509-SVID for a workload of this trust domain. Returns the certificate and its key, in PEM.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn mint(&self, path: &str) -> Result<(String, String)> {
        let directory = self.directory.join("minted");
        fs::create_dir_all(&directory)?;
        let (id, place) = (format!("spiffe://{}{path}", self.trust_domain), directory.to_string_lossy());
        self.command(&["x509", "mint", "-spiffeID", &id, "-write", &place])?;
        Ok((fs::read_to_string(directory.join("svid.pem"))?, fs::read_to_string(directory.join("key.pem"))?))
    }

    /// Returns the private key of the first authority, in DER. Only an attacker on the server's machine would have it.
    ///
    /// # Errors
    /// Returns an error if the file of SPIRE's key manager `disk` does not contain it.
    pub fn stolen_key(&self) -> Result<Vec<u8>> {
        first_authority_key(&fs::read_to_string(self.directory.join("server/keys.json"))?)
    }
}

/// Returns the private key of the first authority, in DER, from the file of SPIRE's key manager `disk`.
///
/// # Errors
/// Returns an error if the file does not contain the key.
pub fn first_authority_key(file: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    let keys: Value = serde_json::from_str(file)?;
    let key = keys["keys"]["x509-CA-A"].as_str().context("no such key")?;
    Ok(base64::engine::general_purpose::STANDARD.decode(key)?)
}

/// Returns the server's file of the examples, adapted to the test environment.
fn configuration(directory: &Path, port: u16, federated: Option<&Federated>) -> Result<String> {
    let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let (port, socket, data) = (port.to_string(), at("server.sock"), at("server"));
    let mut substitutions = vec![
        (LOG_LEVEL, INTERVAL),
        ("0.0.0.0", "127.0.0.1"),
        ("8081", &port),
        ("/run/spire/server/api.sock", &socket),
        ("/var/lib/spire/server", &data),
    ];
    let Some(federated) = federated else { return text_example("spire/server.conf", &substitutions) };
    let own = format!("port    = {}", federated.port);
    let theirs = format!("https://127.0.0.1:{}", federated.their_port);
    substitutions
        .extend([("port    = 8443", &*own), ("https://spire-server.${FEDERATED_TRUST_DOMAIN}:8443", &*theirs)]);
    text_example("federation/spire/server.conf", &substitutions)
}
