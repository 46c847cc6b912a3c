//! Compiled policies and rules, and the walk that matches a rule against a request.

use ipnet::IpNet;

use super::action::{Action, Mode};
use super::field::{Field, Names, VALUES};
use super::values::{Namespace, Path, Reading, RequestPrincipal, Scope, ServiceAccount, Text, Values};
use crate::decision::PolicyId;
use crate::host::{AddressOf, Headers as _, HostFailure, RequestAttributes};
use crate::identity::Peer;
use crate::metadata::{Object, Value};
use crate::request::Request;
use crate::timestamp::Timestamp;

/// The number of a rule: its position among all rules of the document, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RuleId(u32);

impl RuleId {
    /// Returns rules with their numbers. They must be all rules of a document.
    pub(crate) fn of_all(rules: &[Rule]) -> impl Iterator<Item = (Self, &Rule)> {
        (0..).map(Self).zip(rules)
    }

    /// The index of the rule.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A rule of a policy.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The sources, one of which must match. Without sources, every caller matches.
    pub(crate) sources: Box<[Box<[Matcher]>]>,
    /// The operations, one of which must match. Without operations, every request matches.
    pub(crate) operations: Box<[Box<[Matcher]>]>,
    /// The conditions, all of which must match.
    pub(crate) conditions: Box<[Matcher]>,
    /// The rule never matches, because it needs attributes that the layer does not have.
    pub(crate) left_out: bool,
    /// The policy.
    pub(crate) policy: PolicyId,
    /// The position of the rule in its policy.
    pub(crate) position: u32,
}

/// A policy, without its rules.
#[derive(Debug)]
pub(crate) struct Policy {
    /// `<namespace>/<name>`, or `<name>` for a policy without a namespace.
    pub(crate) full_name: Box<str>,
    /// The position in the document, from 0.
    pub(crate) position: usize,
    pub(crate) action: Action,
    pub(crate) mode: Mode,
    pub(crate) period: Period,
}

/// The period in which a policy applies: from `not_before`, inclusive, to `expires`, exclusive.
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

/// A field of a source, an operation, or a condition, with its values.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Matcher {
    Principals(Values<Text>),
    Namespaces(Values<Namespace>),
    ServiceAccounts(Values<ServiceAccount>),
    TrustDomains(Values<Text>),
    RequestPrincipals(Values<RequestPrincipal>),
    Addresses(AddressOf, Values<IpNet>),
    /// The values are in lower case.
    Hosts(Values<Text>, Reading),
    Ports(Values<u16>),
    Methods(Values<Text>),
    Paths(Values<Path>, Reading),
    ServerNames(Values<Text>),
    /// The name is in lower case.
    Header(Box<str>, Values<Text>, Reading),
    /// The path to the value in the dynamic metadata, which starts with the filter.
    Metadata(Box<[Box<str>]>, Values<MetadataValue>),
    /// An HTTP attribute, on TCP: it is not evaluated, and counts as matched.
    Skipped(Box<Self>),
}

/// The value of dynamic metadata that matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MetadataValue {
    /// This string.
    Text(Text),
    /// A list that contains this string.
    InList(Text),
    /// This string, or a list that contains it.
    TextOrInList(Text),
}

/// The filter and the key of the dynamic metadata in which Envoy's JWT filter stores the claims of a verified token.
pub(crate) const JWT_PAYLOAD: [&str; 2] = ["envoy.filters.http.jwt_authn", "payload"];

/// A part of a rule that contains matchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The source at this position of `from`.
    From(usize),
    /// The operation at this position of `to`.
    To(usize),
    /// The conditions of `when`.
    When,
}

/// Observes the walk that matches a rule against a request.
pub(crate) trait Trace<'r> {
    /// Whether the walk evaluates every matcher, even if the result is already known.
    const COMPLETE: bool;

    /// Reports the result of the matcher at `position` of `part`.
    fn matcher(&mut self, part: Part, position: usize, matcher: &'r Matcher, matched: bool);
}

/// Observes nothing.
pub(crate) struct Untraced;

