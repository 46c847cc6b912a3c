//! The examples of `spiffe-authz diff`, sent to the filter and to Istio's RBAC in a real Envoy.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::environment::{Comparison, Environment, ISSUERS, Layer};
use super::policies::random_set;
use super::{PolicySet, omits_trust_domain};
use crate::bootstrap::Adapter;
use crate::scratch::Scratch;
use crate::tools;

/// The number of pairs of sets in one Envoy.
const PAIRS_PER_ENVOY: usize = 25;
/// The most examples of one pair. Some have thousands, which are alike.
const EXAMPLES_PER_PAIR: usize = 20;
/// Methods that Envoy's parser accepts, and whose responses have a body.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
/// Fields and keys whose values the environment cannot choose freely: addresses, ports, and metadata of other filters.
const FIXED: [&str; 7] = ["pBlocks\"", "source.ip", "remote.ip", "destination.", "orts\"", "experimental.", "@port"];

/// The result of a run.
#[derive(Debug, Default)]
pub struct Sent {
    /// The examples that were sent.
    pub examples: usize,
    /// Those of them that one of the documents allows.
    pub changed: usize,
    /// Those of them that Istio allows, and the filter denies by a documented difference.
    pub differences: usize,
    /// The examples that the environment cannot send, such as those with a token of another issuer.
    pub skipped: usize,
}

/// A change in the output of `diff`.
#[derive(Debug, Deserialize)]
struct Change {
    witness: Witness,
    old: Decision,
    new: Decision,
}

#[derive(Debug, Deserialize)]
struct Decision {
    verdict: String,
}

/// A request. The policies read no other attribute.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Witness {
    peer: Option<String>,
    method: String,
    path: String,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    sni: Option<String>,
    claims: Option<Value>,
}

impl Witness {
    /// Returns the request as bytes. Returns `None` if the environment cannot send it.
    fn request(&self, environment: &Environment, reads_host: bool) -> Result<Option<Vec<u8>>> {
        let is_host = self.host.as_ref().map_or(!reads_host, |host| !host.is_empty());
        let is_path =
            self.path.starts_with('/') && self.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        // Envoy accepts the tokens of two issuers, and removes spaces around values.
        let has_issuer = |claims: &Value| ISSUERS.iter().any(|issuer| claims["iss"] == *issuer);
        let are_lines = self.headers.iter().all(|(name, value)| !name.starts_with(':') && value.trim() == value);
        let is_server_name =
            self.sni.as_deref().is_none_or(|name| matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_))));
        let is_token = self.claims.as_ref().is_none_or(has_issuer);
        if !(is_host && is_path && are_lines && is_server_name && is_token && METHODS.contains(&&*self.method)) {
            return Ok(None);
        }
        let host = self.host.as_deref().unwrap_or("x");
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n", self.method, self.path);
        self.headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        if let Some(claims) = &self.claims {
            text.push_str(&format!("authorization: Bearer {}\r\n", environment.key.sign(claims.clone())?));
        }
        Ok(Some(format!("{text}\r\n").into_bytes()))
    }

    /// Returns `true` if a documented difference explains that Istio allows the request, and the filter denies it.
    fn is_denied_by_difference(&self, set: &PolicySet) -> bool {
        let peer = self.peer.as_deref().unwrap_or_default();
        let is_malformed = !peer.is_empty() && !peer.contains("/ns/");
        is_malformed
            || peer.starts_with("spiffe://example.io/") && omits_trust_domain(set)
            || self.headers.values().any(|value| value.contains(','))
    }
}

/// Returns policies that read no attribute with a fixed value.
fn random_policies(rng: &mut Rng, count: usize) -> PolicySet {
    let mut policies = PolicySet::new();
    while policies.len() < count {
        let is_free = |policy: &Value| !FIXED.iter().any(|name| policy.to_string().contains(name));
        policies.extend(random_set(rng, Layer::Http).into_iter().filter(is_free));
    }
    policies.truncate(count);
    policies.iter_mut().enumerate().for_each(|(number, policy)| policy["name"] = json!(format!("p{number}")));
    policies
}

/// Returns two sets that differ in one policy.
fn random_change(rng: &mut Rng) -> [PolicySet; 2] {
    let count = rng.usize(1..=4);
    let old = random_policies(rng, count);
    let mut new = old.clone();
    let changed = rng.usize(..new.len());
    if new.len() > 1 && rng.bool() {
        new.remove(changed);
    } else {
        let name = new[changed]["name"].take();
        new[changed] = random_policies(rng, 1).swap_remove(0);
        new[changed]["name"] = name;
    }
    [old, new]
}

fn diff(sets: &[PolicySet; 2], scratch: &Scratch) -> Result<Vec<Change>> {
    #[derive(Deserialize)]
    struct Answer {
        changes: Vec<Change>,
    }
    let mut command = Command::new(tools::path(tools::COMMAND)?);
    command.args(["diff", "--format", "json"]);
    for (name, set) in ["old.json", "new.json"].into_iter().zip(sets) {
        fs::write(scratch.join(name), super::environment::document(set)?.to_string())?;
        command.arg(scratch.join(name));
    }
    let output = command.output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains(": not decided: ") {
        return Ok(Vec::new());
    }
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{message}");
    let answer: Answer = serde_json::from_slice(&output.stdout)?;
    Ok(answer.changes)
}

/// Sends the examples of the differences between random sets, until so many were sent. Generated from `seed`.
///
/// # Errors
/// Returns an error if the filter decides differently from `diff`, or if it allows a request that Istio denies.
pub fn send_examples(adapter: Adapter, count: usize, seed: u64) -> Result<Sent> {
    let mut rng = Rng::with_seed(seed);
    let scratch = Scratch::new()?;
    let mut sent = Sent::default();
    while sent.examples < count {
        let pairs: Vec<[PolicySet; 2]> = (0..PAIRS_PER_ENVOY).map(|_| random_change(&mut rng)).collect();
        let environment = Environment::start(Comparison { layer: Layer::Http, adapter }, pairs.as_flattened())?;
        for (number, pair) in pairs.iter().enumerate() {
            let reads_host = json!(pair).to_string().contains("osts\"");
            let mut changes = diff(pair, &scratch)?;
            rng.shuffle(&mut changes);
            for change in changes.into_iter().take(EXAMPLES_PER_PAIR) {
                let Some(bytes) = change.witness.request(&environment, reads_host)? else {
                    sent.skipped += 1;
                    continue;
                };
                sent.examples += 1;
                sent.changed += usize::from(change.old.verdict != change.new.verdict);
                for ((position, set), decision) in pair.iter().enumerate().zip([&change.old, &change.new]) {
                    let Witness { peer, sni, .. } = &change.witness;
                    let mut connection =
                        environment.connect_as(2 * number + position, peer.as_deref(), sni.as_deref())?;
                    let (ours, istio) = connection.decide(&bytes)?;
                    let is_allowed = decision.verdict == "allow";
                    let shown = || format!("seed {seed}: {:?}\n{}", change.witness, json!(set));
                    if ours != is_allowed {
                        bail!("the filter decides {ours}, `diff` {}: {}", decision.verdict, shown());
                    }
                    if ours != istio {
                        ensure!(
                            istio && change.witness.is_denied_by_difference(set),
                            "Istio decides {istio}: {}",
                            shown()
                        );
                        sent.differences += 1;
                    }
                }
            }
        }
    }
    Ok(sent)
}
