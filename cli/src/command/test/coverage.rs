//! The rules that a case matches.

use spiffe_authz::policy::{Explanation, Node};

use crate::document::Document;

/// The rules of a document, and whether a case matches them.
pub(super) struct Coverage {
    /// The policy, the position of the rule, and whether a case matches it.
    rules: Vec<(String, usize, bool)>,
}

impl Coverage {
    /// Returns the rules of a document, none of them matched yet.
    pub(super) fn of(document: &Document) -> Self {
        let policies = document.root.field("policies").map_or(&[][..], Node::items);
        let rules = policies.iter().flat_map(|policy| {
            let text = |name| policy.field(name).and_then(Node::text);
            let name = text("name").unwrap_or_default();
            let full = text("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
            let count = policy.field("rules").map_or(0, |rules| rules.items().len());
            (0..count).map(move |position| (full.clone(), position, false))
        });
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