impl Trace<'_> for Untraced {
    const COMPLETE: bool = false;

    fn matcher(&mut self, _: Part, _: usize, _: &Matcher, _: bool) {}
}

impl Rule {
    /// Every matcher of the rule.
    pub(crate) fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.sources.iter().chain(&self.operations).flatten().chain(&self.conditions)
    }

    pub(crate) fn matches<'r, A: RequestAttributes, T: Trace<'r>>(
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

/// The walk over a rule, which is the same for decisions and explanations.
struct Walk<'w, A: RequestAttributes, T> {
    peer: Option<&'w Peer>,
    request: &'w Request<A>,
    trace: &'w mut T,
}

impl<'r, A: RequestAttributes, T: Trace<'r>> Walk<'_, A, T> {
    fn any(&mut self, selectors: &'r [Box<[Matcher]>], part: impl Fn(usize) -> Part) -> Result<bool, HostFailure> {
        let mut any = selectors.is_empty();
        for (position, selector) in selectors.iter().enumerate() {
            any |= self.all(selector, part(position))?;
            if any && !T::COMPLETE {
                break;
            }
        }
        Ok(any)
    }

    fn all(&mut self, matchers: &'r [Matcher], part: Part) -> Result<bool, HostFailure> {
        let mut all = true;
        for (position, matcher) in matchers.iter().enumerate() {
            let matched = matcher.matches(self.peer, self.request)?;
            self.trace.matcher(part, position, matcher, matched);
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

/// Returns a claim of the verified token if it is a string.
pub(crate) fn token_text<'m>(metadata: &'m Object, claim: &str) -> Result<Option<&'m [u8]>, HostFailure> {
    let path = [JWT_PAYLOAD[0], JWT_PAYLOAD[1], claim];
    Ok(match metadata.get(&path).map_err(|_| HostFailure)? {
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

impl Matcher {
    /// The field of the policy language.
    pub(crate) fn field(&self) -> Field {
        match self {
            Self::Principals(_) => Field::Principals,
            Self::Namespaces(_) => Field::Namespaces,
            Self::ServiceAccounts(_) => Field::ServiceAccounts,
            Self::TrustDomains(_) => Field::TrustDomains,
            Self::RequestPrincipals(_) => Field::RequestPrincipals,
            Self::Addresses(AddressOf::Source, _) => Field::IpBlocks,
            Self::Addresses(AddressOf::Remote, _) => Field::RemoteIpBlocks,
            Self::Addresses(AddressOf::Destination, _) => Field::DestinationIp,
            Self::Hosts(..) => Field::Hosts,
            Self::Ports(_) => Field::Ports,
            Self::Methods(_) => Field::Methods,
            Self::Paths(..) => Field::Paths,
            Self::ServerNames(_) => Field::ServerName,
            Self::Header(..) => Field::Header,
            // A claim is a part of the payload. The whole payload is the value of an `experimental` key, which Istio keeps on TCP.
            Self::Metadata(path, _) => match &**path {
                [filter, payload, _, ..] if [&**filter, &**payload] == JWT_PAYLOAD => Field::Claim,
                _ => Field::Metadata,
            },
            Self::Skipped(matcher) => matcher.field(),
        }
    }

    /// The names of the field and of its negated form, in this part of a rule.
    pub(crate) fn names(&self, part: Part) -> Names {
        if part == Part::When { VALUES } else { self.field().names() }
    }

    /// A caller without an identity, and an absent attribute, match no value. They match a field that has only negated values.
    pub(super) fn matches<A: RequestAttributes>(
        &self,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Result<bool, HostFailure> {
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
            // A pseudo-header of HTTP/2 is not a list.
            Self::Header(name, values, reading) if name.starts_with(':') => {
                values.admit_readings(request.headers()?.lines(name), *reading, Text::matches)
            }
            Self::Header(name, values, reading) => values.admit_lines(request.headers()?.lines(name), *reading),
            Self::Metadata(path, values) => {
                let value = request.metadata()?.get(path).map_err(|_| HostFailure)?;
                values.admit(|wanted| value.is_some_and(|value| wanted.matches(value)))
            }
            Self::Skipped(_) => true,
        })
    }
}
