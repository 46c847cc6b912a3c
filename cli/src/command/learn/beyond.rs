//! The requests that a generalization allows and that were not seen.

use std::collections::BTreeSet;
use std::io;

use spiffe_authz::case::CaseRequest;
use spiffe_authz::decision::Verdict;
use spiffe_authz::policy::PolicySet;
use spiffe_authz::policy::analysis::{self, Change, ChangeKind};
use spiffe_authz::timestamp::Timestamp;

use super::policies::{Generalization, Operation, Policy, policy};
use super::settings::Settings;
use crate::answer;

/// The maximum number of paths of a caller and method that the analysis compares with a template.
const MAX_SEEN: usize = 200;
/// The maximum number of all paths that it compares with a template.
const MAX_PATHS: usize = 2000;

/// The policies to which a generalization is compared.
pub(super) struct Compared<'p> {
    pub(super) settings: &'p Settings,
    /// The policies without generalizations.
    pub(super) exact: &'p PolicySet,
    /// The policies with all generalizations.
    pub(super) learned: &'p PolicySet,
    pub(super) now: Timestamp,
}

impl Compared<'_> {
    /// Returns the requests that a template allows beyond the paths from which it was made.
    ///
    /// # Errors
    /// Returns an error if the difference is not decided, or if the filter decides an example differently.
    pub(super) fn granted(&self, of: &Policy<'_>, generalization: &Generalization<'_>) -> io::Result<Vec<Change>> {
        let Generalization { template, excluded, host, port, seen } = generalization;
        let limit = MAX_SEEN.min(MAX_PATHS / seen.len().max(1)).max(1);
        let operation = |methods, paths, excluded: &BTreeSet<_>| Operation {
            methods,
            paths,
            excluded: excluded.clone(),
            hosts: host.iter().copied().collect(),
            ports: port.iter().copied().collect(),
        };
        let mut known: Vec<(&str, Operation<'_>)> = seen
            .iter()
            .map(|((caller, method), paths)| {
                let paths = paths.iter().take(limit).map(|&path| path.to_owned()).collect();
                (*caller, operation(BTreeSet::from([*method]), paths, &BTreeSet::new()))
            })
            .collect();
        let callers: Vec<&str> = generalization.callers().into_iter().collect();
        let general = [operation(generalization.methods(), BTreeSet::from([template.clone()]), excluded)];
        let new = self.settings.compile(&[policy(&of.name, &[(&callers, &general)])])?;
        loop {
            let rules: Vec<(&[&str], &[Operation<'_>])> = known
                .iter()
                .map(|(caller, operation)| (std::slice::from_ref(caller), std::slice::from_ref(operation)))
                .collect();
            let old = self.settings.compile(&[policy(&of.name, &rules)])?;
            let place = format!("{}: {template}", of.name);
            let difference =
                analysis::diff(&old, &new, self.now).map_err(|reason| answer::not_decided(&place, &reason))?;
            let granted: Vec<Change> =
                difference.changes.into_iter().filter(|change| change.kind == ChangeKind::Granted).collect();
            // Only some of the paths are compared, so an example can be one of the others.
            let added = granted.iter().filter(|change| self.is_seen(&change.witness)).fold(0, |added, change| {
                added
                    + known
                        .iter_mut()
                        .map(|(_, known)| usize::from(known.paths.insert(change.witness.path.clone())))
                        .sum::<usize>()
            });
            if added > 0 {
                continue;
            }
            for Change { witness, .. } in &granted {
                if self.is_seen(witness) || witness.decide(self.learned, self.now).decision.verdict != Verdict::Allow {
                    let request = answer::request(witness, spiffe_authz::policy::Layer::Http);
                    return Err(super::bug(&format!("the example {request} of {place} is wrong")));
                }
            }
            return Ok(granted);
        }
    }

    fn is_seen(&self, witness: &CaseRequest) -> bool {
        witness.decide(self.exact, self.now).decision.verdict == Verdict::Allow
    }
}
