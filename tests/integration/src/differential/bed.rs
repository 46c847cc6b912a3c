//! One Envoy with two listeners for each set of policies: one with the filter, one with Istio's RBAC filters.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use serde_json::{Value, json};

use super::PolicySet;
use super::policies::PORT;
use crate::authority::{Leaf, Shape, client_config};
use crate::bootstrap::{CONNECTION_MANAGER, TLS};
use crate::envoy::{Envoy, Start};
use crate::guarded::{Ground, Validation};
use crate::http::Client;
use crate::token::{TokenKey, metadata_filter};
use crate::tools;

const ISSUERS: [&str; 2] = ["https://issuer-a", "https://issuer-b"];
/// A set's listeners have one port at two addresses, so that policies can name it.
const OURS: [u8; 4] = [127, 0, 0, 1];
const ISTIO: [u8; 4] = [127, 0, 0, 3];

/// The identities that callers have, as SPIFFE IDs; the first has none.
const IDENTITIES: [&str; 7] = [
    "",
    "spiffe://example.org/ns/default/sa/sleep",
    "spiffe://example.org/ns/prod/sa/curl",
    "spiffe://example.org/ns/default/sa/curl",
    "spiffe://example.io/ns/default/sa/sleep",
    "spiffe://example.io/ns/prod/sa/curl",
    "spiffe://example.org/workload",
];
const SOURCES: [[u8; 4]; 2] = [[127, 0, 0, 1], [127, 0, 0, 2]];
const SERVER_NAMES: [Option<&str>; 2] = [None, Some("s.example")];

/// Who connects, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    identity: usize,
    source: usize,
    server_name: usize,
}

impl Caller {
    pub(super) fn random(rng: &mut Rng) -> Self {
        Self {
            identity: rng.usize(..IDENTITIES.len()),
            source: rng.usize(..SOURCES.len()),
            server_name: rng.usize(..SERVER_NAMES.len()),
        }
    }

    fn id(&self) -> &'static str {
        IDENTITIES[self.identity]
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.id().starts_with("spiffe://example.io/")
    }

    pub(super) fn is_misshapen(&self) -> bool {
        !self.id().is_empty() && !self.id().contains("/ns/")
    }

    pub(super) fn describe(&self) -> String {
        let id = if self.id().is_empty() { "no certificate" } else { self.id() };
        let source = IpAddr::from(SOURCES[self.source]);
        format!("{id}, from {source}, server name {}", SERVER_NAMES[self.server_name].unwrap_or("none"))
    }
}

pub(super) struct Bed {
    envoy: Envoy,
    leaves: Vec<Option<Leaf>>,
    ports: Vec<u16>,
    /// Tokens that requests show.
    pub(super) tokens: Vec<String>,
    _ground: Ground,
}

/// A connection to each of a set's listeners.
pub(super) struct Pair {
    ours: Client,
    istio: Client,
}

impl Pair {
    /// Whether the filter lets the request in, and whether Istio does.
    pub(super) fn decide(&mut self, bytes: &[u8]) -> Result<(bool, bool)> {
        let mut verdicts = [&mut self.ours, &mut self.istio].map(|client| -> Result<bool> {
            let response = client.raw(bytes)?;
            ensure!(matches!(response.status, 200 | 403), "status {}: {}", response.status, response.text());
            Ok(response.status == 200)
        });
        let [ours, istio] = &mut verdicts;
        Ok((std::mem::replace(ours, Ok(false))?, std::mem::replace(istio, Ok(false))?))
    }
}

