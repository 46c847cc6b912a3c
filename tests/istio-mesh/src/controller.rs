//! The controller of this project, as a process with the rights of its service account.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::{port, tools as programs, wait};

use crate::kubectl::Kubectl;

const START_LIMIT: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "spiffe-authz-controller";
/// The namespace of the controller.
pub const NAMESPACE: &str = "spiffe-authz";

/// A replica of the controller. Dropping it ends the process without a chance to give its lease back.
#[derive(Debug)]
pub struct Controller {
    process: Process,
    address: SocketAddr,
}

impl Controller {
    /// Starts a replica, and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if it does not start in time.
    pub fn start(kubectl: &Kubectl, directory: &Path, replica: &str) -> Result<Self> {
        Self::start_with(kubectl, directory, replica, &[])
    }

    /// Starts a replica with the admission webhook on a port of this machine, and waits until it is ready. The certificate is
    /// that of the Secret.
    ///
    /// # Errors
    /// Returns an error if there is no Secret, or if the replica does not start in time.
    pub fn start_with_webhook(kubectl: &Kubectl, directory: &Path, replica: &str, port: u16) -> Result<Self> {
        let write = |name: &str| -> Result<String> {
            let template = format!("go-template={{{{index .data \"{name}\" | base64decode}}}}");
            let text = kubectl.run(&["get", "secret", "spiffe-authz-webhook", "-n", NAMESPACE, "-o", &template])?;
            let path = directory.join(format!("{replica}-{name}"));
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let arguments =
            ["--webhook", &address, "--webhook-certificate", &write("tls.crt")?, "--webhook-key", &write("tls.key")?];
        Self::start_with(kubectl, directory, replica, &arguments)
    }

    fn start_with(kubectl: &Kubectl, directory: &Path, replica: &str, arguments: &[&str]) -> Result<Self> {
        let kubeconfig = directory.join(format!("{replica}.kubeconfig"));
        fs::write(&kubeconfig, with_rights_of_account(kubectl)?.to_string())?;
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()?));
        let mut command = Command::new(programs::path(programs::COMMAND)?);
        command.env("KUBECONFIG", kubeconfig).args(["controller", "--namespace", NAMESPACE, "--replica", replica]);
        command.args(["--listen", &address.to_string()]).args(arguments);
        let mut process = Process::start(&mut command, directory, replica)?;
        wait::until("the controller is ready", START_LIMIT, || {
            process.check_running()?;
            let ready = Client::plain(address).and_then(|mut client| client.get("/readyz"));
            Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
        })
        .with_context(|| process.tail())?;
        Ok(Self { process, address })
    }

    /// Returns the value of a metric.
    ///
    /// # Errors
    /// Returns an error if the controller does not answer, or has no such metric.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = Client::plain(self.address)?.get("/metrics")?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("no {name} in:\n{text}"))?.parse().context("not a number")
    }

    /// Returns the resident memory now, and the most so far, in kB.
    ///
    /// # Errors
    /// Returns an error if the process has ended.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            line.trim().trim_end_matches(" kB").parse().context("not a number")
        };
        Ok((value("VmRSS:")?, value("VmHWM:")?))
    }

    /// Returns the log.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// Kills the replica, as a crash would.
    ///
    /// # Errors
    /// Returns an error if it cannot be killed.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }
}

/// Returns the kubeconfig of the cluster with a token of the controller's service account.
fn with_rights_of_account(kubectl: &Kubectl) -> Result<Value> {
    let token = kubectl.run(&["create", "token", ACCOUNT, "-n", NAMESPACE])?;
    let mut config: Value =
        serde_json::from_str(&kubectl.run(&["config", "view", "--raw", "--flatten", "-o", "json"])?)?;
    for user in config["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"token": token.trim()});
    }
    Ok(config)
}
