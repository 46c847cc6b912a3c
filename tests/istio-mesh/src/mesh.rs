//! The mesh of the guide: the steps of examples/istio, applied to the environment, and the Envoys of its workloads.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::http::{Client, Response};
use spiffe_authz_integration::port;
use spiffe_authz_integration::upstream::Upstream;
use spiffe_authz_integration::wait;

use crate::environment::{Environment, FEDERATED, LOCAL, THIRD, Target, wait_for_secrets};
use crate::istio::{Istiod, Webhooks};
use crate::proxy::{Proxy, proxy_settings};
use crate::shell::Shell;
use crate::spire::{Agent, Server};

/// The host of the gateway in the guide.
const HOST: &str = "httpbin.example.org";
/// The service of the guide's server.
const SERVICE: &str = "httpbin";
/// The address of the server's pod.
const SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The address of the client's pod. It differs, because Istio takes everything at one address for one workload.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The command of the guide that reverts its steps.
pub const CLEAN_UP: &str = "8-clean-up/clean-up.sh --yes all";

const LISTEN_LIMIT: Duration = Duration::from_secs(30);
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(120);

/// A running mesh. Dropping it ends its processes.
#[derive(Debug)]
pub struct Mesh {
    // Fields are dropped in this order.
    callers: Vec<Caller>,
    /// The Envoy of httpbin.
    pub sidecar: Envoy,
    /// The address of its listener.
    pub sidecar_address: SocketAddr,
    /// The ingress gateway.
    pub gateway: Envoy,
    /// The workload httpbin.
    pub upstream: Upstream,
    istiod: Mutex<Option<Istiod>>,
    /// The shell for the commands of the guide.
    pub shell: Shell,
    _third: Server,
    /// SPIRE and the cluster.
    pub environment: Environment,
    processes: String,
}

/// A workload that sends requests.
#[derive(Debug)]
struct Caller {
    name: &'static str,
    via: Via,
    host: &'static str,
    _envoy: Envoy,
    address: SocketAddr,
}

/// The proxies between a caller and httpbin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The sidecar of httpbin. The caller has an Envoy outside the mesh.
    Sidecar,
    /// The sidecars of both.
    Sidecars,
    /// The ingress gateway.
    Gateway,
}

/// The ports of the Envoys on 127.0.0.1. The sidecar of the client accepts requests to the service at `service`.
#[derive(Debug)]
struct Ports {
    sidecar: u16,
    gateway: u16,
    service: u16,
}

/// The callers: name, trust domain, namespace and service account.
const CALLERS: [(&str, &str, &str, &str); 4] = [
    ("sleep", LOCAL, "default", "sleep"),
    ("report", LOCAL, "prod", "report"),
    ("partner-sleep", FEDERATED, "default", "sleep"),
    ("partner-report", FEDERATED, "prod", "report"),
];

