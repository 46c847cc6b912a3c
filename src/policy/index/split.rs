//! The attributes of a request that split a set of many rules into groups.

use super::groups::{Groups, Key};
use crate::host::{AddressOf, Headers as _, HostFailure, RequestAttributes};
use crate::metadata::Value;
use crate::policy::path_template::PathTemplate;
use crate::policy::rule::{Matcher, MetadataValue, Rule, RuleId, token_text};
use crate::policy::values::{Path, Text, Values, members};
use crate::request::Request;

/// An attribute of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Split {
    Path,
    Method,
    Host,
    Port,
    ServerName,
    Source,
    Remote,
    Destination,
    Header(Box<str>),
    TokenIssuer,
    TokenSubject,
    /// The path to the value in the dynamic metadata.
    Metadata(Box<[Box<str>]>),
}

/// The maximum number of attributes that are compared to find the best one.
const MAX_ATTRIBUTES: usize = 32;

/// The groups of a set of rules by one attribute.
pub(super) struct Partition<'r> {
    pub(super) by: Split,
    pub(super) groups: Groups<Vec<(RuleId, &'r Rule)>>,
    /// The rules without a value of the attribute that can be looked up.
    pub(super) rest: Vec<(RuleId, &'r Rule)>,
}

/// Splits rules by the attribute that leaves the fewest of them for one request. Returns `None` if none improves on the whole set.
pub(super) fn partition<'r>(rules: &[(RuleId, &'r Rule)]) -> Option<Partition<'r>> {
    let mut best: Option<(usize, Partition<'_>)> = None;
    for by in attributes(rules) {
        let partition = Partition::new(by, rules);
        let cost = partition.cost();
        let limit = best.as_ref().map_or(rules.len(), |(cost, _)| *cost);
        // If two are equal, the one that costs less to read.
        let is_cheaper = |best: &(usize, Partition<'_>)| partition.by.reading_cost() < best.1.by.reading_cost();
        if cost < limit || (cost == limit && best.as_ref().is_some_and(is_cheaper)) {
            best = Some((cost, partition));
        }
    }
    Some(best?.1)
}

/// The first attributes that these rules match.
fn attributes(rules: &[(RuleId, &Rule)]) -> Vec<Split> {
    let mut attributes = Vec::new();
    for split in rules.iter().flat_map(|(_, rule)| rule.matchers()).flat_map(Split::of) {
        if attributes.len() < MAX_ATTRIBUTES && !attributes.contains(&split) {
            attributes.push(split);
        }
    }
    attributes
}

impl<'r> Partition<'r> {
    fn new(by: Split, rules: &[(RuleId, &'r Rule)]) -> Self {
        let mut frequency = Groups::<usize>::new();
        for key in rules.iter().flat_map(|(_, rule)| by.choices(rule)).flatten().flatten() {
            if let Some(count) = frequency.entry(&key, || 0) {
                *count = count.saturating_add(1);
            }
        }
        let mut groups = Groups::<Vec<(RuleId, &Rule)>>::new();
        let mut rest = Vec::new();
        for (id, rule) in rules {
            match by.keys(rule, &mut frequency) {
                None => rest.push((*id, *rule)),
                Some(keys) => {
                    for key in &keys {
                        if let Some(group) = groups.entry(key, Vec::new)
                            && group.last().is_none_or(|(last, _)| last != id)
                        {
                            group.push((*id, rule));
                        }
                    }
                }
            }
        }
        Self { by, groups, rest }
    }

    /// The number of rules that remain for one request: the rules without a value, and the largest group.
    fn cost(&self) -> usize {
        self.groups.iter().map(Vec::len).max().map_or(usize::MAX, |largest| largest.saturating_add(self.rest.len()))
    }
}

impl Split {
    /// The cost of reading the attribute, for comparison.
    const fn reading_cost(&self) -> u8 {
        match self {
            Self::Path | Self::Method | Self::Host => 0,
            Self::Port | Self::ServerName => 1,
            Self::Source | Self::Remote | Self::Destination => 2,
            Self::Header(_) => 3,
            Self::TokenIssuer | Self::TokenSubject | Self::Metadata(_) => 4,
        }
    }

    /// The attributes that this matcher compares.
    fn of(matcher: &Matcher) -> Vec<Self> {
        match matcher {
            Matcher::Paths(..) => vec![Self::Path],
            Matcher::Methods(_) => vec![Self::Method],
            Matcher::Hosts(..) => vec![Self::Host],
            Matcher::Ports(_) => vec![Self::Port],
            Matcher::ServerNames(_) => vec![Self::ServerName],
            Matcher::Addresses(AddressOf::Source, _) => vec![Self::Source],
            Matcher::Addresses(AddressOf::Remote, _) => vec![Self::Remote],
            Matcher::Addresses(AddressOf::Destination, _) => vec![Self::Destination],
            Matcher::Header(name, ..) => vec![Self::Header(name.clone())],
            Matcher::RequestPrincipals(_) => vec![Self::TokenIssuer, Self::TokenSubject],
            Matcher::Metadata(path, _) => vec![Self::Metadata(path.clone())],
            // The index of the peer, or an attribute that is not evaluated.
            Matcher::Principals(_)
            | Matcher::Namespaces(_)
            | Matcher::ServiceAccounts(_)
            | Matcher::TrustDomains(_)
            | Matcher::Skipped(_) => Vec::new(),
        }
    }

    /// Returns the keys of a rule, the least frequent ones if there is a choice, or `None` if the rule must be evaluated for every
    /// value.
    fn keys(&self, rule: &Rule, frequency: &mut Groups<usize>) -> Option<Vec<Key>> {
        let mut count = |key: &Key| frequency.entry(key, || 0).map_or(usize::MAX, |count| *count);
        let mut rarest = |choices: Vec<Key>| choices.into_iter().min_by_key(|key| count(key));
        self.choices(rule)?
            .into_iter()
            .map(|choices| rarest(choices).filter(|key| *key != Key::Text(Text::Present)))
            .collect()
    }

    /// Returns the values of which every matching request has one, each with the keys to choose from.
    fn choices(&self, rule: &Rule) -> Option<Vec<Vec<Key>>> {
        let of_fields = |fields: &[Matcher]| fields.iter().find_map(|matcher| self.values(matcher));
        // One selector must match, so each must have values.
        let of_selectors = |selectors: &[Box<[Matcher]>]| -> Option<Vec<Vec<Key>>> {
            if selectors.is_empty() {
                return None;
            }
            Some(selectors.iter().map(|fields| of_fields(fields)).collect::<Option<Vec<_>>>()?.concat())
        };
        of_fields(&rule.conditions).or_else(|| of_selectors(&rule.sources)).or_else(|| of_selectors(&rule.operations))
    }

    /// Returns the positive values of a matcher, each with the keys to choose from.
    fn values(&self, matcher: &Matcher) -> Option<Vec<Vec<Key>>> {
        let texts = |values: &Values<Text>| list(values, |text| vec![Key::Text(text.clone())]);
        match (self, matcher) {
            (Self::Path, Matcher::Paths(values, _)) => list(values, |path| match path {
                Path::Text(text) => vec![Key::Text(text.clone())],
                Path::Template(template) => of_template(template),
            }),
            (Self::Host, Matcher::Hosts(values, _))
            | (Self::Method, Matcher::Methods(values))
            | (Self::ServerName, Matcher::ServerNames(values)) => texts(values),
            (Self::Header(wanted), Matcher::Header(name, values, _)) if wanted == name => texts(values),
            (Self::Port, Matcher::Ports(values)) => {
                list(values, |port| vec![Key::Text(Text::Exact(port.to_string().into()))])
            }
            (Self::Source, Matcher::Addresses(AddressOf::Source, values))
            | (Self::Remote, Matcher::Addresses(AddressOf::Remote, values))
            | (Self::Destination, Matcher::Addresses(AddressOf::Destination, values)) => {
                list(values, |network| vec![Key::Network(*network)])
            }
            (Self::TokenIssuer, Matcher::RequestPrincipals(values)) => {
                list(values, |value| vec![Key::Text(value.issuer.clone())])
            }
            (Self::TokenSubject, Matcher::RequestPrincipals(values)) => {
                list(values, |value| vec![Key::Text(value.subject.clone())])
            }
            (Self::Metadata(wanted), Matcher::Metadata(path, values)) if wanted == path => list(values, |value| {
                let (MetadataValue::Text(text) | MetadataValue::InList(text) | MetadataValue::TextOrInList(text)) =
                    value;
                vec![Key::Text(text.clone())]
            }),
            _ => None,
        }
    }

    /// Calls `visit` with each group that a request can match.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    pub(super) fn visit<A: RequestAttributes, V>(
        &self,
        groups: &Groups<V>,
        request: &Request<A>,
        visit: &mut dyn FnMut(&V),
    ) -> Result<(), HostFailure> {
        let mut text = |text: &[u8]| groups.visit_text(text, visit);
        match self {
            Self::Path => request.paths()?.for_each(|path| groups.visit_path(path, visit)),
            Self::Host => request.hosts()?.for_each(text),
            Self::Method => request.method()?.into_iter().for_each(text),
            Self::ServerName => request.server_name()?.into_iter().for_each(text),
            Self::Port => {
                let mut digits = itoa::Buffer::new();
                request.port()?.into_iter().for_each(|port| text(digits.format(port).as_bytes()));
            }
            Self::Source | Self::Remote | Self::Destination => {
                let address = request.address(self.address())?;
                address.into_iter().for_each(|address| groups.visit_address(address, visit));
            }
            Self::Header(name) => request.headers()?.lines(name).for_each(|line| {
                text(line);
                members(line).for_each(&mut text);
            }),
            Self::TokenIssuer => token_text(request.metadata()?, "iss")?.into_iter().for_each(text),
            Self::TokenSubject => token_text(request.metadata()?, "sub")?.into_iter().for_each(text),
            Self::Metadata(path) => {
                let value = request.metadata()?.get(path).map_err(|_| HostFailure)?;
                match value {
                    Some(Value::String(found)) => text(found),
                    Some(Value::List(items)) => items.iter().for_each(|item| {
                        if let Value::String(found) = item {
                            text(found);
                        }
                    }),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    const fn address(&self) -> AddressOf {
        match self {
            Self::Remote => AddressOf::Remote,
            Self::Destination => AddressOf::Destination,
            _ => AddressOf::Source,
        }
    }
}

/// Returns the keys of each positive value, or `None` if there are only negated ones.
fn list<M>(values: &Values<M>, keys: impl Fn(&M) -> Vec<Key>) -> Option<Vec<Vec<Key>>> {
    (!values.any_of.is_empty()).then(|| values.any_of.iter().map(keys).collect())
}

/// Returns the keys of which every matching path has each.
fn of_template(template: &PathTemplate) -> Vec<Key> {
    let mut keys: Vec<Key> =
        template.literals().map(|(position, literal)| Key::Segment(position, literal.into())).collect();
    if let Some(tail) = template.tail().filter(|tail| !tail.is_empty()) {
        keys.push(Key::Text(Text::Suffix(tail.into())));
    }
    if keys.is_empty() {
        keys.push(Key::Text(Text::Present));
    }
    keys
}
