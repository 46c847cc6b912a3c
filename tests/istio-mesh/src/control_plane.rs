//! Kubernetes as processes: etcd, API server, controllers and scheduler. KWOK simulates one node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::port;
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::wait;

use crate::kubectl::Kubectl;
use crate::tools;

const START_LIMIT: Duration = Duration::from_secs(90);

/// The node that KWOK simulates.
pub const NODE: &str = "node";

/// The controllers that the tests depend on. Those for nodes and volumes would query kubelets, and endpoints would
/// contain the addresses of pods, on which no process listens.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,\
     job-controller,namespace-controller,garbage-collector-controller,serviceaccount-controller,\
     root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,disruption-controller";

/// A cluster without containers. Dropping it ends its processes.
#[derive(Debug)]
pub struct ControlPlane {
    /// The client of the administrator.
    pub kubectl: Kubectl,
    // Fields are dropped in this order: the others use etcd.
    _kwok: Process,
    _scheduler: Process,
    _controllers: Process,
    api_server: Mutex<Option<Process>>,
    _etcd: Process,
    etcd_url: String,
    /// The port of the API server.
    port: u16,
    directory: PathBuf,
}

impl ControlPlane {
    /// Starts the cluster, and waits until the node is ready.
    ///
    /// # Errors
    /// Returns an error if a part does not start in time.
    pub fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let (etcd, etcd_url) = start_etcd(directory)?;
        let port = port::free()?;
        let (api_server, kubectl) = create_api_server(directory, &etcd_url, port)?;
        let controllers = start_controllers(directory)?;
        let scheduler = start_scheduler(directory)?;
        let kwok = start_kwok(directory)?;
        kubectl.apply(&format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {NODE}\n"))?;
        kubectl.run(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("node/{NODE}")])?;
        Ok(Self {
            kubectl,
            _kwok: kwok,
            _scheduler: scheduler,
            _controllers: controllers,
            api_server: Mutex::new(Some(api_server)),
            _etcd: etcd,
            etcd_url,
            port,
            directory: directory.to_owned(),
        })
    }

    /// Ends the API server. [`Self::start_api_server`] starts it again, with the same address and data.
    pub fn stop_api_server(&self) {
        drop(self.api_server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Starts the API server again, and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if it does not start in time.
    pub fn start_api_server(&self) -> Result<()> {
        let mut command = api_server(&self.directory, &self.etcd_url, self.port)?;
        let mut process = Process::start(&mut command, &self.directory, "kube-apiserver-restarted")?;
        wait_until_ready(&mut process, &self.kubectl)?;
        *self.api_server.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }
}

fn start_etcd(directory: &Path) -> Result<(Process, String)> {
    let (clients, peers) =
        (format!("http://127.0.0.1:{}", port::free()?), format!("http://127.0.0.1:{}", port::free()?));
    let mut command = Command::new(tools::path(tools::ETCD, "etcd")?);
    command.arg("--data-dir").arg(directory.join("etcd"));
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "warn"]);
    // The data does not have to survive a crash of the machine.
    command.arg("--unsafe-no-fsync");
    Ok((Process::start(&mut command, directory, "etcd")?, clients))
}

fn create_api_server(directory: &Path, etcd: &str, port: u16) -> Result<(Process, Kubectl)> {
    let at = |name: &str| directory.join(name);
    let key = rcgen::KeyPair::generate()?;
    fs::write(at("service-accounts.key"), key.serialize_pem())?;
    fs::write(at("service-accounts.pub"), key.public_key_pem())?;
    let token = format!("{:032x}", fastrand::u128(..));
    fs::write(at("tokens.csv"), format!("{token},admin,admin,system:masters\n"))?;
    let mut process = Process::start(&mut api_server(directory, etcd, port)?, directory, "kube-apiserver")?;
    let authority = wait::until("the API server has its certificate", START_LIMIT, || {
        process.check_running()?;
        Ok(fs::read_to_string(at("certificates/apiserver.crt")).ok().filter(|text| text.ends_with("-----\n")))
    })?;
    fs::write(at("apiserver.crt"), authority)?;
    fs::write(at("kubeconfig"), kubeconfig(port, &at("apiserver.crt"), &token))?;
    let kubectl = Kubectl::new(at("kubeconfig"))?;
    wait_until_ready(&mut process, &kubectl)?;
    Ok((process, kubectl))
}

fn wait_until_ready(process: &mut Process, kubectl: &Kubectl) -> Result<()> {
    wait::until("the API server is ready", START_LIMIT, || {
        process.check_running()?;
        Ok(kubectl.run(&["get", "--raw", "/readyz"]).ok().map(drop))
    })
    .with_context(|| process.tail())
}

/// Returns the command of an API server whose keys are in this directory.
fn api_server(directory: &Path, etcd: &str, port: u16) -> Result<Command> {
    let at = |name: &str| directory.join(name);
    let mut command = Command::new(tools::path(tools::KUBERNETES, "kube-apiserver")?);
    command.args(["--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", &port.to_string()]);
    command.arg("--cert-dir").arg(at("certificates"));
    command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
    command.arg("--service-account-key-file").arg(at("service-accounts.pub"));
    command.arg("--service-account-signing-key-file").arg(at("service-accounts.key"));
    command.arg("--token-auth-file").arg(at("tokens.csv"));
    command.args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16"]);
    // This plugin keeps pods from a new node until a controller has heard from its kubelet.
    command.args(["--disable-admission-plugins", "TaintNodesByCondition"]);
    // Some distributions turn this plugin on: a controller needs more rights for objects with an owner.
    command.args(["--enable-admission-plugins", "OwnerReferencesPermissionEnforcement"]);
    Ok(command)
}

fn kubeconfig(port: u16, authority: &Path, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: mesh\n\
         clusters:\n- name: mesh\n  cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {}}}\n\
         users:\n- name: admin\n  user: {{token: \"{token}\"}}\n\
         contexts:\n- name: mesh\n  context: {{cluster: mesh, user: admin}}\n",
        authority.display()
    )
}

fn start_controllers(directory: &Path) -> Result<Process> {
    let mut command = Command::new(tools::path(tools::KUBERNETES, "kube-controller-manager")?);
    command.arg("--kubeconfig").arg(directory.join("kubeconfig"));
    command.args(["--secure-port", "0", "--leader-elect=false", "--controllers", CONTROLLERS]);
    command.arg("--root-ca-file").arg(directory.join("apiserver.crt"));
    command.args(["--concurrent-gc-syncs", "5", "--namespace-sync-period", "1m"]);
    Process::start(&mut command, directory, "kube-controller-manager")
}

fn start_scheduler(directory: &Path) -> Result<Process> {
    let mut command = Command::new(tools::path(tools::KUBERNETES, "kube-scheduler")?);
    command.arg("--kubeconfig").arg(directory.join("kubeconfig"));
    command.args(["--secure-port", "0", "--leader-elect=false"]);
    Process::start(&mut command, directory, "kube-scheduler")
}

fn start_kwok(directory: &Path) -> Result<Process> {
    let mut command = Command::new(tools::path(tools::KWOK, "kwok")?);
    command.arg("--kubeconfig").arg(directory.join("kubeconfig")).arg("--manage-all-nodes=true");
    for stages in ["stages/pod", "stages/node"] {
        command.arg("--config").arg(tools::path(tools::KWOK, stages)?);
    }
    Process::start(&mut command, directory, "kwok")
}