impl Mesh {
    /// Starts the environment and follows the guide. If `shown`, the steps are printed.
    ///
    /// # Errors
    /// Returns an error if a step fails.
    pub fn start(directory: &Path, shown: bool) -> Result<Self> {
        let environment = Environment::start(directory)?;
        let webhooks = Webhooks::new()?;
        let shell = Shell::new(&environment, &webhooks, shown)?;
        let third = Server::start(&directory.join(THIRD), THIRD, "")?;

        shell.step("2. Registration: who gets which identity");
        shell.run("kubectl apply -k 2-registration")?;

        shell.step("3. Istio, with the agent's socket in its proxies");
        shell.run("3-istio/install.sh")?;
        let istiod = Istiod::start(environment.kubectl(), &webhooks, directory)?;
        shell.run("kubectl apply -f 3-istio/access-log.yaml")?;

        shell.step("4. A client, a server, a gateway");
        let ports = Ports { sidecar: port::free()?, gateway: port::free()?, service: port::free()? };
        let server = format!("- bind: 127.0.0.1\n    port:\n      number: {}", ports.gateway);
        shell.substitute("4-workloads/gateway.yaml", "- port:\n      number: 443", &server)?;
        let service = ports.service.to_string();
        shell.substitute("4-workloads/gateway.yaml", "number: 8000", &format!("number: {service}"))?;
        shell.substitute("4-workloads/httpbin.yaml", "port: 8000", &format!("port: {service}"))?;
        shell.run("kubectl apply -k 4-workloads")?;
        for deployment in ["sleep", "httpbin"] {
            shell.run(&format!("kubectl rollout status deployment/{deployment} -n default --timeout 60s"))?;
        }

        shell.step("5. The filter and its policies");
        shell.run("5-authorization/render.sh \"file://$WASM\" \"sha256:$(sha256sum \"$WASM\" | cut -c 1-64)\"")?;
        shell.run("kubectl apply -k 5-authorization/wasmplugin")?;
        shell.run("kubectl apply -f 5-authorization/connections.yaml")?;

        shell.step("6. Two more trust domains");
        federate(&shell, directory, &[&environment.federated, &third])?;

        let upstream = Upstream::start()?;
        let processes = adapted(include_str!("../manifests/processes.yaml"), &ports, upstream.port());
        environment.kubectl().apply(&processes)?;
        let settings = proxy_settings(environment.kubectl())?;
        let stat_tags: Vec<String> =
            serde_json::from_value(settings["extraStatTags"].clone()).context("no `extraStatTags`")?;
        let start = |kind, service_account, namespace, label: (&str, &str), address| {
            let program = environment.workload(&format!("{}-{kind}", label.1), namespace, service_account)?;
            let labels = &json!({label.0: label.1});
            let stat_tags = &stat_tags;
            let proxy = Proxy { kind, pod: label.1, address, namespace, service_account, labels, stat_tags };
            let envoy = proxy.start(program, istiod.xds, &environment.agent.socket, directory)?;
            wait_for_secrets(&envoy)?;
            Ok::<_, anyhow::Error>(envoy)
        };
        let sidecar = start("sidecar", "httpbin", "default", ("app", "httpbin"), SERVER)?;
        let account = "istio-ingressgateway-service-account";
        let gateway = start("router", account, "istio-system", ("istio", "ingressgateway"), SERVER)?;
        let client = start("sidecar", "sleep", "default", ("app", "sleep"), CLIENT)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.service));
        wait::until("the sidecar of sleep listens", LISTEN_LIMIT, || Ok(TcpStream::connect(address).ok()))?;
        let mut callers = vec![Caller { name: "sleep", via: Via::Sidecars, host: SERVICE, _envoy: client, address }];
        for (name, trust_domain, namespace, service_account) in CALLERS {
            let (program, agent): (PathBuf, &Agent) = if trust_domain == LOCAL {
                (environment.workload(name, namespace, service_account)?, &environment.agent)
            } else {
                (environment.federated_workload(name, namespace, service_account)?, &environment.federated_agent)
            };
            for (via, port, account) in
                [(Via::Sidecar, ports.sidecar, "/ns/default/sa/httpbin"), (Via::Gateway, ports.gateway, GATEWAY_ID)]
            {
                let target = Target { port, id: account, server_name: HOST };
                let envoy = environment.caller(&format!("{name}-{via:?}"), program.clone(), agent, &target)?;
                let address = envoy.address()?;
                callers.push(Caller { name, via, host: HOST, _envoy: envoy, address });
            }
        }
        let istiod = Mutex::new(Some(istiod));
        let sidecar_address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.sidecar));
        Ok(Self {
            callers,
            sidecar,
            sidecar_address,
            gateway,
            upstream,
            istiod,
            shell,
            _third: third,
            environment,
            processes,
        })
    }

    /// Connects to the Envoy of a caller.
    ///
    /// # Errors
    /// Returns an error if this caller does not exist.
    pub fn connect(&self, name: &str, via: Via) -> Result<Connection> {
        let caller = self.callers.iter().find(|caller| caller.name == name && caller.via == via);
        let caller = caller.with_context(|| format!("no caller {name} connects via {via:?}"))?;
        Ok(Connection { client: Client::plain(caller.address)?, host: caller.host })
    }

    /// Returns each caller's name with its proxies, the host that it requests, and the address of its Envoy.
    pub fn callers(&self) -> impl Iterator<Item = (String, &'static str, SocketAddr)> {
        self.callers.iter().map(|caller| {
            (format!("{}, via {:?}", caller.name, caller.via).to_lowercase(), caller.host, caller.address)
        })
    }

    /// Reverts every step with the guide's script. Then the SPIRE server must be empty. The API server deletes
    /// dependent objects in the background, and must be empty soon.
    ///
    /// # Errors
    /// Returns an error if an object or entry is left.
    pub fn clean_up(&self) -> Result<()> {
        let kubectl = self.environment.kubectl();
        // The resources of the processes are not part of the guide.
        kubectl.with_input(&["delete", "-f", "-"], &self.processes)?;
        kubectl.run(&["delete", "clusterstaticentries", "--all"])?;
        wait::until("the processes have no entries", CLEAN_UP_LIMIT, || {
            let of_a_process = |entry: &Value| entry["selectors"].to_string().contains("unix");
            Ok((!self.environment.local.entries()?.iter().any(of_a_process)).then_some(()))
        })?;
        thread::scope(|scope| -> Result<()> {
            let script = scope.spawn(|| self.shell.run(CLEAN_UP));
            // In a cluster, istiod ends with its pod.
            wait::until("Istio is uninstalled", CLEAN_UP_LIMIT, || {
                let left = kubectl.list(&["deployments", "-n", "istio-system"])?;
                Ok((left.is_empty() || script.is_finished()).then_some(()))
            })?;
            drop(self.istiod.lock().map_err(|_| anyhow::anyhow!("istiod is lost"))?.take());
            script.join().map_err(|_| anyhow::anyhow!("the script panicked"))?.map(|_| ())
        })?;
        let left = self.environment.spire_objects()?;
        ensure!(left.is_empty(), "the SPIRE server still has: {left:#?}");
        wait::until("nothing is left in the API server", CLEAN_UP_LIMIT, || {
            Ok(self.environment.new_objects()?.is_empty().then_some(()))
        })
        .with_context(|| format!("left: {:?}", self.environment.new_objects()))
    }

    /// Starts istiod again, and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if it does not start in time.
    pub fn restart_istiod(&self) -> Result<()> {
        let istiod = self.istiod.lock().map_err(|_| anyhow::anyhow!("istiod is lost"))?;
        istiod.as_ref().context("istiod has ended")?.restart()
    }

    /// Returns the status of a request.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn status(&self, name: &str, via: Via, method: &str, path: &str) -> Result<u16> {
        Ok(self.connect(name, via)?.send(method, path)?.status)
    }
}

