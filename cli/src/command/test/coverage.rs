//! The rules that a case matches.

use spiffe_authz::policy::Explanation;

use crate::document::Document;

/// The rules of a document, and whether a case matches them.
pub(super) struct Coverage {
    /// The policy, the position of the rule, and whether a case matches it.
    rules: Vec<(String, usize, bool)>,
}

impl Coverage {
    /// Returns the rules of a document, none of them matched yet.
    pub(super) fn of(document: &Document) -> Self {
        let rules = document
            .policies()
            .flat_map(|(policy, count)| (0..count).map(move |position| (policy.clone(), position, false)));
        Self { rules: rules.collect() }
    }

    /// Adds the rules that a case matches.
    pub(super) fn add(&mut self, explanation: &Explanation<'_>) {
        let matched = explanation.policies.iter().flat_map(|policy| policy.rules.iter().map(|rule| rule.matched));
        for ((_, _, covered), matched) in self.rules.iter_mut().zip(matched) {
            *covered |= matched;
        }
    }

    /// Returns the part of the rules that cases match, in percent; 100 for a document without rules.
    pub(super) fn percent(&self) -> u32 {
        let covered = self.rules.iter().filter(|(_, _, covered)| *covered).count();
        covered
            .saturating_mul(100)
            .checked_div(self.rules.len())
            .map_or(100, |percent| u32::try_from(percent).unwrap_or(100))
    }

    /// Returns the rules that no case matches: the policy, and the position of the rule.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&str, usize)> {
        self.rules.iter().filter(|(_, _, covered)| !covered).map(|(policy, rule, _)| (&**policy, *rule))
    }
}