impl Bed {
    pub(super) fn start(sets: &[PolicySet]) -> Result<Self> {
        // The SPIFFE validator lets no caller in without certificate, whatever the listener requires.
        let ground = Ground::new(Validation::Pooled)?;
        let key = TokenKey::new()?;
        let tokens = vec![
            key.sign(
                json!({"iss": ISSUERS[0], "sub": "alice", "aud": ["web", "api"], "azp": "app", "groups": ["dev", 5],
                            "realm": {"roles": ["admin"]}, "level": 7}),
            )?,
            key.sign(json!({"iss": ISSUERS[1], "sub": "bob", "aud": "api", "groups": "ops"}))?,
            key.sign(json!({"iss": ISSUERS[0], "sub": "al", "realm": "roles"}))?,
        ];
        let ports = sets.iter().map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let sets: Vec<PolicySet> = sets.iter().zip(&ports).map(|(set, port)| with_port(set, *port)).collect();
        let rbac = istio_filters(&sets)?;
        let base = ground
            .bootstrap()?
            .set(&format!("{CONNECTION_MANAGER}/access_log"), json!([]))?
            // Both must meet the path as the client has written it.
            .set(&format!("{CONNECTION_MANAGER}/normalize_path"), json!(false))?
            .set(&format!("{CONNECTION_MANAGER}/merge_slashes"), json!(false))?
            .set(&format!("{CONNECTION_MANAGER}/path_with_escaped_slashes_action"), json!("KEEP_UNCHANGED"))?
            .set(&format!("{TLS}/require_client_certificate"), json!(false))?
            .set(
                &format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes"),
                json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]),
            )?;
        let filters = format!("{CONNECTION_MANAGER}/http_filters");
        let [filter, router] = base.at(&filters)?.as_array().context("no filters")?.as_slice() else {
            anyhow::bail!("the example does not have two filters");
        };
        let before = [key.filter(&ISSUERS), metadata_filter(&json!({"zone": "abc", "list": ["x", "y"]}))];
        let chain = |deciding: &[Value]| json!([&before[..], deciding, std::slice::from_ref(router)].concat());
        let pointer = filters.strip_prefix("/static_resources/listeners/0").context("no listener")?;
        let listener = |address: [u8; 4], port: u16, deciding: &[Value]| -> Result<Value> {
            let mut listener = base.at("/static_resources/listeners/0")?.clone();
            listener["name"] = json!(format!("{address:?}:{port}"));
            listener["address"]["socket_address"] = json!({"address": IpAddr::from(address), "port_value": port});
            *listener.pointer_mut(pointer).context("no filters")? = chain(deciding);
            Ok(listener)
        };
        let mut listeners = Vec::new();
        for ((set, rbac), port) in sets.iter().zip(rbac).zip(&ports) {
            let mut ours = filter.clone();
            ours["typed_config"]["config"]["configuration"]["value"] = json!(import(set)?.to_string());
            listeners.push(listener(OURS, *port, &[ours])?);
            listeners.push(listener(ISTIO, *port, &rbac)?);
        }
        let bootstrap = base.clone().set("/static_resources/listeners", json!(listeners))?;
        let envoy = Envoy::start(&Start::tested("differential")?, &bootstrap, ground.scratch.path())?;
        let leaf = |id: &str| -> Result<Option<Leaf>> {
            let authority = if id.starts_with("spiffe://example.io/") { &ground.federated } else { &ground.local };
            if id.is_empty() { Ok(None) } else { authority.sign(&Shape::svid(id)).map(Some) }
        };
        let leaves = IDENTITIES.into_iter().map(leaf).collect::<Result<_>>()?;
        Ok(Self { envoy, leaves, ports, tokens, _ground: ground })
    }

    pub(super) fn connect(&self, set: usize, caller: &Caller) -> Result<Pair> {
        let connect = |address: [u8; 4]| -> Result<Client> {
            let config = client_config(self.leaves[caller.identity].as_ref())?;
            let address = SocketAddr::from((address, self.ports[set]));
            let source = IpAddr::from(SOURCES[caller.source]);
            Client::tls_from(source, address, config, SERVER_NAMES[caller.server_name])
                .with_context(|| format!("{}\n{}", caller.describe(), self.envoy.log().unwrap_or_default()))
        };
        Ok(Pair { ours: connect(OURS)?, istio: connect(ISTIO)? })
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((IpAddr::from(OURS), 0))?.local_addr()?.port())
}

fn with_port(set: &PolicySet, port: u16) -> PolicySet {
    let text = Value::from(set.clone()).to_string().replace(PORT, &port.to_string());
    serde_json::from_str(&text).unwrap_or_default()
}

/// The RBAC filters that Istio pushes for each set.
fn istio_filters(sets: &[PolicySet]) -> Result<Vec<Vec<Value>>> {
    let input: Vec<Value> = sets.iter().map(|set| json!({"policies": set})).collect();
    let output = piped(&mut Command::new(tools::path(tools::ISTIO_RBAC)?), &Value::from(input).to_string())?;
    Ok(serde_json::from_str(&output)?)
}

/// The same set as a configuration document.
fn import(set: &PolicySet) -> Result<Value> {
    let items: Vec<Value> = set
        .iter()
        .map(|policy| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "spec": policy["spec"],
                "metadata": {"name": policy["name"], "namespace": policy["namespace"]}
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let mut command = Command::new(tools::path(tools::COMMAND)?);
    command.args(["import", "--trust-domain", "example.org", "--federated-trust-domain", "example.io", "-"]);
    let mut document: Value = serde_json::from_str(&piped(&mut command, &list.to_string())?)?;
    document["identity"] = json!({"peer": "optional"});
    Ok(document)
}

fn piped(command: &mut Command, input: &str) -> Result<String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start")?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} failed: {}\n{input}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
