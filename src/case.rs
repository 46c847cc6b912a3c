//! Requests written down, with what should come of them: in tables of cases, on a command line, in a log.
//!
//! A table is an object with the `configuration` and its `cases`; each case has a `name`, a `request` and what to
//! `expect`; with `layer: tcp` the requests are connections. `tests/corpus` has tables that every way to decide must agree with.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::decision::{DenyReason, Outcome, RuleName, Verdict};
use crate::identity::{self, IdentitySource};
use crate::metadata::Object;
use crate::peer::{IdentityReason, Peer};
use crate::policy::Policy;
use crate::request::{AddressOf, Attributes, HostFailure, Request};
use crate::spiffe_id::SpiffeId;
use crate::timestamp::Timestamp;
use crate::xfcc;

/// A request, and what should come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What the case shows.
    pub name: String,
    /// The request.
    #[serde(default)]
    pub request: CaseRequest,
    /// What should come of it.
    pub expect: Expectation,
}

/// A request as text. What is left out is absent from the request.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CaseRequest {
    /// The SPIFFE ID at the other end of the connection, as a valid certificate of its trust domain shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The moment of the request. Only policies with `notBefore` or `expires` depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The method.
    pub method: String,
    /// The path, with query.
    pub path: String,
    /// The `:authority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port that the connection came in on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Header lines by name; several lines of one name as a list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Lines>,
    /// The other end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
    /// The client, as trusted proxies tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<IpAddr>,
    /// This end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_ip: Option<IpAddr>,
    /// The server name that the client asked for in TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The claims of a verified token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// Dynamic metadata by filter.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// The values of one header name.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Lines {
    /// One line.
    One(String),
    /// Several, in order.
    Several(Vec<String>),
}

/// What should come of a request. What is left out is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// Whether it passes.
    pub verdict: ExpectedVerdict,
    /// Why not.
    pub reason: Option<String>,
    /// The policy that decides.
    pub policy: Option<String>,
    /// The rule of it, from 0.
    pub rule: Option<u32>,
    /// What the verdict would be if the shadow policies were enforced.
    pub shadow: Option<ExpectedVerdict>,
    /// The AUDIT policy that matches.
    pub audit: Option<String>,
}

/// A verdict as a table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedVerdict {
    /// The request passes.
    Allow,
    /// It does not.
    Deny,
}

impl Default for CaseRequest {
    /// `GET /` by nobody.
    fn default() -> Self {
        Self {
            peer: None,
            time: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            port: None,
            headers: BTreeMap::new(),
            source_ip: None,
            remote_ip: None,
            destination_ip: None,
            sni: None,
            claims: None,
            metadata: serde_json::Map::new(),
        }
    }
}

impl CaseRequest {
    /// The caller's identity under this policy, or the reason why it has none that counts. Where proxies tell identities,
    /// `peer` is the proxy, and the header tells the caller.
    ///
    /// # Errors
    /// That reason.
    pub fn identity(&self, policy: &Policy) -> Result<Option<Peer>, IdentityReason> {
        let peer = self.peer.as_deref();
        match policy.identity_source() {
            IdentitySource::Tls => self.identity_of_caller(policy),
            IdentitySource::PeerPrincipal => {
                not_revoked(identity::of_peer_principal(peer.map(str::as_bytes), policy)?, policy)
            }
            IdentitySource::Xfcc(proxies) => {
                let proxy = peer.ok_or(IdentityReason::NoPeerCertificate)?;
                let is_revoked = |id: SpiffeId<'_>| policy.revoked().has_id(id.as_str(), id.trust_domain().as_str());
                if SpiffeId::parse(proxy.as_bytes()).is_ok_and(is_revoked) {
                    return Err(IdentityReason::Revoked);
                }
                let proxy = identity::trusted(proxy, proxies)?;
                let lines = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(xfcc::HEADER));
                let lines = lines.flat_map(|(_, lines)| lines.as_slice()).map(String::as_bytes);
                not_revoked(identity::of_xfcc(lines, proxy, policy)?, policy)
            }
        }
    }

    /// As `identity`, where `peer` is known to be the caller, wherever its identity came from: as in a log.
    ///
    /// # Errors
    /// Why it has none that counts.
    pub fn identity_of_caller(&self, policy: &Policy) -> Result<Option<Peer>, IdentityReason> {
        not_revoked(identity::of_id(self.peer.as_deref().map(str::as_bytes), policy)?, policy)
    }

    /// Decides this request, at its own time if it has one.
    #[must_use]
    pub fn decide<'p>(&self, policy: &'p Policy, now: Timestamp) -> Outcome<'p> {
        let identity = self.identity(policy);
        let candidates = policy.candidates(identity.as_ref().ok().and_then(Option::as_ref));
        policy.authorize(&identity, &candidates, &Request::new(self, self.time.unwrap_or(now)))
    }
}

