//! A compiled rule, and how it is held against a request.

use ipnet::IpNet;

use super::values::{Namespace, Path, Reading, RequestPrincipal, Scope, ServiceAccount, Text, Values};
use crate::metadata::{Object, Value};
use crate::peer::Peer;
use crate::request::{AddressOf, Attributes, Headers as _, HostFailure, Request};
use crate::timestamp::Timestamp;

/// One rule of a policy.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Any of these sources; none at all is no restriction.
    pub(crate) sources: Box<[Box<[Field]>]>,
    /// Any of these operations; none at all is no restriction.
    pub(crate) operations: Box<[Box<[Field]>]>,
    /// All of these conditions.
    pub(crate) conditions: Box<[Field]>,
    /// It is never asked, since it asks for what its layer does not have.
    pub(crate) left_out: bool,
    pub(crate) policy: u32,
    /// The rule's place in its policy.
    pub(crate) position: u32,
}

/// What a policy does with the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
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

impl Action {
    /// The word for it in the document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
        }
    }
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
    pub(crate) period: Period,
}

/// When a policy applies: from its first moment, inclusive, to its last one, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) expires: Option<Timestamp>,
}

impl Period {
    pub(crate) fn contains(self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now) && self.expires.is_none_or(|expires| now < expires)
    }

    pub(crate) fn boundaries(self) -> impl Iterator<Item = Timestamp> {
        self.not_before.into_iter().chain(self.expires)
    }
}

/// One field of a source, an operation, or a condition.
#[derive(Debug)]
pub(crate) enum Field {
    Principals(Values<Text>),
    Namespaces(Values<Namespace>),
    ServiceAccounts(Values<ServiceAccount>),
    TrustDomains(Values<Text>),
    RequestPrincipals(Values<RequestPrincipal>),
    Addresses(AddressOf, Values<IpNet>),
    /// In lower case.
    Hosts(Values<Text>, Reading),
    Ports(Values<u16>),
    Methods(Values<Text>),
    Paths(Values<Path>, Reading),
    ServerNames(Values<Text>),
    /// The name is in lower case.
    Header(Box<str>, Values<Text>, Reading),
    /// The path to the value in the dynamic metadata, its filter first.
    Metadata(Box<[Box<str>]>, Values<MetadataValue>),
    /// Of HTTP, on another layer: it is not asked, and counts as matched.
    Unasked(Box<Self>),
}

/// What is asked of a value in the dynamic metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetadataValue {
    /// This text.
    Text(Text),
    /// A list with this text.
    InList(Text),
    /// This text, or a list with it.
    TextOrInList(Text),
}

/// Where the filter of Envoy that verifies tokens leaves their claims.
pub(crate) const JWT_PAYLOAD: [&str; 2] = ["envoy.filters.http.jwt_authn", "payload"];

/// A place in a rule where fields stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The source at this place of `from`.
    From(usize),
    /// The operation at this place of `to`.
    To(usize),
    /// The conditions of `when`.
    When,
}

/// Watches a rule being held against a request.
pub(crate) trait Trace<'r> {
    /// Whether every field is looked at, also where the outcome is known before.
    const COMPLETE: bool;

    /// `field`, the one at `position` of `part`, was held against the request.
    fn field(&mut self, part: Part, position: usize, field: &'r Field, matched: bool);
}

/// Watches nothing: deciding costs no more than the fields that decide.
pub(crate) struct Untraced;

impl Trace<'_> for Untraced {
    const COMPLETE: bool = false;

    fn field(&mut self, _: Part, _: usize, _: &Field, _: bool) {}
}

impl Rule {
    pub(crate) fn matches<'r, A: Attributes, T: Trace<'r>>(
        &'r self,
        peer: Option<&Peer>,
        request: &Request<A>,
        trace: &mut T,
    ) -> Result<bool, HostFailure> {
        let mut walk = Walk { peer, request, trace };
        let from = walk.any(&self.sources, Part::From)?;
        if !from && !T::COMPLETE {
            return Ok(false);
        }
        let to = walk.any(&self.operations, Part::To)?;
        if !to && !T::COMPLETE {
            return Ok(false);
        }
        let when = walk.all(&self.conditions, Part::When)?;
        Ok(from && to && when)
    }
}

/// The one walk over a rule, whether to decide or to explain.
struct Walk<'w, A: Attributes, T> {
    peer: Option<&'w Peer>,
    request: &'w Request<A>,
    trace: &'w mut T,
}

