//! A compiled rule, and how it is held against a request.

use super::values::{Namespace, Path, Scope, ServiceAccount, Text, Values};
use crate::peer::Peer;
use crate::request::{Attributes, HostFailure, Request};

/// One rule of a policy.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Any of these sources; none at all is no restriction.
    pub(crate) sources: Box<[Box<[SourceField]>]>,
    /// Any of these operations; none at all is no restriction.
    pub(crate) operations: Box<[Box<[OperationField]>]>,
    pub(crate) policy: u32,
    /// The rule's place in its policy.
    pub(crate) position: u32,
}

/// What a policy does with the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Lets them pass, unless a DENY policy matches.
    Allow,
    /// Refuses them.
    Deny,
    /// Counts and logs them.
    Audit,
}

/// Whether a policy's verdict is acted on, or only counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is acted on.
    Enforce,
    /// It is only counted and logged.
    Shadow,
}

impl Mode {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// The policy that a rule belongs to.
#[derive(Debug)]
pub(crate) struct PolicyName {
    /// `<namespace>/<name>`, or the bare name.
    pub(crate) full_name: Box<str>,
    pub(crate) action: Action,
    pub(crate) mode: Mode,
}

/// One field of a `source`.
#[derive(Debug)]
pub(crate) enum SourceField {
    Principals(Values<Text>),
    Namespaces(Values<Namespace>),
    ServiceAccounts(Values<ServiceAccount>),
    TrustDomains(Values<Text>),
}

/// One field of an `operation`.
#[derive(Debug)]
pub(crate) enum OperationField {
    /// In lower case.
    Hosts(Values<Text>),
    Ports(Values<u16>),
    Methods(Values<Text>),
    Paths(Values<Path>),
}

impl Rule {
    pub(crate) fn matches<A: Attributes>(
        &self,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Result<bool, HostFailure> {
        if !self.matches_peer(peer) {
            return Ok(false);
        }
        if self.operations.is_empty() {
            return Ok(true);
        }
        for operation in &self.operations {
            if matches_operation(operation, request)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn matches_peer(&self, peer: Option<&Peer>) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|source| source.iter().all(|field| field.matches(peer)))
    }
}

fn matches_operation<A: Attributes>(operation: &[OperationField], request: &Request<A>) -> Result<bool, HostFailure> {
    for field in operation {
        if !field.matches(request)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl SourceField {
    /// A caller without identity matches no value, so it passes negated fields only.
    fn matches(&self, peer: Option<&Peer>) -> bool {
        match self {
            Self::Principals(values) => {
                values.admit(|value| peer.is_some_and(|peer| value.matches(peer.principal().as_bytes())))
            }
            Self::Namespaces(values) => values.admit(|value| peer.is_some_and(|peer| value.matches(peer))),
            Self::ServiceAccounts(values) => values.admit(|value| peer.is_some_and(|peer| value.matches(peer))),
            Self::TrustDomains(values) => {
                values.admit(|value| peer.is_some_and(|peer| value.matches(peer.trust_domain().as_bytes())))
            }
        }
    }
}

impl Scope {
    fn covers(self, peer: &Peer) -> bool {
        self == Self::Any || peer.is_local()
    }
}

impl Namespace {
    fn matches(&self, peer: &Peer) -> bool {
        self.scope.covers(peer) && peer.namespace().is_some_and(|namespace| self.name.matches(namespace))
    }
}

impl ServiceAccount {
    fn matches(&self, peer: &Peer) -> bool {
        self.scope.covers(peer)
            && peer.namespace() == Some(&*self.namespace)
            && peer.service_account() == Some(&*self.name)
    }
}

impl OperationField {
    fn matches<A: Attributes>(&self, request: &Request<A>) -> Result<bool, HostFailure> {
        Ok(match self {
            Self::Hosts(values) => {
                let host = request.host()?;
                values.admit(|value| host.is_some_and(|host| value.matches(host)))
            }
            Self::Ports(values) => {
                let port = request.port()?;
                values.admit(|value| port == Some(u64::from(*value)))
            }
            Self::Methods(values) => {
                let method = request.method()?;
                values.admit(|value| method.is_some_and(|method| value.matches(method)))
            }
            Self::Paths(values) => {
                let path = request.path()?;
                values.admit(|value| path.is_some_and(|path| value.matches(path)))
            }
        })
    }
}
