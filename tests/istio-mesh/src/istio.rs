//! Istio, installed with istioctl as in the guide. istiod runs as a process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::port;
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::supervised::Supervised;
use spiffe_authz_integration::wait;

use crate::kubectl::Kubectl;
use crate::tools;

const START_LIMIT: Duration = Duration::from_secs(90);

/// The namespace of istiod.
pub const NAMESPACE: &str = "istio-system";

/// istiod. If it crashes, it starts again, as its pod does. Dropping it ends it.
#[derive(Debug)]
pub struct Istiod {
    process: Supervised,
    /// The port of the page that says whether istiod is ready.
    http: u16,
    /// The port of the discovery service (xDS).
    pub xds: u16,
}

/// The address of istiod's webhooks.
#[derive(Debug, Clone, Copy)]
pub struct Webhooks {
    port: u16,
}

impl Webhooks {
    /// Reserves a free port.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn new() -> Result<Self> {
        Ok(Self { port: port::free()? })
    }

    /// Returns the settings of an installation whose istiod is not a pod and whose proxies are upstream Envoys. The API
    /// server calls the webhooks by address instead of by service. Istiod sends no filters that only Istio's build of
    /// Envoy has.
    #[must_use]
    pub fn settings(&self) -> [String; 3] {
        let port = self.port;
        [
            format!("values.istiodRemote.injectionURL=https://localhost:{port}/inject"),
            format!("values.base.validationURL=https://localhost:{port}/validate"),
            "values.telemetry.enabled=false".to_owned(),
        ]
    }
}

impl Istiod {
    /// Starts istiod at the address of its webhooks, in a cluster with Istio installed.
    ///
    /// # Errors
    /// Returns an error if it does not start in time.
    pub fn start(kubectl: &Kubectl, webhooks: &Webhooks, directory: &Path) -> Result<Self> {
        let ports = [webhooks.port, port::free()?, port::free()?, port::free()?, port::free()?];
        let [_, xds, http, ..] = ports;
        let (kubeconfig, directory) = (kubectl.kubeconfig().to_owned(), directory.to_owned());
        let start = move |name: &str| Process::start(&mut command(&kubeconfig, ports, &directory)?, &directory, name);
        let mut process = start("istiod")?;
        wait_until_ready(http, || process.check_running()).with_context(|| process.tail())?;
        wait_for_webhooks(kubectl)?;
        let again = move |number| start(&format!("istiod-{number}"));
        Ok(Self { process: Supervised::new("istiod", process, again)?, http, xds })
    }

    /// Starts istiod again, and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if it does not start in time.
    pub fn restart(&self) -> Result<()> {
        self.process.restart()?;
        wait_until_ready(self.http, || Ok(()))
    }
}

fn wait_until_ready(http: u16, mut check_running: impl FnMut() -> Result<()>) -> Result<()> {
    wait::until("istiod is ready", START_LIMIT, || {
        check_running()?;
        let ready = Client::plain(([127, 0, 0, 1], http).into()).and_then(|mut client| client.get("/ready"));
        Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
    })
}

/// Returns the command of an istiod with these ports: webhooks, xDS, HTTP, xDS over TLS, and metrics.
fn command(kubeconfig: &Path, ports: [u16; 5], directory: &Path) -> Result<Command> {
    let mut command = Command::new(tools::path(tools::ISTIO, "pilot-discovery")?);
    // In this directory there are no files with the names of the ConfigMaps, so istiod reads those of the cluster.
    command.current_dir(directory).arg("discovery").arg("--kubeconfig").arg(kubeconfig);
    let flags = ["--httpsAddr", "--grpcAddr", "--httpAddr", "--secureGRPCAddr", "--monitoringAddr"];
    for (flag, port) in flags.into_iter().zip(ports) {
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
    }
    command.env("POD_NAME", "istiod").env("POD_NAMESPACE", NAMESPACE).env("REVISION", "default");
    command.env("ISTIOD_CUSTOM_HOST", "localhost").env("CLUSTER_ID", "Kubernetes");
    command.env("INJECTION_WEBHOOK_CONFIG_NAME", "istio-sidecar-injector");
    command.env("VALIDATION_WEBHOOK_CONFIG_NAME", "istio-validator-istio-system");
    command.env("PILOT_ENABLE_METADATA_EXCHANGE", "false").env("PILOT_ENABLE_ALPN_FILTER", "false");
    Ok(command)
}

/// Waits until istiod has written its authority to the configuration of the webhooks. Before that, the API server
/// cannot call them.
fn wait_for_webhooks(kubectl: &Kubectl) -> Result<()> {
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        wait::until("istiod has signed its webhooks", START_LIMIT, || {
            let all = kubectl.list(&[kind])?;
            let mut webhooks = all.iter().flat_map(|one| one["webhooks"].as_array().into_iter().flatten());
            Ok(webhooks.all(|webhook| webhook["clientConfig"]["caBundle"].is_string()).then_some(()))
        })?;
    }
    Ok(())
}