impl<'r, A: Attributes, T: Trace<'r>> Walk<'_, A, T> {
    fn any(&mut self, selectors: &'r [Box<[Field]>], part: impl Fn(usize) -> Part) -> Result<bool, HostFailure> {
        let mut any = selectors.is_empty();
        for (position, selector) in selectors.iter().enumerate() {
            any |= self.all(selector, part(position))?;
            if any && !T::COMPLETE {
                break;
            }
        }
        Ok(any)
    }

    fn all(&mut self, fields: &'r [Field], part: Part) -> Result<bool, HostFailure> {
        let mut all = true;
        for (position, field) in fields.iter().enumerate() {
            let matched = field.matches(self.peer, self.request)?;
            self.trace.field(part, position, field, matched);
            all &= matched;
            if !all && !T::COMPLETE {
                break;
            }
        }
        Ok(all)
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

impl RequestPrincipal {
    fn matches(&self, issuer: Option<&[u8]>, subject: Option<&[u8]>) -> bool {
        issuer.is_some_and(|issuer| self.issuer.matches_some(issuer))
            && subject.is_some_and(|subject| self.subject.matches_some(subject))
    }
}

/// A claim that is text.
fn token_text<'m>(metadata: &'m Object, claim: &str) -> Result<Option<&'m [u8]>, HostFailure> {
    Ok(match metadata.get(&[JWT_PAYLOAD[0], JWT_PAYLOAD[1], claim])? {
        Some(Value::String(text)) => Some(text),
        _ => None,
    })
}

impl MetadataValue {
    fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(wanted), Value::String(text)) => wanted.matches_some(text),
            (Self::InList(wanted), Value::List(_)) => value.any_text(|text| wanted.matches_some(text)),
            (Self::TextOrInList(wanted), _) => value.any_text(|text| wanted.matches_some(text)),
            _ => false,
        }
    }
}

impl Field {
    /// A caller without identity, and an attribute that is absent, match no value: they pass `not…` values only.
    fn matches<A: Attributes>(&self, peer: Option<&Peer>, request: &Request<A>) -> Result<bool, HostFailure> {
        Ok(match self {
            Self::Principals(values) => {
                values.admit(|value| peer.is_some_and(|peer| value.matches(peer.principal().as_bytes())))
            }
            Self::Namespaces(values) => values.admit(|value| peer.is_some_and(|peer| value.matches(peer))),
            Self::ServiceAccounts(values) => values.admit(|value| peer.is_some_and(|peer| value.matches(peer))),
            Self::TrustDomains(values) => {
                values.admit(|value| peer.is_some_and(|peer| value.matches(peer.trust_domain().as_bytes())))
            }
            Self::RequestPrincipals(values) => {
                let metadata = request.metadata()?;
                let (issuer, subject) = (token_text(metadata, "iss")?, token_text(metadata, "sub")?);
                values.admit(|value| value.matches(issuer, subject))
            }
            Self::Addresses(of, values) => {
                let address = request.address(*of)?;
                values.admit(|network| address.is_some_and(|address| network.contains(&address)))
            }
            Self::Hosts(values, reading) => values.admit_readings(request.hosts()?, *reading, Text::matches),
            Self::Ports(values) => {
                let port = request.port()?;
                values.admit(|value| port == Some(u64::from(*value)))
            }
            Self::Methods(values) => {
                let method = request.method()?;
                values.admit(|value| method.is_some_and(|method| value.matches(method)))
            }
            Self::Paths(values, reading) => values.admit_readings(request.paths()?, *reading, Path::matches),
            Self::ServerNames(values) => {
                let name = request.server_name()?;
                values.admit(|value| name.is_some_and(|name| value.matches_some(name)))
            }
            // The pseudo-headers of HTTP/2 are not lists.
            Self::Header(name, values, reading) if name.starts_with(':') => {
                values.admit_readings(request.headers()?.lines(name), *reading, Text::matches)
            }
            Self::Header(name, values, reading) => values.admit_lines(request.headers()?.lines(name), *reading),
            Self::Metadata(path, values) => {
                let value = request.metadata()?.get(path)?;
                values.admit(|wanted| value.is_some_and(|value| wanted.matches(value)))
            }
            Self::Unasked(_) => true,
        })
    }
}