/// A case has no certificate, so only revoked IDs and trust domains apply to it.
fn not_revoked(peer: Option<Peer>, policy: &Policy) -> Result<Option<Peer>, IdentityReason> {
    let is_revoked = |peer: &Peer| policy.revoked().has_id(peer.spiffe_id(), peer.trust_domain());
    if peer.as_ref().is_some_and(is_revoked) { Err(IdentityReason::Revoked) } else { Ok(peer) }
}

impl Lines {
    /// The lines, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Several(lines) => lines,
        }
    }
}

impl<'a> Attributes for &'a CaseRequest {
    type Text = &'a str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(&self.method))
    }

    fn path(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(&self.path))
    }

    fn authority(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(self.host.as_deref())
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(self.port.map(u64::from))
    }

    fn headers(&self) -> Result<Self::Headers, HostFailure> {
        let pseudo = [(":method", Some(&self.method)), (":path", Some(&self.path)), (":authority", self.host.as_ref())];
        let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let own =
            self.headers.iter().flat_map(|(name, lines)| lines.as_slice().iter().map(move |line| (&**name, line)));
        Ok(pseudo.chain(own).map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect())
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        Ok(match of {
            AddressOf::Source => self.source_ip,
            AddressOf::Remote => self.remote_ip,
            AddressOf::Destination => self.destination_ip,
        })
    }

    fn server_name(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(self.sni.as_deref())
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        let mut metadata = self.metadata.clone();
        if let Some(claims) = &self.claims {
            let [filter, payload] = crate::policy::JWT_PAYLOAD;
            metadata.insert(filter.to_owned(), serde_json::json!({payload: claims}));
        }
        Ok(Object::from(&metadata))
    }
}

impl Expectation {
    /// What of an outcome is not as expected: one line each, `<what>: expected <this>, found <that>`.
    #[must_use]
    pub fn differences(&self, outcome: &Outcome<'_>) -> Vec<String> {
        let decision = outcome.decision;
        let policy = |rule: Option<RuleName<'_>>| rule.map(|rule| rule.policy.to_owned());
        let shadow = outcome.shadow.unwrap_or(decision).verdict.slug().to_owned();
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: Option<String>, found: Option<String>| {
            if let Some(expected) = expected
                && found.as_ref() != Some(&expected)
            {
                differences.push(format!("{what}: expected {expected}, found {}", found.as_deref().unwrap_or("none")));
            }
        };
        compare("verdict", Some(self.verdict.slug().to_owned()), Some(decision.verdict.slug().to_owned()));
        let reason = decision.verdict.reason().map(DenyReason::slug).map(str::to_owned);
        compare("reason", self.reason.clone(), reason);
        compare("policy", self.policy.clone(), policy(decision.rule));
        compare("rule", self.rule.map(|rule| rule.to_string()), decision.rule.map(|rule| rule.position.to_string()));
        compare("shadow", self.shadow.map(|verdict| verdict.slug().to_owned()), Some(shadow));
        compare("audit", self.audit.clone(), policy(outcome.audit));
        differences
    }
}

impl ExpectedVerdict {
    /// The word for it.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Allow => Verdict::Allow.slug(),
            Self::Deny => "deny",
        }
    }
}
