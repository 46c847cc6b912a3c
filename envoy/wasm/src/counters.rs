//! Counters by mode, verdict, reason and policy.
//!
//! Names end with the policy, which may hold dots; the stats tags of a bootstrap take them apart.

use rustc_hash::FxHashMap;
use spiffe_authz::decision::{Decision, RuleName, Verdict};
use spiffe_authz::policy::Mode;

use crate::host;

/// The counters that were needed so far; one is defined when it first counts.
#[derive(Default)]
pub(crate) struct Counters {
    ids: FxHashMap<Key, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    mode: Mode,
    /// `None` counts an AUDIT match.
    verdict: Option<Verdict>,
    policy: Option<u32>,
}

impl Counters {
    pub(crate) fn decision(&mut self, mode: Mode, decision: &Decision<'_>) {
        self.count(mode, Some(decision.verdict), decision.rule);
    }

    pub(crate) fn audit(&mut self, rule: RuleName<'_>) {
        self.count(Mode::Enforce, None, Some(rule));
    }

    fn count(&mut self, mode: Mode, verdict: Option<Verdict>, rule: Option<RuleName<'_>>) {
        let key = Key { mode, verdict, policy: rule.map(|rule| rule.policy_id) };
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                let verdict_slug = verdict.map_or("audit", Verdict::slug);
                let reason = verdict.and_then(Verdict::reason).map_or("none", |reason| reason.slug());
                let policy = rule.map_or("none", |rule| rule.policy);
                let mode = mode.slug();
                let name = format!(
                    "spiffe_authz.decisions.mode.{mode}.verdict.{verdict_slug}.reason.{reason}.policy.{policy}"
                );
                let Ok(id) = host::counter(&name) else { return };
                self.ids.insert(key, id);
                id
            }
        };
        host::increment(id);
    }
}
