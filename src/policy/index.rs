//! An index that finds the rules that can match.
//!
//! Rules are indexed by their fields about the peer, which is looked up once per caller. If many rules have the same result,
//! they are split by the attribute of the request that leaves the fewest of them. An index only excludes rules that cannot
//! match. The rules that it returns are evaluated completely.

mod affixes;
mod groups;
mod split;

use rustc_hash::FxHashMap;

use super::rule::{Matcher, Rule, RuleId};
use crate::host::{HostFailure, RequestAttributes};
use crate::identity::Peer;
use crate::request::Request;
use affixes::Affixes;
use groups::Groups;
use split::{Partition, Split};

/// The minimum number of rules that are split by another attribute.
const MANY: usize = 8;
/// The maximum number of attributes that split a set of rules, which bounds the copies of a rule with several values.
const MAX_SPLITS: usize = 4;

/// The rules of one stage, by the peer.
#[derive(Debug)]
pub(crate) struct Index {
    principals: Affixes,
    /// By `<namespace>/<service account>`.
    service_accounts: FxHashMap<Box<str>, usize>,
    namespaces: FxHashMap<Box<str>, usize>,
    trust_domains: Affixes,
    sets: Box<[RuleSet]>,
}

/// The set of rules without a field about the peer that can be looked up.
const ANYONE: usize = 0;

impl Index {
    pub(crate) fn new(rules: &mut dyn Iterator<Item = (RuleId, &Rule)>) -> Self {
        let mut filing = Filing { sets: vec![Vec::new()], ..Filing::default() };
        for (id, rule) in rules {
            let by_source = !rule.sources.is_empty() && rule.sources.iter().all(|source| can_be_looked_up(source));
            if by_source {
                rule.sources.iter().for_each(|source| filing.file(source, id, rule));
            } else {
                filing.file(&rule.conditions, id, rule);
            }
        }
        Self {
            principals: filing.principals,
            service_accounts: filing.service_accounts,
            namespaces: filing.namespaces,
            trust_domains: filing.trust_domains,
            sets: filing.sets.into_iter().map(|rules| RuleSet::new(&rules, MAX_SPLITS)).collect(),
        }
    }

    /// Returns the sets of rules that can match `peer`.
    pub(crate) fn candidates(&self, peer: Option<&Peer>) -> Box<[usize]> {
        let mut sets = vec![ANYONE];
        if let Some(peer) = peer {
            self.principals.visit(peer.principal().as_bytes(), &mut |set| sets.push(set));
            self.trust_domains.visit(peer.trust_domain().as_bytes(), &mut |set| sets.push(set));
            if let Some(namespace) = peer.namespace() {
                sets.extend(self.namespaces.get(namespace));
                if let Some(name) = peer.service_account().filter(|_| !self.service_accounts.is_empty()) {
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
        matches: &mut dyn FnMut(RuleId) -> Result<bool, HostFailure>,
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
    principals: Affixes,
    service_accounts: FxHashMap<Box<str>, usize>,
    namespaces: FxHashMap<Box<str>, usize>,
    trust_domains: Affixes,
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

    /// Adds a rule under the most selective of these fields, all of which must match.
    fn file(&mut self, fields: &[Matcher], id: RuleId, rule: &'r Rule) {
        let best = fields.iter().filter(|field| field.selectivity() > 0).max_by_key(|field| field.selectivity());
        let all = &mut self.sets;
        // Returns the set that `entry` finds, or creates it if `entry` returns the number of a new one.
        let mut set_of = |entry: &mut dyn FnMut(usize) -> Option<usize>| {
            let new = all.len();
            let set = entry(new).unwrap_or(ANYONE);
            if set == new {
                all.push(Vec::new());
            }
            set
        };
        let sets: Vec<usize> = match best {
            Some(Matcher::Principals(values)) => {
                values.any_of.iter().map(|text| set_of(&mut |new| self.principals.entry(text, new))).collect()
            }
            Some(Matcher::TrustDomains(values)) => {
                values.any_of.iter().map(|text| set_of(&mut |new| self.trust_domains.entry(text, new))).collect()
            }
            Some(Matcher::ServiceAccounts(values)) => values
                .any_of
                .iter()
                .map(|account| {
                    let key = format!("{}/{}", account.namespace, account.name);
                    let accounts = &mut self.service_accounts;
                    set_of(&mut |new| Some(*accounts.entry(key.as_str().into()).or_insert(new)))
                })
                .collect(),
            Some(Matcher::Namespaces(values)) => values
                .any_of
                .iter()
                .map(|namespace| match namespace.name.exact() {
                    Some(name) => set_of(&mut |new| Some(*self.namespaces.entry(name.into()).or_insert(new))),
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

fn can_be_looked_up(fields: &[Matcher]) -> bool {
    fields.iter().any(|field| field.selectivity() > 0)
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
    groups: Groups<RuleSet>,
    /// The rules without a value of the attribute that can be looked up.
    rest: RuleSet,
}

impl RuleSet {
    /// Splits the rules up to this number of times.
    fn new(rules: &[(RuleId, &Rule)], depth: usize) -> Self {
        let partition = (rules.len() >= MANY && depth > 0).then(|| split::partition(rules)).flatten();
        let Some(Partition { by, groups, rest }) = partition else {
            return Self::Few(rules.iter().map(|(id, _)| *id).collect());
        };
        let depth = depth.saturating_sub(1);
        let groups = groups.map(|group| Self::new(&group, depth));
        Self::Many(Box::new(SplitRules { by, groups, rest: Self::new(&rest, depth) }))
    }

    const fn is_empty(&self) -> bool {
        matches!(self, Self::Few(rules) if rules.is_empty())
    }

    /// Stores the first matching rule of this set in `search`, if it comes before the one there.
    fn search<A: RequestAttributes>(
        &self,
        search: &mut Search,
        matches: &mut dyn FnMut(RuleId) -> Result<bool, HostFailure>,
        request: &Request<A>,
    ) {
        match self {
            Self::Few(rules) => search.evaluate(rules, matches),
            Self::Many(split) => {
                let visited =
                    split.by.visit(&split.groups, request, &mut |group| group.search(search, matches, request));
                if visited.is_err() {
                    // Every rule decides for itself whether it needs the attribute.
                    split.groups.iter().for_each(|group| group.search_all(search, matches));
                }
                split.rest.search(search, matches, request);
            }
        }
    }

    /// Evaluates every rule of this set.
    fn search_all(&self, search: &mut Search, matches: &mut dyn FnMut(RuleId) -> Result<bool, HostFailure>) {
        match self {
            Self::Few(rules) => search.evaluate(rules, matches),
            Self::Many(split) => {
                split.groups.iter().for_each(|group| group.search_all(search, matches));
                split.rest.search_all(search, matches);
            }
        }
    }
}

impl Search {
    /// Evaluates rules, in the order of the document, up to the first one that matches.
    fn evaluate(&mut self, rules: &[RuleId], matches: &mut dyn FnMut(RuleId) -> Result<bool, HostFailure>) {
        for &id in rules {
            if self.first.is_some_and(|first| first <= id) {
                break;
            }
            match matches(id) {
                Ok(true) => {
                    self.first = Some(id);
                    break;
                }
                Ok(false) => {}
                Err(failure) => self.failure = Some(failure),
            }
        }
    }
}
