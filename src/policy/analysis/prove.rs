//! Whether statements about all requests hold.

use super::super::PolicySet;
use super::super::action::Action;
use super::cube::Budget;
use super::pattern::{Requests, Vocabularies};
use super::space::{CALLER, Given, Space, active_rules};
use super::{Answer, NotDecided, STEPS};
use crate::case::CaseRequest;
use crate::decision::Verdict;
use crate::timestamp::Timestamp;

/// Whether a statement holds.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The name of the policy with the statement.
    pub name: String,
    /// A request that breaks the statement, or `None` if no request does.
    pub counterexample: Option<Counterexample>,
    /// The limits on the values that were considered. With a limit, a statement without a counterexample is not decided.
    pub limits: Vec<String>,
}

/// A request for which a statement does not hold.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// The request.
    pub witness: CaseRequest,
    /// The verdict on it.
    pub answer: Answer,
    /// Similar requests.
    pub requests: Requests,
}

/// Checks the statements in the enforced policies of `statements`, which must have the identity settings of the policy set: the
/// policy set denies each request that a DENY policy matches, and allows each one that an ALLOW policy matches.
///
/// # Errors
/// Returns [`NotDecided`] if an answer is not known.
pub fn prove(policies: &PolicySet, statements: &PolicySet, now: Timestamp) -> Result<Vec<Statement>, NotDecided> {
    let space = Space::new(&[policies, statements], &Given::default(), now)?;
    let vocabularies = Vocabularies::new(&space);
    let mut results: Vec<Statement> = statements
        .policies()
        .map(|(name, _, _)| Statement { name: name.policy.to_owned(), counterexample: None, limits: Vec::new() })
        .collect();
    let actions: rustc_hash::FxHashMap<_, _> =
        active_rules(statements, now).map(|(id, rule, action)| (id, (rule.policy.index(), action))).collect();
    let mut is_reached = vec![false; results.len()];
    let side = &space.sides[1];
    for region in side.deny.iter().chain(&side.allow) {
        let Some((policy, action)) = actions.get(&region.rule) else { continue };
        if results[*policy].counterexample.is_some() {
            continue;
        }
        let mut budget = Budget::new(STEPS);
        let Some(reached) = region.cube.within(CALLER, &space.sides[0].accepted) else { continue };
        is_reached[*policy] = true;
        let wrong = |verdict: Verdict| (verdict == Verdict::Allow) == (*action == Action::Deny);
        let parts = space.decide(0, &reached, &mut budget)?;
        if let Some((part, found)) = parts.into_iter().find(|(_, found)| wrong(found.verdict)) {
            let witness = space.witness(&part);
            let answer = space.check(0, &witness, found)?;
            let requests = vocabularies.describe(&space, &part);
            results[*policy].counterexample = Some(Counterexample { witness, answer, requests });
            results[*policy].limits.clear();
        } else {
            let limits = space.limits_of(&reached);
            let limits: Vec<String> =
                limits.into_iter().filter(|limit| !results[*policy].limits.contains(limit)).collect();
            results[*policy].limits.extend(limits);
        }
    }
    // A statement about nothing is probably a mistake if it demands that requests are allowed.
    for ((_, action, _), (result, is_reached)) in statements.policies().zip(results.iter_mut().zip(is_reached)) {
        if action == Action::Allow && !is_reached {
            result.limits.push("no request of an accepted caller matches the rule".to_owned());
        }
    }
    Ok(results)
}
