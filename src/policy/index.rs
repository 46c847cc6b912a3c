//! An index that finds the rules that can match.
//!
//! Rules are indexed by their fields about the peer, which is looked up once per caller. If many rules have the same result,
//! they are split by path, host and method. An index only excludes rules that cannot match. The rules that it returns are
//! evaluated completely.

use rustc_hash::FxHashMap;

use super::affixes::Affixes;
use super::rule::{Matcher, Rule};
use super::values::{Path, Text};
use crate::host::{HostFailure, RequestAttributes};
use crate::identity::Peer;
use crate::request::Request;

/// The number of a rule: its position in the document.
pub(crate) type RuleId = u32;

/// The minimum number of rules that are split by another attribute.
const MANY: usize = 8;

/// The rules of one stage, by the peer.
#[derive(Debug)]
pub(crate) struct Index {
    principals: Affixes<usize>,
    /// By `<namespace>/<service account>`.
    service_accounts: FxHashMap<Box<str>, usize>,
    namespaces: FxHashMap<Box<str>, usize>,
    trust_domains: Affixes<usize>,
    sets: Box<[RuleSet]>,
}

/// The set of rules without a field about the peer that can be looked up.
const ANYONE: usize = 0;

impl Index {
    pub(crate) fn new(rules: &mut dyn Iterator<Item = (RuleId, &Rule)>) -> Self {
        let mut filing = Filing { sets: vec![Vec::new()], ..Filing::default() };
        for (id, rule) in rules {
            if rule.sources.is_empty() {
                filing.put(ANYONE, id, rule);
            }
            for source in &rule.sources {
                filing.file(source, id, rule);
            }
        }
        Self {
            principals: filing.principals,
            service_accounts: filing.service_accounts,
            namespaces: filing.namespaces,
            trust_domains: filing.trust_domains,
            sets: filing.sets.into_iter().map(|rules| RuleSet::new(rules, &Split::ORDER)).collect(),
        }
    }

    /// Returns the sets of rules that can match `peer`.
    pub(crate) fn candidates(&self, peer: Option<&Peer>) -> Box<[usize]> {
        let mut sets = vec![ANYONE];
        if let Some(peer) = peer {
            self.principals.visit(peer.principal().as_bytes(), |set| sets.push(*set));
            self.trust_domains.visit(peer.trust_domain().as_bytes(), |set| sets.push(*set));
            if let Some(namespace) = peer.namespace() {
                sets.extend(self.namespaces.get(namespace));
                if let Some(name) = peer.service_account() {
                    sets.extend(self.service_accounts.get(&*format!("{namespace}/{name}")));
                }
            }
        }
        sets.retain(|set| self.sets.get(*set).is_some_and(|rules| !rules.is_empty()));
        sets.into()
    }

    /// Returns the first rule of the document, among the candidates, that matches.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if none matches and the host could not read an attribute.
    pub(crate) fn first_match<A: RequestAttributes>(
        &self,
        candidates: &[usize],
        matches: &mut impl FnMut(RuleId) -> Result<bool, HostFailure>,
        request: &Request<A>,
    ) -> Result<Option<RuleId>, HostFailure> {
        let mut search = Search { first: None, failure: None };
        for set in candidates.iter().filter_map(|set| self.sets.get(*set)) {
            set.search(&mut search, matches, request);
        }
        match search {
            Search { first: None, failure: Some(failure) } => Err(failure),
            Search { first, .. } => Ok(first),
        }
    }
}

/// The state of the search for the first match.
struct Search {
    first: Option<RuleId>,
    failure: Option<HostFailure>,
}

/// The index while it is built.
#[derive(Default)]
struct Filing<'r> {
    principals: Affixes<usize>,
    service_accounts: FxHashMap<Box<str>, usize>,
    namespaces: FxHashMap<Box<str>, usize>,
    trust_domains: Affixes<usize>,
    sets: Vec<Vec<(RuleId, &'r Rule)>>,
}

impl<'r> Filing<'r> {
    fn put(&mut self, set: usize, id: RuleId, rule: &'r Rule) {
        if let Some(set) = self.sets.get_mut(set)
            && set.last().is_none_or(|(last, _)| *last != id)
        {
            set.push((id, rule));
        }
    }

    /// Adds a rule under the most selective field of `source`.
    fn file(&mut self, source: &[Matcher], id: RuleId, rule: &'r Rule) {
        let best = source.iter().filter(|field| field.selectivity() > 0).max_by_key(|field| field.selectivity());
        let next = &mut self.sets;
        let mut fresh = || {
            next.push(Vec::new());
            next.len() - 1
        };
        let mut under =
            |affixes: &mut Affixes<usize>, text: &Text| affixes.entry(text, &mut fresh).map_or(ANYONE, |set| *set);
        let sets: Vec<usize> = match best {
            Some(Matcher::Principals(values)) => {
                values.any_of.iter().map(|text| under(&mut self.principals, text)).collect()
            }
            Some(Matcher::TrustDomains(values)) => {
                values.any_of.iter().map(|text| under(&mut self.trust_domains, text)).collect()
            }
            Some(Matcher::ServiceAccounts(values)) => values
                .any_of
                .iter()
                .map(|account| {
                    let key = format!("{}/{}", account.namespace, account.name).into();
                    *self.service_accounts.entry(key).or_insert_with(&mut fresh)
                })
                .collect(),
            Some(Matcher::Namespaces(values)) => values
                .any_of
                .iter()
                .map(|namespace| match namespace.name.exact() {
                    Some(name) => *self.namespaces.entry(name.into()).or_insert_with(&mut fresh),
                    None => ANYONE,
                })
                .collect(),
            // No field about the peer can be looked up.
            _ => vec![ANYONE],
        };
        for key in sets {
            self.put(key, id, rule);
        }
    }
}

