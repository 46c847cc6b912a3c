//! A cluster whose SPIRE federates with a second trust domain, before the guide is applied.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Bootstrap;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::{tools as programs, wait};

use crate::control_plane::{ControlPlane, NODE};
use crate::controller_manager::{self, CLASS, CLUSTER};
use crate::kubectl::Kubectl;
use crate::spire::{Agent, Server};
use crate::tools;

/// The trust domain of the cluster.
pub const LOCAL: &str = "example.org";
/// The federated trust domain. It has a SPIRE server and an agent, and no cluster.
pub const FEDERATED: &str = "example.io";

/// Another federated trust domain. No caller belongs to it.
pub const THIRD: &str = "example.ai";

const FEDERATED_AGENT: &str = "spiffe://example.io/agent";
const LIMIT: Duration = Duration::from_secs(60);

/// Two trust domains and a cluster. Dropping it ends their processes.
#[derive(Debug)]
pub struct Environment {
    // Fields are dropped in this order.
    _controller_manager: Process,
    /// The agent on the cluster's node.
    pub agent: Agent,
    /// The agent of the federated trust domain.
    pub federated_agent: Agent,
    /// The SPIRE server of the cluster.
    pub local: Server,
    /// The SPIRE server of the federated trust domain.
    pub federated: Server,
    /// The SPIFFE ID of the agent on the node.
    pub agent_id: String,
    control_plane: ControlPlane,
    objects: BTreeSet<String>,
    directory: PathBuf,
}

impl Environment {
    /// Starts the cluster and both trust domains.
    ///
    /// # Errors
    /// Returns an error if a part does not start in time.
    pub fn start(directory: &Path) -> Result<Self> {
        let control_plane = ControlPlane::start(&directory.join("kubernetes"))?;
        let kubectl = &control_plane.kubectl;
        install_definitions(kubectl, tools::GATEWAY_API)?;
        let objects = objects(kubectl)?;
        install_definitions(kubectl, tools::CONTROLLER_MANAGER)?;
        kubectl.apply(include_str!("../manifests/spire.yaml"))?;
        let local = Server::start(&directory.join(LOCAL), LOCAL, &cluster_attestor(kubectl))?;
        let federated = Server::start(&directory.join(FEDERATED), FEDERATED, "")?;
        let (agent, agent_id) = node_agent(kubectl, &local, directory)?;
        let token = federated.join_token(FEDERATED_AGENT)?;
        let federated_agent =
            federated.agent(r#"NodeAttestor "join_token" { plugin_data {} }"#, &["-joinToken", &token])?;
        federated.federate_with(&local)?;
        let controller_manager = controller_manager::start(kubectl, &local, directory)?;
        Ok(Self {
            _controller_manager: controller_manager,
            agent,
            federated_agent,
            local,
            federated,
            agent_id,
            control_plane,
            objects,
            directory: directory.to_owned(),
        })
    }

    /// The processes of the cluster.
    #[must_use]
    pub const fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The client of the cluster.
    #[must_use]
    pub const fn kubectl(&self) -> &Kubectl {
        &self.control_plane.kubectl
    }

    /// Returns the objects in the API server that the bare cluster did not have.
    ///
    /// # Errors
    /// Returns an error if the API server does not respond.
    pub fn new_objects(&self) -> Result<Vec<String>> {
        Ok(objects(self.kubectl())?.difference(&self.objects).cloned().collect())
    }

    /// Returns the entries, federation relationships and federated bundles in the SPIRE server of the cluster.
    ///
    /// # Errors
    /// Returns an error if the server does not respond.
    pub fn spire_objects(&self) -> Result<Vec<Value>> {
        Ok([self.local.entries()?, self.local.relationships()?, self.local.federated_bundles()?].concat())
    }

    /// The directory of logs and files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes an Envoy a workload of the cluster's trust domain. The entry is a ClusterStaticEntry with the path of the
    /// program: without a kubelet, the agent cannot identify pods.
    ///
    /// # Errors
    /// Returns an error if the API server rejects the entry.
    pub fn workload(&self, name: &str, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let program = self.agent.workload(name, &programs::path(programs::ENVOY)?)?;
        let id = format!("spiffe://{LOCAL}/ns/{namespace}/sa/{service_account}");
        let entry = json!({
            "apiVersion": "spire.spiffe.io/v1alpha1",
            "kind": "ClusterStaticEntry",
            "metadata": {"name": format!("process-{name}")},
            "spec": {
                "className": CLASS,
                "spiffeID": id,
                "parentID": self.agent_id,
                "selectors": [format!("unix:path:{}", program.display())],
                "federatesWith": [FEDERATED, THIRD],
            },
        });
        self.kubectl().apply(&entry.to_string())?;
        Ok(program)
    }

    /// Makes an Envoy a workload of the federated trust domain.
    ///
    /// # Errors
    /// Returns an error if SPIRE rejects the entry.
    pub fn federated_workload(&self, name: &str, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let program = self.federated_agent.workload(name, &programs::path(programs::ENVOY)?)?;
        self.federated.command(&[
            "entry",
            "create",
            "-parentID",
            FEDERATED_AGENT,
            "-spiffeID",
            &format!("spiffe://{FEDERATED}/ns/{namespace}/sa/{service_account}"),
            "-selector",
            &format!("unix:path:{}", program.display()),
            "-federatesWith",
            &format!("spiffe://{LOCAL}"),
        ])?;
        Ok(program)
    }

    /// Starts the Envoy of a caller from the example of a client outside Istio, and waits for its identity.
    ///
    /// # Errors
    /// Returns an error if the Envoy is not ready, or has no identity, in time.
    pub fn caller(&self, name: &str, program: PathBuf, agent: &Agent, target: &Target<'_>) -> Result<Envoy> {
        const TLS: &str = "/static_resources/clusters/0/transport_socket/typed_config";
        const SERVER: &str = "spiffe://example.org/ns/default/sa/httpbin";
        let bootstrap = Bootstrap::client(target.port)?
            .agent(&agent.socket)?
            .text(SERVER, &format!("spiffe://{LOCAL}{}", target.id))?;
        let mut tls = bootstrap.at(TLS)?.clone();
        tls["sni"] = json!(target.server_name);
        let bootstrap = bootstrap.set(TLS, tls)?;
        let caller = Envoy::start(&Start { program, name, arguments: &[] }, &bootstrap, &self.directory)?;
        wait_for_secrets(&caller)?;
        Ok(caller)
    }
}

/// The upstream of a caller.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The path of the SPIFFE ID that the upstream must have.
    pub id: &'a str,
    /// The server name (SNI) to send.
    pub server_name: &'a str,
}

