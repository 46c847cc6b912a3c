//! The requests that policy sets distinguish, and the regions in which each rule matches.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::super::action::{Action, Mode};
use super::super::rule::{Matcher, Rule, RuleId};
use super::super::{JWT_PAYLOAD, PolicySet};
use super::attribute::{self, Acceptance, Attribute, Classes, Value};
use super::cube::{Budget, Cube};
use super::set::Set;
use super::{Answer, NotDecided};
use crate::case::{CaseRequest, Lines};
use crate::decision::{DenyReason, Verdict};
use crate::identity::{Identity, IdentitySettings, IdentitySource, xfcc};
use crate::request::Request;
use crate::spiffe_id::SpiffeId;
use crate::timestamp::Timestamp;

/// The position of the caller among the attributes.
pub(super) const CALLER: usize = 0;

/// The requests that policy sets distinguish, as products of classes of attributes.
pub(super) struct Space<'p> {
    pub(super) sides: Vec<Side<'p>>,
    /// The attributes, each with its classes.
    pub(super) attributes: Vec<(Attribute, Classes)>,
    /// The number of classes of each attribute.
    pub(super) sizes: Vec<usize>,
    now: Timestamp,
    /// The proxy that forwards the callers, if their identity is in its header.
    proxy: Option<Box<str>>,
    /// The matchers of each attribute with their settings, and the classes that they match.
    #[cfg(test)]
    pub(super) matched: Vec<Vec<(usize, &'p Matcher, Rc<Set>)>>,
    #[cfg(test)]
    pub(super) settings: Vec<&'p IdentitySettings>,
}

/// A policy set in a space.
pub(super) struct Side<'p> {
    pub(super) policies: &'p PolicySet,
    /// The callers whose identity is accepted, or who are anonymous and reach the policies.
    pub(super) accepted: Rc<Set>,
    rejected: Vec<(DenyReason, Rc<Set>)>,
    /// The identity of each class of callers.
    pub(super) identities: Rc<Acceptance>,
    /// The enforced rules that apply, in the order of the document.
    pub(super) deny: Vec<RuleRegion>,
    pub(super) allow: Vec<RuleRegion>,
    pub(super) has_allow: bool,
}

/// A part of the requests that a rule matches: one of its sources with one of its operations.
pub(super) struct RuleRegion {
    pub(super) rule: RuleId,
    pub(super) cube: Cube,
}

/// A verdict and the rule that it is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Found {
    pub(super) verdict: Verdict,
    pub(super) rule: Option<RuleId>,
}

/// The values that a question fixes.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) values: Vec<(Attribute, Value)>,
    pub(super) claims: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Given {
    fn of(&self, attribute: &Attribute) -> Option<Value> {
        match attribute {
            Attribute::Metadata(paths) => {
                self.claims.as_ref().and_then(|claims| attribute::given_claims(paths, claims))
            }
            attribute => self.values.iter().find(|(given, _)| given == attribute).map(|(_, value)| value.clone()),
        }
    }
}

/// Returns the rules that affect verdicts at this moment: those of enforced ALLOW and DENY policies.
pub(super) fn active_rules(policies: &PolicySet, now: Timestamp) -> impl Iterator<Item = (RuleId, &Rule, Action)> {
    RuleId::of_all(&policies.rules).filter_map(move |(id, rule)| {
        let policy = policies.policy(rule)?;
        let is_active = policy.mode == Mode::Enforce
            && policy.action != Action::Audit
            && policy.period.contains(now)
            && !rule.left_out;
        is_active.then_some((id, rule, policy.action))
    })
}

