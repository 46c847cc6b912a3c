//! The attributes of requests that rules match, each with the classes of its values.
//!
//! Two values are in one class if every value of every policy matches both or neither. A class has a representative, and the code of the
//! filter decides whether a matcher matches it.

mod address;
mod caller;
mod metadata;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use super::super::rule::{JWT_PAYLOAD, Matcher};
use super::NotDecided;
use super::automaton::Grammar;
use super::set::Set;
use crate::case::{CaseRequest, Lines};
use crate::host::AddressOf;
use crate::identity::xfcc;

pub(super) use caller::Acceptance;
pub(super) use metadata::{components, given_claims};

/// An attribute of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    Caller,
    Method,
    Path,
    Host,
    Port,
    Address(AddressOf),
    ServerName,
    /// The name is in lower case.
    Header(Box<str>),
    /// The paths of values that depend on each other.
    Metadata(Rc<[MetadataPath]>),
}

/// The path of a value of dynamic metadata.
pub(super) type MetadataPath = Box<[Box<str>]>;

impl Attribute {
    /// Returns `true` if another filter writes the attribute, and its values are not those of the request.
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self, Self::Metadata(paths) if paths.iter().any(|path| !path.starts_with(&JWT_PAYLOAD.map(Box::from))))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str("caller"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Host => f.write_str("host"),
            Self::Port => f.write_str("port"),
            Self::Address(AddressOf::Source) => f.write_str("source.ip"),
            Self::Address(AddressOf::Remote) => f.write_str("remote.ip"),
            Self::Address(AddressOf::Destination) => f.write_str("destination.ip"),
            Self::ServerName => f.write_str("connection.sni"),
            Self::Header(name) => write!(f, "request.headers[{name}]"),
            Self::Metadata(paths) => {
                let names: Vec<String> = paths.iter().map(name_of).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// Returns the key of a condition on a value of dynamic metadata.
fn name_of(path: &MetadataPath) -> String {
    match &**path {
        [filter, payload, claims @ ..] if [&**filter, &**payload] == JWT_PAYLOAD => {
            format!("request.auth.claims[{}]", claims.join("]["))
        }
        [filter, keys @ ..] => format!("experimental.{filter}[{}]", keys.join("][")),
        [] => String::new(),
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// The request does not have the attribute. A caller presents no identity.
    Absent,
    Text(String),
    Port(u16),
    Address(IpAddr),
    Metadata(Vec<(MetadataPath, serde_json::Value)>),
}

impl Value {
    /// Sets the attribute of a request to the value.
    pub(super) fn apply(&self, attribute: &Attribute, request: &mut CaseRequest) {
        match (attribute, self) {
            (_, Self::Absent) => {}
            (Attribute::Caller, Self::Text(principal)) => request.peer = Some(format!("spiffe://{principal}")),
            (Attribute::Method, Self::Text(method)) => method.clone_into(&mut request.method),
            (Attribute::Path, Self::Text(path)) => path.clone_into(&mut request.path),
            (Attribute::Host, Self::Text(host)) => request.host = Some(host.clone()),
            (Attribute::ServerName, Self::Text(name)) => request.sni = Some(name.clone()),
            (Attribute::Header(name), Self::Text(line)) => {
                request.headers.insert(name.to_string(), Lines::One(line.clone()));
            }
            (_, Self::Port(port)) => request.port = Some(*port),
            (Attribute::Address(of), Self::Address(address)) => match of {
                AddressOf::Source => request.source_ip = Some(*address),
                AddressOf::Remote => request.remote_ip = Some(*address),
                AddressOf::Destination => request.destination_ip = Some(*address),
            },
            (_, Self::Metadata(values)) => {
                values.iter().for_each(|(path, value)| metadata::insert(request, path, value));
            }
            (_, Self::Text(_) | Self::Address(_)) => {}
        }
    }
}

/// A class of the values of an attribute.
#[derive(Debug)]
pub(super) struct Class {
    /// The representative.
    pub(super) value: Value,
    /// The values of policies that match it, in ascending order.
    pub(super) atoms: Box<[u32]>,
}

/// The classes of an attribute.
#[derive(Debug)]
pub(super) struct Classes {
    pub(super) classes: Vec<Class>,
    /// The values of policies, as answers show them.
    pub(super) atoms: Vec<String>,
    /// For each value of a policy, the matchers that have it.
    uses: Vec<Vec<usize>>,
    /// The number of classes at the end whose atoms do not determine their matchers: every matcher is evaluated.
    spelled: usize,
    /// The limit on the considered values, if not every value is considered.
    pub(super) limit: Option<String>,
}

impl Classes {
    /// Returns the single class of a value that is given.
    pub(super) fn given(value: Value) -> Self {
        let class = Class { value, atoms: Box::default() };
        Self { classes: vec![class], atoms: Vec::new(), uses: Vec::new(), spelled: 1, limit: None }
    }

    /// Returns, for each class, the numbers of the matchers that can match it.
    pub(super) fn candidates(&self, matchers: &[&Matcher]) -> impl Iterator<Item = Vec<usize>> + use<'_> {
        let negated: Vec<usize> =
            (0..matchers.len()).filter(|number| !has_positive_values(matchers[*number])).collect();
        let count = matchers.len();
        let first_spelled = self.classes.len() - self.spelled;
        self.classes.iter().enumerate().map(move |(number, class)| {
            if number >= first_spelled {
                return (0..count).collect();
            }
            let mut candidates = negated.clone();
            candidates.extend(class.atoms.iter().flat_map(|atom| &self.uses[*atom as usize]));
            candidates.sort_unstable();
            candidates.dedup();
            candidates
        })
    }

    /// Returns the classes that match each value of a policy.
    pub(super) fn vocabulary(&self) -> Vec<Set> {
        let mut members = vec![Vec::new(); self.atoms.len()];
        for (number, class) in self.classes.iter().enumerate() {
            class.atoms.iter().for_each(|atom| members[*atom as usize].push(number));
        }
        members.into_iter().map(|members| members.into_iter().collect()).collect()
    }
}

/// The values of policies while they are collected, without repetition.
#[derive(Debug)]
struct Atoms<A> {
    atoms: Vec<A>,
    numbers: rustc_hash::FxHashMap<A, u32>,
    uses: Vec<Vec<usize>>,
}

impl<A: Clone + Eq + std::hash::Hash> Atoms<A> {
    fn new() -> Self {
        Self { atoms: Vec::new(), numbers: rustc_hash::FxHashMap::default(), uses: Vec::new() }
    }

    /// Adds a value of the matcher with this number.
    fn add(&mut self, atom: A, matcher: Option<usize>) {
        let next = u32::try_from(self.atoms.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(atom.clone()).or_insert(next);
        if number == next {
            self.atoms.push(atom);
            self.uses.push(Vec::new());
        }
        self.uses[number as usize].extend(matcher);
    }
}

/// Returns the attribute of a matcher, or `None` if it is not evaluated. `components` are the groups of metadata values.
pub(super) fn attribute_of(
    matcher: &Matcher,
    components: &[Rc<[MetadataPath]>],
) -> Result<Option<Attribute>, NotDecided> {
    let component = |path: &MetadataPath| components.iter().find(|paths| paths.contains(path)).cloned();
    Ok(Some(match matcher {
        Matcher::Principals(_) | Matcher::Namespaces(_) | Matcher::ServiceAccounts(_) | Matcher::TrustDomains(_) => {
            Attribute::Caller
        }
        Matcher::Addresses(of, _) => Attribute::Address(*of),
        Matcher::Hosts(..) => Attribute::Host,
        Matcher::Ports(_) => Attribute::Port,
        Matcher::Methods(_) => Attribute::Method,
        Matcher::Paths(..) => Attribute::Path,
        Matcher::ServerNames(_) => Attribute::ServerName,
        Matcher::Header(name, ..) => match &**name {
            ":method" => Attribute::Method,
            // The query and the spelling of a host are not part of the other attributes.
            ":path" | ":authority" | xfcc::HEADER => return Err(NotDecided::Header(name.to_string())),
            _ => Attribute::Header(name.clone()),
        },
        Matcher::Metadata(path, _) => return Ok(component(path).map(Attribute::Metadata)),
        Matcher::RequestPrincipals(_) => return Ok(component(&metadata::claim("iss")).map(Attribute::Metadata)),
        Matcher::Skipped(_) => return Ok(None),
    }))
}

/// Returns `true` if an attribute that matches no value of the matcher does not pass.
fn has_positive_values(matcher: &Matcher) -> bool {
    match matcher {
        Matcher::Principals(values) | Matcher::TrustDomains(values) | Matcher::Methods(values) => {
            !values.any_of.is_empty()
        }
        Matcher::ServerNames(values) | Matcher::Hosts(values, _) | Matcher::Header(_, values, _) => {
            !values.any_of.is_empty()
        }
        Matcher::Namespaces(values) => !values.any_of.is_empty(),
        Matcher::ServiceAccounts(values) => !values.any_of.is_empty(),
        Matcher::RequestPrincipals(values) => !values.any_of.is_empty(),
        Matcher::Addresses(_, values) => !values.any_of.is_empty(),
        Matcher::Ports(values) => !values.any_of.is_empty(),
        Matcher::Paths(values, _) => !values.any_of.is_empty(),
        Matcher::Metadata(_, values) => !values.any_of.is_empty(),
        Matcher::Skipped(_) => false,
    }
}

/// Returns the classes of an attribute other than the caller.
pub(super) fn classes(attribute: &Attribute, matchers: &[&Matcher]) -> Result<Classes, NotDecided> {
    match attribute {
        Attribute::Caller | Attribute::Method => text::classes(attribute, Grammar::Method, matchers),
        Attribute::Path => text::classes(attribute, Grammar::Path, matchers),
        Attribute::Host => text::classes(attribute, Grammar::Host, matchers),
        Attribute::ServerName => text::classes(attribute, Grammar::Text, matchers),
        Attribute::Header(_) => text::classes(attribute, Grammar::Header, matchers),
        Attribute::Port => Ok(address::ports(matchers)),
        Attribute::Address(_) => Ok(address::classes(matchers)),
        Attribute::Metadata(paths) => metadata::classes(attribute, paths, matchers),
    }
}

/// Returns the classes of the callers.
pub(super) fn callers(
    matchers: &[(usize, &Matcher)],
    settings: &[&crate::identity::IdentitySettings],
) -> Result<Classes, NotDecided> {
    caller::classes(matchers, settings)
}