const GATEWAY_ID: &str = "/ns/istio-system/sa/istio-ingressgateway-service-account";

/// A connection of a caller.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    host: &'static str,
}

impl Connection {
    /// Sends a request without a body.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    pub fn send(&mut self, method: &str, path: &str) -> Result<Response> {
        self.client.raw(format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host).as_bytes())
    }
}

/// Creates the trust domains of the guide with the endpoints of these servers, and the entries that federate with them.
fn federate(shell: &Shell, directory: &Path, others: &[&Server]) -> Result<()> {
    let file = "6-federation/trust-domains.yaml";
    for other in others {
        shell.substitute(file, &format!("https://spire.{}:8443", other.trust_domain), &other.bundle_url())?;
    }
    shell.run(&format!("kubectl apply -f {file}"))?;
    for other in others {
        let bundle = directory.join(format!("{}.json", other.trust_domain));
        std::fs::write(&bundle, other.bundle()?)?;
        let name = other.trust_domain.replace('.', "-");
        shell.run(&format!("6-federation/bundle.sh {name} {}", bundle.display()))?;
    }
    shell.run("kubectl apply -k 6-federation")?;
    Ok(())
}

fn adapted(manifest: &str, ports: &Ports, workload: u16) -> String {
    let values = [("${SIDECAR}", ports.sidecar), ("${SERVICE}", ports.service), ("${WORKLOAD}", workload)];
    values.iter().fold(manifest.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()))
}
