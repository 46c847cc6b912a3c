//! Counters by mode, verdict, reason and policy.
//!
//! Names end with the policy, which may hold dots; the stats tags of a bootstrap take them apart.

use rustc_hash::FxHashMap;
use spiffe_authz::decision::Verdict;
use spiffe_authz::policy::Mode;
use spiffe_authz::worker::Count;

use crate::host;

/// The counters that were needed so far; one is defined when it first counts.
#[derive(Default)]
pub(crate) struct Counters {
    ids: FxHashMap<Key, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    mode: Mode,
    verdict: Option<Verdict>,
    policy: Option<u32>,
}

impl Counters {
    pub(crate) fn count(&mut self, count: &Count<'_>) {
        let key = Key { mode: count.mode, verdict: count.verdict, policy: count.rule.map(|rule| rule.policy_id) };
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                let mut name = "spiffe_authz.decisions".to_owned();
                for (label, value) in Count::LABELS.iter().zip(count.values()) {
                    [".", label, ".", value].iter().for_each(|part| name.push_str(part));
                }
                let Ok(id) = host::counter(&name) else { return };
                self.ids.insert(key, id);
                id
            }
        };
        host::increment(id);
    }
}
