//! SPIRE's controller manager, which creates registration entries from resources of the cluster.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::port;
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::wait;

use crate::kubectl::Kubectl;
use crate::spire::Server;
use crate::tools;

const START_LIMIT: Duration = Duration::from_secs(60);

/// The name of the cluster in the IDs of its agents, as in the chart.
pub const CLUSTER: &str = "example-cluster";
/// The class of the resources that the controller manager handles, as in the chart.
pub const CLASS: &str = "spire-server-spire";

/// Starts the controller manager with the settings of the chart, and waits until it is ready.
///
/// # Errors
/// Returns an error if it is not ready in time.
pub fn start(kubectl: &Kubectl, server: &Server, directory: &Path) -> Result<Process> {
    let health = port::free()?;
    let configuration = format!(
        "apiVersion: spire.spiffe.io/v1alpha1\nkind: ControllerManagerConfig\n\
         clusterName: {CLUSTER}\nclusterDomain: cluster.local\ntrustDomain: {}\n\
         className: {CLASS}\nwatchClassless: false\nignoreNamespaces: [kube-system, kube-public, spire-server]\n\
         spireServerSocketPath: {}\nmetrics: {{bindAddress: \"0\"}}\n\
         health: {{healthProbeBindAddress: \"127.0.0.1:{health}\"}}\nleaderElection: {{leaderElect: false}}\n\
         validatingWebhookConfiguration: {{enabled: false}}\n",
        server.trust_domain,
        server.socket().display(),
    );
    let file = directory.join("controller-manager.yaml");
    fs::write(&file, configuration)?;
    let mut command = Command::new(tools::path(tools::CONTROLLER_MANAGER, "spire-controller-manager")?);
    command.arg("-config").arg(file).env("KUBECONFIG", kubectl.kubeconfig()).env("ENABLE_WEBHOOKS", "false");
    let mut process = Process::start(&mut command, directory, "spire-controller-manager")?;
    wait::until("the controller manager is ready", START_LIMIT, || {
        process.check_running()?;
        let ready = Client::plain(([127, 0, 0, 1], health).into()).and_then(|mut client| client.get("/readyz"));
        Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
    })
    .with_context(|| process.tail())?;
    Ok(process)
}
