//! The requests that two policy sets decide differently.

use std::mem;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::PolicySet;
use super::super::action::Action;
use super::super::rule::{Matcher, RuleId};
use super::cube::{Budget, Cube};
use super::minimal::minimal;
use super::pattern::{Requests, Vocabularies};
use super::space::{CALLER, Found, Given, Side, Space, active_rules};
use super::{Answer, NotDecided, STEPS};
use crate::case::CaseRequest;
use crate::decision::Verdict;
use crate::identity::{IdentitySettings, IdentitySource};
use crate::timestamp::Timestamp;

/// The differences between two policy sets.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The changes. Each request whose verdict or reason changes is in one of them.
    pub changes: Vec<Change>,
    /// The limits on the values that were considered. Without limits, the list of changes is complete.
    pub limits: Vec<String>,
    /// The fields of the documents that differ and that no request shows.
    pub unseen: Vec<&'static str>,
}

/// Requests that two policy sets decide differently, and for the same reasons.
#[derive(Debug, Clone)]
pub struct Change {
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The requests.
    pub requests: Requests,
    /// One of them.
    pub witness: CaseRequest,
    /// The verdict of the old policy set.
    pub old: Answer,
    /// The verdict of the new policy set.
    pub new: Answer,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// The old policy set denies the requests, and the new one allows them.
    Granted,
    /// The old policy set allows the requests, and the new one denies them.
    Revoked,
    /// Both policy sets deny the requests, for different reasons.
    Reason,
}

impl ChangeKind {
    /// All kinds, in the order of the output.
    pub const ALL: [Self; 3] = [Self::Granted, Self::Revoked, Self::Reason];

    /// The stable name.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Revoked => "revoked",
            Self::Reason => "reason",
        }
    }

    pub(super) fn of(old: Verdict, new: Verdict) -> Option<Self> {
        match (old, new) {
            (Verdict::Allow, Verdict::Allow) => None,
            (Verdict::Allow, Verdict::Deny(_)) => Some(Self::Revoked),
            (Verdict::Deny(_), Verdict::Allow) => Some(Self::Granted),
            (Verdict::Deny(old), Verdict::Deny(new)) => (old != new).then_some(Self::Reason),
        }
    }
}

/// Returns the requests that two policy sets decide differently at a moment.
///
/// # Errors
/// Returns [`NotDecided`] if the answer is not known.
pub fn diff(old: &PolicySet, new: &PolicySet, now: Timestamp) -> Result<Difference, NotDecided> {
    let space = Space::new(&[old, new], &Given::default(), now)?;
    let mut budget = Budget::new(STEPS);
    let candidates = candidates(&space, now);
    let regions = differences(&space, &candidates, &mut budget)?;
    let vocabularies = Vocabularies::new(&space);
    let mut changes = Vec::new();
    for (old, new, kind, cubes) in regions {
        for cube in minimal(cubes, &space.sizes, &mut budget)? {
            let witness = space.witness(&cube);
            changes.push(Change {
                kind,
                requests: vocabularies.describe(&space, &cube),
                old: space.check(0, &witness, old)?,
                new: space.check(1, &witness, new)?,
                witness,
            });
        }
    }
    changes.sort_by_key(|change| change.kind);
    let mut limits: Vec<String> = candidates.iter().flat_map(|region| space.limits_of(region)).collect();
    limits.sort_unstable();
    limits.dedup();
    Ok(Difference { changes, limits, unseen: unseen(old.identity(), new.identity()) })
}