impl Matcher {
    /// The selectivity of the field, or 0 if it has no positive value.
    fn selectivity(&self) -> u8 {
        match self {
            Self::Principals(values) if !values.any_of.is_empty() => 4,
            Self::ServiceAccounts(values) if !values.any_of.is_empty() => 3,
            Self::Namespaces(values) if !values.any_of.is_empty() => 2,
            Self::TrustDomains(values) if !values.any_of.is_empty() => 1,
            _ => 0,
        }
    }
}

/// Rules in the order of the document, which are split by an attribute of the request if there are many.
#[derive(Debug)]
enum RuleSet {
    Few(Box<[RuleId]>),
    Many(Box<SplitRules>),
}

#[derive(Debug)]
struct SplitRules {
    by: Split,
    groups: Affixes<RuleSet>,
    /// The rules without a value of the attribute that can be looked up.
    rest: RuleSet,
}

/// The attribute that splits a set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Path,
    Host,
    Method,
}

impl Split {
    const ORDER: [Self; 3] = [Self::Path, Self::Host, Self::Method];

    /// Calls `visit` with every reading of the attribute.
    fn visit<A: RequestAttributes>(self, request: &Request<A>, visit: impl FnMut(&[u8])) -> Result<(), HostFailure> {
        match self {
            Self::Path => request.paths()?.for_each(visit),
            Self::Host => request.hosts()?.for_each(visit),
            Self::Method => request.method()?.into_iter().for_each(visit),
        }
        Ok(())
    }

    /// The values that a matching request must have, or `None` if the rule must be evaluated for every request.
    fn keys(self, rule: &Rule) -> Option<Vec<Text>> {
        if rule.operations.is_empty() {
            return None;
        }
        let mut keys = Vec::new();
        for operation in &rule.operations {
            keys.extend(operation.iter().find_map(|field| self.field_keys(field))?);
        }
        (!keys.contains(&Text::Present)).then_some(keys)
    }

    fn field_keys(self, field: &Matcher) -> Option<Vec<Text>> {
        match (self, field) {
            (Self::Path, Matcher::Paths(values, _)) if !values.any_of.is_empty() => {
                Some(values.any_of.iter().map(Path::key).collect())
            }
            (Self::Host, Matcher::Hosts(values, _)) | (Self::Method, Matcher::Methods(values))
                if !values.any_of.is_empty() =>
            {
                Some(values.any_of.to_vec())
            }
            _ => None,
        }
    }
}

impl RuleSet {
    fn new(rules: Vec<(RuleId, &Rule)>, splits: &[Split]) -> Self {
        let Some((by, later)) = splits.split_first() else { return Self::few(&rules) };
        if rules.len() < MANY {
            return Self::few(&rules);
        }
        let mut groups = Affixes::<Vec<(RuleId, &Rule)>>::default();
        let mut rest = Vec::new();
        for (id, rule) in rules {
            match by.keys(rule) {
                None => rest.push((id, rule)),
                Some(keys) => {
                    for key in &keys {
                        if let Some(group) = groups.entry(key, Vec::new)
                            && group.last().is_none_or(|(last, _)| *last != id)
                        {
                            group.push((id, rule));
                        }
                    }
                }
            }
        }
        if groups.is_empty() {
            return Self::new(rest, later);
        }
        let groups = groups.map(|group| Self::new(group, later));
        Self::Many(Box::new(SplitRules { by: *by, groups, rest: Self::new(rest, later) }))
    }

    fn few(rules: &[(RuleId, &Rule)]) -> Self {
        Self::Few(rules.iter().map(|(id, _)| *id).collect())
    }

    const fn is_empty(&self) -> bool {
        matches!(self, Self::Few(rules) if rules.is_empty())
    }

    /// Stores the first matching rule of this set in `search`, if it comes before the one there.
    fn search<A: RequestAttributes>(
        &self,
        search: &mut Search,
        matches: &mut impl FnMut(RuleId) -> Result<bool, HostFailure>,
        request: &Request<A>,
    ) {
        match self {
            Self::Few(rules) => {
                for &id in rules {
                    if search.first.is_some_and(|first| first <= id) {
                        break;
                    }
                    match matches(id) {
                        Ok(true) => {
                            search.first = Some(id);
                            break;
                        }
                        Ok(false) => {}
                        Err(failure) => search.failure = Some(failure),
                    }
                }
            }
            Self::Many(split) => {
                let found = split.by.visit(request, |value| {
                    split.groups.visit(value, |group| group.search(search, matches, request));
                });
                if let Err(failure) = found {
                    search.failure = Some(failure);
                }
                split.rest.search(search, matches, request);
            }
        }
    }
}
