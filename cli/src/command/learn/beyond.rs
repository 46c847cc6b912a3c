//! The requests that a generalization allows and that were not seen.

use std::collections::BTreeSet;
use std::io;
use std::slice;

use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::Verdict;
use spiffe_authz::identity::Peer;
use spiffe_authz::policy::analysis::{self, Change, ChangeKind};
use spiffe_authz::policy::{Layer, PolicySet};
use spiffe_authz::timestamp::Timestamp;

use super::policies::{Generalization, Operation, Policy, learn, policy};
use super::seen::Seen;
use super::settings::Settings;
use crate::answer;

/// The maximum number of paths with a method that the analysis compares with a template.
const MAX_SEEN: usize = 200;
/// The maximum number of comparisons, after each of which examples that were seen are added to the paths.
const MAX_ROUNDS: usize = 50;

/// A generalization with its policy, and the requests that it allows beyond those that were seen.
pub(super) struct Generalized<'r> {
    pub(super) policy: &'r Policy<'r>,
    pub(super) generalization: &'r Generalization<'r>,
    pub(super) granted: Vec<Change>,
}

/// Returns the generalizations of all policies.
///
/// # Errors
/// Returns an error if a difference is not decided, or if the filter decides an example differently.
pub(super) fn all<'r>(
    settings: &Settings,
    learned: &'r [Policy<'r>],
    requests: &[Seen<'_>],
    policies: &PolicySet,
    now: Timestamp,
) -> io::Result<Vec<Generalized<'r>>> {
    if learned.iter().all(|policy| policy.generalizations.is_empty()) {
        return Ok(Vec::new());
    }
    let exact = learn(requests, &[], None);
    let exact = settings.compile(&exact.iter().map(Policy::to_located).collect::<Vec<_>>())?;
    let compared = Compared { settings, exact: &exact, learned: policies, now };
    let all = learned.iter().flat_map(|policy| policy.generalizations.iter().map(move |found| (policy, found)));
    all.map(|(policy, generalization)| {
        Ok(Generalized { policy, generalization, granted: compared.granted(policy, generalization)? })
    })
    .collect()
}

/// The policies to which a generalization is compared.
struct Compared<'p> {
    settings: &'p Settings,
    /// The policies without generalizations.
    exact: &'p PolicySet,
    /// The policies with all generalizations.
    learned: &'p PolicySet,
    now: Timestamp,
}

impl Compared<'_> {
    /// Returns the requests that a template allows beyond the paths from which it was made.
    ///
    /// # Errors
    /// Returns an error if the difference is not decided, or if the filter decides an example differently.
    fn granted(&self, of: &Policy<'_>, generalization: &Generalization<'_>) -> io::Result<Vec<Change>> {
        let Generalization { template, excluded, host, port, seen } = generalization;
        let place = format!("{}: {template}", of.name);
        let operation = |methods, paths, excluded: &BTreeSet<_>| Operation {
            methods,
            paths,
            excluded: excluded.clone(),
            hosts: host.iter().copied().collect(),
            ports: port.iter().copied().collect(),
        };
        let exact = |method, paths| operation(BTreeSet::from([method]), paths, &BTreeSet::new());
        let callers: Vec<&str> = generalization.callers().into_iter().collect();
        let mut known: Vec<(Vec<&str>, Operation<'_>)> = generalization
            .methods()
            .into_iter()
            .map(|method| (callers.clone(), exact(method, generalization.shared(method, MAX_SEEN))))
            .filter(|(_, operation)| !operation.paths.is_empty())
            .collect();
        let general = [operation(generalization.methods(), BTreeSet::from([template.clone()]), excluded)];
        let new = self.settings.compile(&[policy(&of.name, &[(&callers, &general)])])?;
        for _ in 0..MAX_ROUNDS {
            let rules: Vec<(&[&str], &[Operation<'_>])> =
                known.iter().map(|(callers, operation)| (&**callers, slice::from_ref(operation))).collect();
            let old = self.settings.compile(&[policy(&of.name, &rules)])?;
            let difference =
                analysis::diff(&old, &new, self.now).map_err(|reason| answer::not_decided(&place, &reason))?;
            let is_granted = |change: &Change| change.kind == ChangeKind::Granted;
            let granted: Vec<Change> = difference.changes.into_iter().filter(is_granted).collect();
            let mut is_complete = true;
            for Change { witness, .. } in &granted {
                // The difference has only paths that all callers share, so an example can be one of the others.
                if self.allows(self.exact, witness) {
                    let identity = witness.identity(self.exact.identity());
                    let caller = identity.peer().map(Peer::principal);
                    let found = seen.keys().find(|(own, method)| Some(*own) == caller && *method == witness.method);
                    let (caller, method) = found.ok_or_else(|| wrong(witness, &place))?;
                    known.push((vec![caller], exact(method, BTreeSet::from([witness.path.clone()]))));
                    is_complete = false;
                } else if !self.allows(self.learned, witness) {
                    return Err(wrong(witness, &place));
                }
            }
            if is_complete {
                return Ok(granted);
            }
        }
        Err(io::Error::other(format!("{place}: not decided: each example was seen")))
    }

    /// Returns `true` if policies allow a request.
    fn allows(&self, policies: &PolicySet, witness: &CaseRequest) -> bool {
        witness.decide(policies, self.now).decision.verdict == Verdict::Allow
    }
}

fn wrong(witness: &CaseRequest, place: &str) -> io::Error {
    super::bug(&format!("the example {} of {place} is wrong", answer::request(witness, Layer::Http)))
}
