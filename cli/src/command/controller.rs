//! `spiffe-authz controller`: deploys the AuthorizationPolicies of a cluster, and keeps them deployed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::check;
use crate::controller::server::Certificate;
use crate::controller::webhook::Webhook;
use crate::controller::{self, Settings};
use crate::exit::Ended;

/// Deploys the AuthorizationPolicies of a cluster, and keeps them deployed
///
/// Runs in the cluster, or with KUBECONFIG. Each PolicyDeployment object says what is written and for which proxies, with the
/// fields of `spiffe-authz render --values`. The trust domain, its aliases and the root namespace come from Istio's mesh
/// configuration, and the federated trust domains from the ClusterFederatedTrustDomains. One of several replicas acts.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status:
  0  the controller was stopped
  1  the controller could not run")]
pub(crate) struct Arguments {
    /// The namespace of Istio's mesh configuration
    #[arg(long, default_value = "istio-system", value_name = "NAMESPACE")]
    istio_namespace: String,
    /// The ConfigMap with Istio's mesh configuration
    #[arg(long, default_value = "istio", value_name = "NAME")]
    mesh_config: String,
    /// The namespace of the Lease by which the replicas choose the one that acts
    #[arg(long, default_value = "spiffe-authz", value_name = "NAMESPACE")]
    namespace: String,
    /// The name of this replica, which must differ from those of the others
    #[arg(long, default_value = "spiffe-authz-controller", value_name = "NAME")]
    replica: String,
    /// The address of `/healthz`, `/readyz` and `/metrics`
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The address of the admission webhook, `/validate`, which rejects AuthorizationPolicies with errors; it needs a certificate
    #[arg(long, value_name = "ADDRESS", requires = "webhook_certificate")]
    webhook: Option<SocketAddr>,
    /// The certificate chain of the webhook, in PEM; the file can be replaced at any time
    #[arg(long, value_name = "FILE", requires_all = ["webhook", "webhook_key"])]
    webhook_certificate: Option<PathBuf>,
    /// The key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "webhook_certificate")]
    webhook_key: Option<PathBuf>,
}

impl Arguments {
    fn webhook(&self) -> Option<Webhook> {
        let (chain, key) = (self.webhook_certificate.clone()?, self.webhook_key.clone()?);
        Some(Webhook { listen: self.webhook?, certificate: Certificate { chain, key }, review: check::review })
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let settings = Settings {
        istio_namespace: arguments.istio_namespace.clone(),
        mesh_config: arguments.mesh_config.clone(),
        namespace: arguments.namespace.clone(),
        replica: arguments.replica.clone(),
        listen: arguments.listen,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(controller::run(settings, arguments.webhook()))?;
    Ok(Ended::Well)
}
