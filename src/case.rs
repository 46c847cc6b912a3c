//! Requests as text, with the expected outcome: in tables of cases, on a command line, in a log.
//!
//! A table is an object with a `configuration` and `cases`. Each case has a `name`, a `request` and the outcome to `expect`. With
//! `layer: tcp`, the requests are connections. `tests/corpus` contains the tables that the core, the command and Envoy must
//! agree with.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::decision::{DenyReason, Outcome, RuleName, Verdict};
use crate::host::{AddressOf, HostFailure, RequestAttributes};
use crate::identity::{Identity, IdentityReason, IdentitySettings, IdentitySource, xfcc};
use crate::metadata::Object;
use crate::policy::{JWT_PAYLOAD, PolicySet};
use crate::request::Request;
use crate::spiffe_id::SpiffeId;
use crate::timestamp::Timestamp;

/// A request with its expected outcome.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// The name of the case.
    pub name: String,
    /// The request.
    #[serde(default)]
    pub request: CaseRequest,
    /// The expected outcome.
    pub expect: Expectation,
}

/// A request as text. A field that is omitted is absent from the request.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CaseRequest {
    /// The SPIFFE ID in the client certificate, which is valid for its trust domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The time of the request. Only policies with `notBefore` or `expires` depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The HTTP method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The `:authority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The local port of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The headers by name. Several lines with one name are a list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Lines>,
    /// The direct remote address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
    /// The address of the client, as trusted proxies report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<IpAddr>,
    /// The local address of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_ip: Option<IpAddr>,
    /// The server name of the TLS handshake (SNI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The claims of a verified token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The dynamic metadata by filter.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// The lines of a header.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Lines {
    /// One line.
    One(String),
    /// Several lines, in order.
    Several(Vec<String>),
}

/// The expected outcome of a request. A field that is omitted is not checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// The verdict.
    pub verdict: ExpectedVerdict,
    /// The reason for the denial.
    pub reason: Option<String>,
    /// The policy that the verdict is based on.
    pub policy: Option<String>,
    /// The position of the rule in its policy, from 0.
    pub rule: Option<u32>,
    /// The verdict if the shadow policies were enforced.
    pub shadow: Option<ExpectedVerdict>,
    /// The AUDIT policy that matches.
    pub audit: Option<String>,
}

/// A verdict in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedVerdict {
    /// The request is allowed.
    Allow,
    /// The request is denied.
    Deny,
}

impl Default for CaseRequest {
    /// `GET /` of an anonymous caller.
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
    /// Identifies the caller. With `from: xfcc`, `peer` is the proxy, and the header identifies the caller.
    #[must_use]
    pub fn identity(&self, settings: &IdentitySettings) -> Identity {
        match &settings.source {
            IdentitySource::Tls { .. } => self.identity_of_caller(settings),
            IdentitySource::PeerPrincipal => {
                let principal = self.peer.as_deref().map(str::as_bytes);
                not_revoked(settings.identify_principal(principal), settings)
            }
            IdentitySource::Xfcc { trusted_proxies, .. } => {
                let Some(proxy) = self.peer.as_deref() else {
                    return Identity::Rejected(IdentityReason::NoPeerCertificate);
                };
                if SpiffeId::parse(proxy.as_bytes()).is_ok_and(|id| settings.revoked.has_id(id)) {
                    return Identity::Rejected(IdentityReason::Revoked);
                }
                if !trusted_proxies.iter().any(|trusted| **trusted == *proxy) {
                    return Identity::Rejected(IdentityReason::UntrustedProxy);
                }
                let lines = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(xfcc::HEADER));
                let lines = lines.flat_map(|(_, lines)| lines.as_slice()).map(String::as_bytes);
                not_revoked(settings.identify_forwarded(lines, proxy), settings)
            }
        }
    }

    /// Identifies the caller if `peer` is known to be the caller, regardless of the source of its identity, as in a log.
    #[must_use]
    pub fn identity_of_caller(&self, settings: &IdentitySettings) -> Identity {
        not_revoked(settings.identify(self.peer.as_deref().map(str::as_bytes)), settings)
    }

    /// Decides this request, at its own time if it has one.
    #[must_use]
    pub fn decide<'p>(&self, policies: &'p PolicySet, now: Timestamp) -> Outcome<'p> {
        let subject = policies.subject(self.identity(policies.identity()));
        policies.decide(&subject, &Request::new(self, self.time.unwrap_or(now)))
    }
}

/// Rejects a revoked identity. A case has no certificate, so only revoked IDs and trust domains apply.
fn not_revoked(identity: Identity, settings: &IdentitySettings) -> Identity {
    match identity {
        Identity::Peer(peer) if settings.revoked.has_id(peer.id().borrow()) => {
            Identity::Rejected(IdentityReason::Revoked)
        }
        identity => identity,
    }
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

impl<'a> RequestAttributes for &'a CaseRequest {
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
            let [filter, payload] = JWT_PAYLOAD;
            metadata.insert(filter.to_owned(), serde_json::json!({payload: claims}));
        }
        Ok(Object::from(&metadata))
    }
}

impl Expectation {
    /// Returns a line for each difference between this and an outcome: `<field>: expected <this>, found <that>`.
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
    /// The stable name.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Allow => Verdict::Allow.slug(),
            Self::Deny => "deny",
        }
    }
}
