//! Policy sets: compiled documents, immutable and indexed.
//!
//! A policy set has policies, and a policy has rules. [`PolicySet::subject`] finds the rules that can match an identity, once per
//! caller. [`PolicySet::decide`] then decides each request of the caller without allocating.

mod action;
#[cfg(feature = "analysis")]
pub mod analysis;
mod compile;
mod decide;
mod explanation;
pub mod field;
mod index;
mod layer;
mod node;
mod path_template;
mod route;
mod rule;
mod values;
mod workload;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::{PolicyId, RuleName};
use crate::diagnostic::Diagnostic;
use crate::identity::IdentitySettings;
use crate::outputs::OutputSettings;
use crate::timestamp::Timestamp;
use index::Index;
use rule::{Policy, Rule, RuleId};

pub use action::{Action, Mode};
pub use decide::Subject;
pub use explanation::{Explanation, MatcherTrace, PolicyTrace, RuleTrace};
pub use layer::Layer;
pub use node::Node;
pub use route::RoutePolicy;
pub(crate) use rule::JWT_PAYLOAD;
pub(crate) use values::is_token_byte;
pub use workload::{GATEWAY_NAME, Proxy, Workload};

/// A compiled configuration document.
#[derive(Debug)]
pub struct PolicySet {
    id: PolicySetId,
    identity: IdentitySettings,
    outputs: OutputSettings,
    /// Whether the policies of the workload are in another document.
    is_delegated: bool,
    policies: Box<[Policy]>,
    rules: Box<[Rule]>,
    stages: Stages,
    /// The moments at which a policy begins or ceases to apply, in ascending order.
    boundaries: Box<[Timestamp]>,
}

/// The number of a policy set, which is unique in the process. A policy set that was compiled later has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicySetId(u64);

impl PolicySetId {
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    fn next() -> Self {
        static COMPILED: AtomicU64 = AtomicU64::new(0);
        Self(COMPILED.fetch_add(1, Ordering::Relaxed))
    }
}

/// The rules, by the action and the mode of their policies.
#[derive(Debug)]
struct Stages {
    deny: Index,
    allow: Index,
    audit: Index,
    shadow_deny: Index,
    shadow_allow: Index,
    has_allow: bool,
    has_shadow_allow: bool,
    has_shadow: bool,
}

impl Stages {
    fn new(policies: &[Policy], rules: &[Rule]) -> Self {
        let stage = |action, mode| {
            let mut of_stage = RuleId::of_all(rules).filter(|(_, rule)| {
                let of_stage = |policy: &Policy| policy.action == action && policy.mode == mode;
                !rule.left_out && policies.get(rule.policy.index()).is_some_and(of_stage)
            });
            Index::new(&mut of_stage)
        };
        let has = |mode| policies.iter().any(|policy| policy.action == Action::Allow && policy.mode == mode);
        Self {
            deny: stage(Action::Deny, Mode::Enforce),
            allow: stage(Action::Allow, Mode::Enforce),
            audit: stage(Action::Audit, Mode::Enforce),
            shadow_deny: stage(Action::Deny, Mode::Shadow),
            shadow_allow: stage(Action::Allow, Mode::Shadow),
            has_allow: has(Mode::Enforce),
            has_shadow_allow: has(Mode::Shadow),
            has_shadow: policies.iter().any(|policy| policy.mode == Mode::Shadow),
        }
    }
}