/// Returns the fields that differ between two documents, and that depend on the certificate or the connection of a caller.
fn unseen(old: &IdentitySettings, new: &IdentitySettings) -> Vec<&'static str> {
    let proxies = |settings: &IdentitySettings| match &settings.source {
        IdentitySource::Xfcc { trusted_proxies, .. } => trusted_proxies.clone(),
        IdentitySource::Tls { .. } | IdentitySource::PeerPrincipal => Box::default(),
    };
    let differ = [
        ("identity.from", mem::discriminant(&old.source) != mem::discriminant(&new.source)),
        ("identity.trustedProxies", proxies(old) != proxies(new)),
        ("identity.requireValidated", old.source.requires_validated() != new.source.requires_validated()),
        ("identity.expired", old.lifetime.expired != new.lifetime.expired),
        ("identity.maxAge", old.lifetime.max_age != new.lifetime.max_age),
        ("identity.revoked.serialNumbers", old.revoked.serial_numbers != new.revoked.serial_numbers),
        ("identity.revoked.authorityKeyIds", old.revoked.authority_key_ids != new.revoked.authority_key_ids),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Requests with the same verdicts and rules in both policy sets.
type Group = (Found, Found, ChangeKind, Vec<Cube>);

/// Returns the regions that two policy sets decide differently, within some regions.
pub(super) fn differences(
    space: &Space<'_>,
    candidates: &[Cube],
    budget: &mut Budget,
) -> Result<Vec<Group>, NotDecided> {
    let mut groups: Vec<Group> = Vec::new();
    let mut positions: FxHashMap<(Found, Found), usize> = FxHashMap::default();
    for region in candidates {
        for (part, old) in space.decide(0, region, budget)? {
            for (part, new) in space.decide(1, &part, budget)? {
                let Some(kind) = ChangeKind::of(old.verdict, new.verdict) else { continue };
                let position = *positions.entry((old, new)).or_insert_with(|| {
                    groups.push((old, new, kind, Vec::new()));
                    groups.len() - 1
                });
                groups[position].3.push(part);
            }
        }
    }
    Ok(groups)
}

/// Returns the regions outside which both policy sets decide alike: there, the same rules match in both.
pub(super) fn candidates(space: &Space<'_>, now: Timestamp) -> Vec<Cube> {
    let [old, new] = &*space.sides else { return Vec::new() };
    let all = Cube::all(space.sizes.len());
    if old.has_allow != new.has_allow {
        return vec![all];
    }
    let differ = (0..space.sizes[CALLER]).filter(|class| old.identities.0[*class] != new.identities.0[*class]);
    let differ = Rc::new(differ.collect());
    let mut regions: Vec<Cube> = all.within(CALLER, &differ).into_iter().collect();
    let [only_old, only_new] = changed(old.policies, new.policies, now);
    regions.extend(regions_of(old, &only_old));
    regions.extend(regions_of(new, &only_new));
    let mut seen = FxHashSet::default();
    regions.retain(|region| seen.insert(region.clone()));
    regions
}

fn regions_of<'s>(side: &'s Side<'_>, rules: &'s FxHashSet<RuleId>) -> impl Iterator<Item = Cube> + 's {
    let regions = side.deny.iter().chain(&side.allow);
    regions.filter(|region| rules.contains(&region.rule)).map(|region| region.cube.clone())
}

/// The content of a rule, without its place in the document.
type Content<'p> = (Action, &'p [Box<[Matcher]>], &'p [Box<[Matcher]>], &'p [Matcher]);

/// Returns the rules of each policy set that the other one does not have.
fn changed(old: &PolicySet, new: &PolicySet, now: Timestamp) -> [FxHashSet<RuleId>; 2] {
    let mut unmatched: FxHashMap<Content<'_>, Vec<RuleId>> = FxHashMap::default();
    for (id, rule, action) in active_rules(old, now) {
        unmatched.entry((action, &rule.sources, &rule.operations, &rule.conditions)).or_default().push(id);
    }
    let only_new = active_rules(new, now).filter_map(|(id, rule, action)| {
        let same = unmatched.get_mut(&(action, &*rule.sources, &*rule.operations, &*rule.conditions));
        same.and_then(Vec::pop).is_none().then_some(id)
    });
    let only_new = only_new.collect();
    [unmatched.into_values().flatten().collect(), only_new]
}