/// The matchers of an attribute without repetition, each with the number of the settings for the caller.
#[derive(Default)]
struct Matchers<'p> {
    matchers: Vec<(usize, &'p Matcher)>,
    numbers: FxHashMap<(usize, &'p Matcher), usize>,
}

impl<'p> Space<'p> {
    /// Creates the space of policy sets, for requests with these values.
    ///
    /// # Errors
    /// Returns [`NotDecided`] if the classes of an attribute are not decided.
    pub(super) fn new(sides: &[&'p PolicySet], given: &Given, now: Timestamp) -> Result<Self, NotDecided> {
        let mut settings: Vec<&'p IdentitySettings> = Vec::new();
        let settings_of: Vec<usize> = sides
            .iter()
            .map(|policies| {
                let own = policies.identity();
                settings.iter().position(|other| accepts_alike(other, own)).unwrap_or_else(|| {
                    settings.push(own);
                    settings.len() - 1
                })
            })
            .collect();
        let proxy = proxy(sides)?;
        let rules: Vec<Vec<(RuleId, &Rule, Action)>> =
            sides.iter().map(|policies| active_rules(policies, now).collect()).collect();
        let components = attribute::components(rules.iter().flatten().flat_map(|(_, rule, _)| rule.matchers()));
        let mut attributes: Vec<Attribute> = vec![Attribute::Caller];
        let mut positions: FxHashMap<Attribute, usize> = FxHashMap::from_iter([(Attribute::Caller, CALLER)]);
        let mut matchers: Vec<Matchers<'p>> = vec![Matchers::default()];
        // Method and path are always shown.
        for attribute in
            [Attribute::Method, Attribute::Path].into_iter().chain(given.values.iter().map(|(given, _)| given.clone()))
        {
            if !positions.contains_key(&attribute) {
                positions.insert(attribute.clone(), attributes.len());
                attributes.push(attribute);
                matchers.push(Matchers::default());
            }
        }
        for (rules, settings) in rules.iter().zip(&settings_of) {
            for matcher in rules.iter().flat_map(|(_, rule, _)| rule.matchers()) {
                let Some(attribute) = attribute::attribute_of(matcher, &components)? else { continue };
                let position = *positions.entry(attribute.clone()).or_insert_with(|| {
                    attributes.push(attribute);
                    matchers.push(Matchers::default());
                    attributes.len() - 1
                });
                let of = if position == CALLER { *settings } else { 0 };
                let Matchers { matchers, numbers } = &mut matchers[position];
                numbers.entry((of, matcher)).or_insert_with(|| {
                    matchers.push((of, matcher));
                    matchers.len() - 1
                });
            }
        }
        let mut classes: Vec<Classes> = Vec::new();
        for (attribute, Matchers { matchers, .. }) in attributes.iter().zip(&matchers) {
            classes.push(match given.of(attribute) {
                Some(value) => Classes::given(value),
                None if *attribute == Attribute::Caller => attribute::callers(matchers, &settings)?,
                None => {
                    let matchers: Vec<&Matcher> = matchers.iter().map(|(_, matcher)| *matcher).collect();
                    attribute::classes(attribute, &matchers)?
                }
            });
        }
        let identities: Vec<Rc<Acceptance>> =
            settings.iter().map(|settings| Rc::new(Acceptance::new(&classes[CALLER], settings))).collect();
        let sets: Vec<Vec<Rc<Set>>> = attributes
            .iter()
            .zip(&classes)
            .zip(&matchers)
            .map(|((attribute, classes), Matchers { matchers, .. })| {
                matched(attribute, classes, matchers, &identities, now)
            })
            .collect();
        let region_of = |rule: &'p Rule, settings: usize| {
            Ok::<_, NotDecided>(regions(rule, attributes.len(), &|matcher| {
                let Ok(Some(attribute)) = attribute::attribute_of(matcher, &components) else { return None };
                let position = positions[&attribute];
                let of = if position == CALLER { settings } else { 0 };
                Some((position, Rc::clone(&sets[position][matchers[position].numbers[&(of, matcher)]])))
            }))
        };
        let mut found = Vec::new();
        for ((policies, settings), rules) in sides.iter().zip(&settings_of).zip(rules) {
            let (mut deny, mut allow) = (Vec::new(), Vec::new());
            for (id, rule, action) in rules {
                let stage = if action == Action::Deny { &mut deny } else { &mut allow };
                stage.extend(region_of(rule, *settings)?.into_iter().map(|cube| RuleRegion { rule: id, cube }));
            }
            found.push(side(policies, Rc::clone(&identities[*settings]), deny, allow));
        }
        let sizes = classes.iter().map(|classes| classes.classes.len()).collect();
        #[cfg(test)]
        let matched = matchers
            .into_iter()
            .zip(sets)
            .map(|(Matchers { matchers, .. }, sets)| {
                matchers.into_iter().zip(sets).map(|((settings, matcher), set)| (settings, matcher, set)).collect()
            })
            .collect();
        Ok(Self {
            sides: found,
            attributes: attributes.into_iter().zip(classes).collect(),
            sizes,
            now,
            proxy,
            #[cfg(test)]
            matched,
            #[cfg(test)]
            settings,
        })
    }

    /// The limits on the values that are considered.
    pub(super) fn limits(&self) -> Vec<String> {
        self.attributes.iter().filter_map(|(_, classes)| classes.limit.clone()).collect()
    }

    /// The limits on the values that matter in a region: of attributes that it or a rule with requests in it depends on.
    pub(super) fn limits_of(&self, region: &Cube) -> Vec<String> {
        let rules = self.sides.iter().flat_map(|side| side.deny.iter().chain(&side.allow));
        let rules: Vec<&Cube> = rules.map(|rule| &rule.cube).filter(|cube| cube.intersects(region)).collect();
        let matters = |attribute: usize| {
            region.get(attribute).is_some() || rules.iter().any(|cube| cube.get(attribute).is_some())
        };
        let attributes = self.attributes.iter().enumerate().filter(|(attribute, _)| matters(*attribute));
        attributes.filter_map(|(_, (_, classes))| classes.limit.clone()).collect()
    }

    /// Returns the parts of a region by their verdict and rule on a side. The parts do not overlap.
    pub(super) fn decide(
        &self,
        side: usize,
        region: &Cube,
        budget: &mut Budget,
    ) -> Result<Vec<(Cube, Found)>, NotDecided> {
        let side = &self.sides[side];
        let mut found = Vec::new();
        for (reason, callers) in &side.rejected {
            if let Some(part) = region.within(CALLER, callers) {
                found.push((part, Found { verdict: Verdict::Deny(*reason), rule: None }));
            }
        }
        let mut rest: Vec<Cube> = region.within(CALLER, &side.accepted).into_iter().collect();
        for (stage, verdict) in [(&side.deny, Verdict::Deny(DenyReason::DeniedByPolicy)), (&side.allow, Verdict::Allow)]
        {
            for RuleRegion { rule, cube } in stage {
                if rest.is_empty() {
                    break;
                }
                budget.spend(rest.len())?;
                if !rest.iter().any(|part| part.intersects(cube)) {
                    continue;
                }
                let mut next = Vec::with_capacity(rest.len());
                for part in &rest {
                    if let Some(both) = part.and(cube) {
                        found.push((both, Found { verdict, rule: Some(*rule) }));
                    }
                    part.without(cube, &self.sizes, &mut next, budget)?;
                }
                rest = next;
            }
        }
        let verdict = if side.has_allow { Verdict::Deny(DenyReason::NoPolicyAllows) } else { Verdict::Allow };
        found.extend(rest.into_iter().map(|part| (part, Found { verdict, rule: None })));
        Ok(found)
    }

    /// Returns a request of a region. The region must not be empty.
    pub(super) fn witness(&self, region: &Cube) -> CaseRequest {
        let mut request = CaseRequest::default();
        for (position, (attribute, classes)) in self.attributes.iter().enumerate() {
            let class = region.get(position).and_then(|set| set.first()).unwrap_or_default();
            classes.classes[class].value.apply(attribute, &mut request);
        }
        self.complete(&mut request);
        request
    }

    /// Makes a request one that the sides can decide: with the header that identifies its caller, and with its time.
    fn complete(&self, request: &mut CaseRequest) {
        let [filter, payload] = JWT_PAYLOAD;
        if let Some(serde_json::Value::Object(of_filter)) = request.metadata.get_mut(filter)
            && let Some(claims) = request.claims.take()
        {
            of_filter.insert(payload.to_owned(), claims.into());
        }
        if self.sides.iter().any(|side| side.policies.depends_on_time()) {
            request.time = Some(self.now);
        }
        if let Some(proxy) = &self.proxy
            && let Some(caller) = request.peer.replace(proxy.to_string())
        {
            request.headers.insert(xfcc::HEADER.to_owned(), Lines::One(format!("URI={caller}")));
        }
    }

    /// Decides a request with the engine of the filter, which must find the same as the space.
    ///
    /// # Errors
    /// Returns [`NotDecided::Bug`] if it does not.
    pub(super) fn check(&self, side: usize, request: &CaseRequest, found: Found) -> Result<Answer, NotDecided> {
        let policies = self.sides[side].policies;
        let decision = request.decide(policies, self.now).decision;
        let expected = found.rule.and_then(|rule| policies.rule_name(rule));
        if decision.verdict != found.verdict || decision.rule != expected {
            return Err(NotDecided::Bug(Box::new(request.clone())));
        }
        let rule = expected.map(|name| (name.policy.to_owned(), name.position));
        Ok(Answer { verdict: decision.verdict, rule })
    }

    /// Decides a request with the engine of the filter, which must find this verdict with any rule.
    ///
    /// # Errors
    /// Returns [`NotDecided::Bug`] if it does not.
    pub(super) fn check_verdict(
        &self,
        side: usize,
        request: &CaseRequest,
        verdict: Verdict,
    ) -> Result<Answer, NotDecided> {
        let decision = request.decide(self.sides[side].policies, self.now).decision;
        if decision.verdict != verdict {
            return Err(NotDecided::Bug(Box::new(request.clone())));
        }
        let rule = decision.rule.map(|name| (name.policy.to_owned(), name.position));
        Ok(Answer { verdict, rule })
    }
}

/// Returns a proxy whose header every policy set reads, or `None` if none of them reads a header.
fn proxy(sides: &[&PolicySet]) -> Result<Option<Box<str>>, NotDecided> {
    let trusted: Vec<&[Box<str>]> = sides
        .iter()
        .filter_map(|policies| match &policies.identity().source {
            IdentitySource::Xfcc { trusted_proxies, .. } => Some(&**trusted_proxies),
            IdentitySource::Tls { .. } | IdentitySource::PeerPrincipal => None,
        })
        .collect();
    let Some(first) = trusted.first() else { return Ok(None) };
    let is_trusted = |proxy: &str| {
        let is_revoked = |policies: &&PolicySet| {
            SpiffeId::parse(proxy.as_bytes()).is_ok_and(|id| policies.identity().revoked.has_id(id))
        };
        trusted.len() == sides.len()
            && trusted.iter().all(|proxies| proxies.iter().any(|other| **other == *proxy))
            && !sides.iter().any(is_revoked)
    };
    first.iter().find(|proxy| is_trusted(proxy)).cloned().map(Some).ok_or(NotDecided::Sources)
}

/// Returns `true` if two settings accept the same callers for the same reasons.
fn accepts_alike(one: &IdentitySettings, other: &IdentitySettings) -> bool {
    // The lifetime of an SVID and its validation are not visible in a request.
    let IdentitySettings { trust_domains, pattern, source, peer, lifetime: _, revoked } = one;
    trust_domains == &other.trust_domains
        && pattern == &other.pattern
        && std::mem::discriminant(source) == std::mem::discriminant(&other.source)
        && peer == &other.peer
        && revoked == &other.revoked
}

/// Returns the classes that each matcher of an attribute matches, by the code of the filter.
fn matched(
    attribute: &Attribute,
    classes: &Classes,
    matchers: &[(usize, &Matcher)],
    identities: &[Rc<Acceptance>],
    now: Timestamp,
) -> Vec<Rc<Set>> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); matchers.len()];
    let plain: Vec<&Matcher> = matchers.iter().map(|(_, matcher)| *matcher).collect();
    for (class, candidates) in classes.candidates(&plain).enumerate() {
        let mut request = CaseRequest::default();
        if *attribute != Attribute::Caller {
            classes.classes[class].value.apply(attribute, &mut request);
        }
        let request = Request::new(&request, now);
        for number in candidates {
            let (settings, matcher) = matchers[number];
            let is_matched = match &identities[settings].0[if *attribute == Attribute::Caller { class } else { 0 }] {
                Identity::Rejected(_) if *attribute == Attribute::Caller => false,
                identity => matcher.matches(identity.peer(), &request) == Ok(true),
            };
            if is_matched {
                members[number].push(class);
            }
        }
    }
    members.into_iter().map(|members| Rc::new(members.into_iter().collect())).collect()
}