/// Waits until an Envoy has its certificate and the bundles.
///
/// # Errors
/// Returns an error if they do not arrive in time.
pub fn wait_for_secrets(envoy: &Envoy) -> Result<()> {
    wait::until("the Envoy has its identity", LIMIT, || {
        let secrets: Value =
            serde_json::from_slice(&envoy.admin("/config_dump?resource=dynamic_active_secrets")?.body)?;
        let names: Vec<&str> =
            secrets["configs"].as_array().into_iter().flatten().filter_map(|secret| secret["name"].as_str()).collect();
        Ok((names.contains(&"default") && names.contains(&"ROOTCA")).then_some(()))
    })
}

fn install_definitions(kubectl: &Kubectl, variable: &str) -> Result<()> {
    let directory = tools::path(variable, "crds")?;
    kubectl.run(&["apply", "--server-side", "-f", &directory.to_string_lossy()])?;
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
    Ok(())
}

/// Returns the objects of the cluster, without those that controllers create and delete all the time.
fn objects(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    const PASSING: [&str; 4] = ["events", "events.events.k8s.io", "leases.coordination.k8s.io", "endpoints"];
    let kinds = kubectl.run(&["api-resources", "--verbs=list", "--output=name"])?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !PASSING.contains(kind)).collect();
    let template = "{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
    let listed =
        kubectl.run(&["get", &kinds.join(","), "--all-namespaces", "--output", &format!("jsonpath={template}")])?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Returns the node attestor of the chart, which uses the token of the agent's pod.
fn cluster_attestor(kubectl: &Kubectl) -> String {
    format!(
        r#"NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "{CLUSTER}" = {{
    service_account_allow_list = ["spire-server:spire-agent"]
    audience = ["spire-server"]
    kube_config_file = "{}"
  }} }} }} }}"#,
        kubectl.kubeconfig().display()
    )
}

/// Starts the agent of the node, with a token that a kubelet would mount in its pod.
fn node_agent(kubectl: &Kubectl, server: &Server, directory: &Path) -> Result<(Agent, String)> {
    let pod = wait::until("the agent has its pod", LIMIT, || {
        let pods = kubectl.list(&["pods", "-n", "spire-server", "-l", "app.kubernetes.io/name=agent"])?;
        Ok(pods.into_iter().find(|pod| pod["status"]["phase"] == "Running"))
    })?;
    let text =
        |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).context("the agent's pod has no name or UID");
    let (name, uid) = (text("/metadata/name")?, text("/metadata/uid")?);
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", name, "--bound-object-uid", uid];
    let token = kubectl.run(
        &[["create", "token", "spire-agent", "-n", "spire-server", "--audience", "spire-server"].as_slice(), &bound]
            .concat(),
    )?;
    let file = directory.join("agent-token");
    std::fs::write(&file, token.trim())?;
    let node = kubectl.get(&["node", NODE])?;
    let node_uid = node["metadata"]["uid"].as_str().context("the node has no UID")?.to_owned();
    let attestor = format!(
        r#"NodeAttestor "k8s_psat" {{ plugin_data {{ cluster = "{CLUSTER}", token_path = "{}" }} }}"#,
        file.display()
    );
    let agent = server.agent(&attestor, &[])?;
    Ok((agent, format!("spiffe://{LOCAL}/spire/agent/k8s_psat/{CLUSTER}/{node_uid}")))
}