impl PolicySet {
    /// Compiles a document in JSON. If it has `scope`, it must name the workload.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        Self::from_json_for(text, Proxy::Unknown)
    }

    /// Compiles a document in JSON for a proxy.
    ///
    /// # Errors
    /// Returns every error in the document, also those in policies of other workloads.
    pub fn from_json_for(text: &[u8], proxy: Proxy<'_>) -> Result<Self, Vec<Diagnostic>> {
        compile::compile_json(text, proxy)
    }

    /// Compiles a document that was parsed from another format, for a proxy.
    ///
    /// # Errors
    /// Returns every error in the document, also those in policies of other workloads.
    pub fn from_node(root: &Node, proxy: Proxy<'_>) -> Result<Self, Vec<Diagnostic>> {
        compile::compile(root, proxy)
    }

    fn new(identity: IdentitySettings, outputs: OutputSettings, policies: Box<[Policy]>, rules: Box<[Rule]>) -> Self {
        let mut boundaries: Vec<_> = policies.iter().flat_map(|policy| policy.period.boundaries()).collect();
        boundaries.sort_unstable();
        boundaries.dedup();
        let stages = Stages::new(&policies, &rules);
        let (id, boundaries) = (PolicySetId::next(), boundaries.into());
        Self { id, identity, outputs, is_delegated: false, policies, rules, stages, boundaries }
    }

    /// Converts a policy set, which is compiled for HTTP, to the one that applies on this layer.
    #[must_use]
    pub fn on(self, layer: Layer) -> Self {
        if layer == Layer::Http {
            return self;
        }
        let rules: Box<[Rule]> = self
            .rules
            .into_iter()
            .map(|rule| match self.policies.get(rule.policy.index()) {
                Some(policy) => rule.on_tcp(policy.action),
                None => rule,
            })
            .collect();
        Self { stages: Stages::new(&self.policies, &rules), rules, ..self }
    }

    /// The number of the policy set.
    #[must_use]
    pub const fn id(&self) -> PolicySetId {
        self.id
    }

    /// Returns `true` if the policies of the workload are in the document of another filter, which decides before this one. A
    /// policy set without policies allows every accepted caller. This one denies every request, so the host must ask for the
    /// decision of the other filter first.
    #[must_use]
    pub const fn is_delegated(&self) -> bool {
        self.is_delegated
    }

    /// The number of policies.
    #[must_use]
    pub const fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// The position of each policy in the document, in ascending order. In a document with `scope`, policies of other workloads
    /// are missing.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.policies.iter().map(|policy| policy.position)
    }

    /// The settings that decide which identities are accepted.
    #[must_use]
    pub const fn identity(&self) -> &IdentitySettings {
        &self.identity
    }

    /// The settings of the outputs.
    #[must_use]
    pub const fn outputs(&self) -> OutputSettings {
        self.outputs
    }

    /// Returns `true` if a policy begins or ceases to apply at some moment, so that decisions depend on the time.
    #[must_use]
    pub const fn depends_on_time(&self) -> bool {
        !self.boundaries.is_empty()
    }

    /// Returns `true` if a rule matches this field.
    #[must_use]
    pub fn reads(&self, field: field::Field) -> bool {
        self.rules.iter().any(|rule| rule.matchers().any(|matcher| matcher.field() == field))
    }

    /// The next moment after `now` at which a policy begins or ceases to apply.
    #[must_use]
    pub(crate) fn next_boundary(&self, now: Timestamp) -> Timestamp {
        let passed = self.boundaries.partition_point(|boundary| *boundary <= now);
        self.boundaries.get(passed).copied().unwrap_or(Timestamp::NEVER)
    }

    /// Returns each policy, by its name, with its action and mode.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (RuleName<'_>, Action, Mode)> {
        self.policies.iter().enumerate().map(|(index, policy)| {
            let policy_id = PolicyId::of_index(index);
            (RuleName { policy: &policy.full_name, policy_id, position: 0 }, policy.action, policy.mode)
        })
    }

    /// The modes that have a verdict.
    pub(crate) fn modes(&self) -> impl Iterator<Item = Mode> + use<> {
        [Mode::Enforce].into_iter().chain(self.stages.has_shadow.then_some(Mode::Shadow))
    }

    /// Returns `true` if the policy of a rule applies at this moment. Otherwise the rule matches nothing, but the policy exists:
    /// after the only ALLOW policy has expired, requests are still denied.
    fn applies(&self, rule: &Rule, now: Timestamp) -> bool {
        self.policy(rule).is_some_and(|policy| policy.period.contains(now))
    }

    fn policy(&self, rule: &Rule) -> Option<&Policy> {
        self.policies.get(rule.policy.index())
    }

    fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id.index())
    }

    fn rule_name(&self, id: RuleId) -> Option<RuleName<'_>> {
        let rule = self.rule(id)?;
        let policy = self.policy(rule)?;
        Some(RuleName { policy: &policy.full_name, policy_id: rule.policy, position: rule.position })
    }
}

#[cfg(test)]
mod tests;