/// Returns the regions that a rule matches, one for each pair of a source and an operation.
fn regions(rule: &Rule, attributes: usize, set_of: &impl Fn(&Matcher) -> Option<(usize, Rc<Set>)>) -> Vec<Cube> {
    let narrowed = |cube: &Cube, matchers: &[Matcher]| {
        matchers.iter().filter_map(set_of).try_fold(cube.clone(), |cube, (attribute, set)| cube.within(attribute, &set))
    };
    let alternatives = |cubes: Vec<Cube>, selectors: &[Box<[Matcher]>]| -> Vec<Cube> {
        if selectors.is_empty() {
            return cubes;
        }
        cubes.iter().flat_map(|cube| selectors.iter().filter_map(move |selector| narrowed(cube, selector))).collect()
    };
    let cubes: Vec<Cube> = narrowed(&Cube::all(attributes), &rule.conditions).into_iter().collect();
    let cubes = alternatives(cubes, &rule.sources);
    alternatives(cubes, &rule.operations)
}

fn side(policies: &PolicySet, identities: Rc<Acceptance>, deny: Vec<RuleRegion>, allow: Vec<RuleRegion>) -> Side<'_> {
    let mut rejected: Vec<(DenyReason, Vec<usize>)> = Vec::new();
    let mut accepted = Vec::new();
    for (class, identity) in identities.0.iter().enumerate() {
        match identity.rejection().map(DenyReason::Identity) {
            None => accepted.push(class),
            Some(reason) => match rejected.iter_mut().find(|(found, _)| *found == reason) {
                Some((_, classes)) => classes.push(class),
                None => rejected.push((reason, vec![class])),
            },
        }
    }
    let set = |classes: Vec<usize>| Rc::new(classes.into_iter().collect::<Set>());
    Side {
        policies,
        accepted: set(accepted),
        rejected: rejected.into_iter().map(|(reason, classes)| (reason, set(classes))).collect(),
        identities,
        deny,
        allow,
        has_allow: policies.stages.has_allow,
    }
}
