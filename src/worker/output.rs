//! The outputs of a decision: the names that operators see in filter state, dynamic metadata and metrics.

use crate::decision::{Decision, DenyReason, Outcome, PolicyId, RuleName, Verdict};
use crate::outputs::{CallerSpan, CounterDetail, DecisionForm};
use crate::policy::{Action, Layer, Mode, PolicySet};

/// The outputs of a host.
pub trait Outputs {
    /// Whether the facts about a caller are shown as long as filter state. Otherwise they are shown with each decision.
    const FACTS_ARE_STATE: bool;

    /// Returns `true` if filter state already shows this SPIFFE ID as the peer, from an earlier request of the connection.
    fn shows_peer(&self, spiffe_id: &str) -> bool;

    /// Sets the filter state of a fact.
    fn set_state(&mut self, fact: Fact, value: &str);

    /// Shows each fact on its own, to access logs and later filters.
    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)> + Clone);

    /// Increments the counter of allowed requests or connections.
    fn count_allowed(&mut self);

    /// Increments the counter of a decision.
    fn count(&mut self, count: &Count<'_>);

    /// Writes a line to the host's log.
    fn log(&mut self, line: &str);
}

/// The life of filter state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The request.
    Request,
    /// The connection.
    Connection,
}

impl Span {
    /// Returns the life of the filter state about the caller. A caller that a proxy forwards belongs to the request.
    #[must_use]
    pub fn of_caller(policies: &PolicySet) -> Self {
        match policies.outputs().caller {
            CallerSpan::Connection if policies.identity().source.is_of_connection() => Self::Connection,
            _ => Self::Request,
        }
    }
}

macro_rules! facts {
    ($($variant:ident $key:literal $summary:literal;)*) => {
        /// A fact about a caller or a decision.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fact {
            $(#[doc = $summary] $variant,)*
        }

        impl Fact {
            /// All facts.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The key in dynamic metadata.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$variant => $key,)* }
            }

            /// The name of the filter state. An HTTP filter and a network filter can share a connection, and the caller of a
            /// request is not always the peer of the connection, so each layer has its own names.
            #[must_use]
            pub const fn name(self, layer: Layer) -> &'static str {
                match layer {
                    Layer::Http => match self { $(Self::$variant => concat!("spiffe_authz_", $key),)* },
                    Layer::Tcp => match self { $(Self::$variant => concat!("spiffe_authz_connection_", $key),)* },
                }
            }
        }
    };
}

facts! {
    Peer "peer" "The SPIFFE ID of the caller.";
    TrustDomain "trust_domain" "The trust domain of the caller.";
    Namespace "namespace" "The namespace of the caller.";
    ServiceAccount "service_account" "The service account of the caller.";
    Decision "decision" "The summary of the decision: the verdict, the reason for a denial, the policy, and the position of the rule.";
    Verdict "verdict" "`allow` or `deny`.";
    Reason "reason" "The reason for the denial.";
    Policy "policy" "The policy that the verdict is based on.";
    Rule "rule" "The position of the rule in its policy, from 0.";
}

impl Fact {
    /// The facts about the caller, which are the same for all decisions on a connection.
    pub const OF_CALLER: [Self; 4] = [Self::Peer, Self::TrustDomain, Self::Namespace, Self::ServiceAccount];

    /// Returns a fact that every decision of this form shows.
    #[must_use]
    pub const fn of_every_decision(form: DecisionForm) -> Self {
        if form.has_summary() { Self::Decision } else { Self::Verdict }
    }
}

/// The counter of allowed requests or connections of the Wasm filter, to which Envoy adds the prefix `wasmcustom.`.
pub const WASM_ALLOWED_COUNTER: &str = "spiffe_authz.allowed";
/// The same of the dynamic module, to which Envoy adds the prefix `dynamicmodulescustom.`.
pub const MODULE_ALLOWED_COUNTER: &str = "spiffe_authz_allowed";
/// The counter of the Wasm filter, to which Envoy adds the prefix `wasmcustom.`.
pub const WASM_COUNTER: &str = "spiffe_authz.decisions";
/// The counter of the dynamic module, to which Envoy adds the prefix `dynamicmodulescustom.`.
pub const MODULE_COUNTER: &str = "spiffe_authz_decisions";

/// The value of a label that does not apply.
const NONE: &str = "none";

/// An event that is counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A verdict.
    Verdict(Verdict),
    /// A match of an AUDIT policy.
    Audit,
}

impl Event {
    /// The stable name in metrics and logs.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Verdict(verdict) => verdict.slug(),
            Self::Audit => "audit",
        }
    }

    /// The reason for a denial.
    const fn reason(self) -> Option<DenyReason> {
        match self {
            Self::Verdict(verdict) => verdict.reason(),
            Self::Audit => None,
        }
    }
}

/// An increment of a counter, with the values of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<'p> {
    /// Whether the verdict is enforced, or is the one of the shadow policies.
    pub mode: Mode,
    /// The event.
    pub event: Event,
    /// The rule that the verdict is based on, or that matched.
    pub rule: Option<RuleName<'p>>,
}

impl Decision<'_> {
    /// Returns the summary: the verdict, the reason for a denial, and the policy and the position of the rule, if a rule decided.
    /// For example: `deny denied-by-policy default/no-secrets 0`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut digits = itoa::Buffer::new();
        let reason = self.verdict.reason().map(|reason| [" ", reason.slug()]);
        let rule = self.rule.map(|rule| [" ", rule.policy, " ", digits.format(rule.position)]);
        let parts = || {
            let rest = reason.iter().flatten().chain(rule.iter().flatten()).copied();
            std::iter::once(self.verdict.slug()).chain(rest)
        };
        // One allocation: this runs for each request.
        let mut summary = String::with_capacity(parts().map(str::len).sum());
        summary.extend(parts());
        summary
    }
}

impl<'p> Outcome<'p> {
    /// Returns the counts of an outcome.
    pub fn counts(&self) -> impl Iterator<Item = Count<'p>> {
        let Self { decision, shadow, audit } = *self;
        let of = |mode, Decision { verdict, rule }| Count { mode, event: Event::Verdict(verdict), rule };
        let audit = audit.map(|rule| Count { mode: Mode::Enforce, event: Event::Audit, rule: Some(rule) });
        [Some(of(Mode::Enforce, decision)), shadow.map(|shadow| of(Mode::Shadow, shadow)), audit].into_iter().flatten()
    }
}

impl<'p> Count<'p> {
    /// Returns `true` for an enforced `allow`, which is the most frequent count.
    #[must_use]
    pub fn is_plain_allow(&self) -> bool {
        self.mode == Mode::Enforce && self.event == Event::Verdict(Verdict::Allow)
    }

    /// The names of the labels.
    pub const LABELS: [&'static str; 4] =
        ["spiffe_authz_mode", "spiffe_authz_verdict", "spiffe_authz_reason", "spiffe_authz_policy"];

    /// Returns every count without a policy that a policy set can produce. A host that does not count by policy counts everything
    /// with these.
    pub fn without_policies(policies: &'p PolicySet) -> impl Iterator<Item = Self> {
        let denials = DenyReason::all().map(Verdict::Deny);
        let events = denials.chain([Verdict::Allow]).map(Event::Verdict).chain([Event::Audit]);
        let counts = events.flat_map(|event| policies.modes().map(move |mode| Self { mode, event, rule: None }));
        counts.filter(|count| count.is_counted(policies))
    }

    /// Returns every count with a policy that a policy set can produce.
    pub fn by_policies(policies: &'p PolicySet) -> impl Iterator<Item = Self> {
        let counts = policies.policies().flat_map(|(rule, action, own)| {
            let event = match action {
                Action::Allow => Event::Verdict(Verdict::Allow),
                Action::Deny => Event::Verdict(Verdict::Deny(DenyReason::DeniedByPolicy)),
                Action::Audit => Event::Audit,
            };
            // The shadow verdict is based on enforced policies, too.
            let modes = policies.modes().filter(move |mode| own == Mode::Enforce || *mode == own);
            modes.map(move |mode| Self { mode, event, rule: Some(rule) })
        });
        counts.filter(|count| count.is_counted(policies))
    }

    /// Returns `false` if the counter of allowed requests has this count.
    fn is_counted(&self, policies: &PolicySet) -> bool {
        policies.outputs().counters == CounterDetail::Policy || !self.is_plain_allow()
    }

    /// Returns this count without its policy.
    #[must_use]
    pub const fn without_policy(self) -> Self {
        Self { rule: None, ..self }
    }

    /// Returns a key that is unique within a policy set.
    #[must_use]
    pub fn key(&self) -> CountKey {
        CountKey { mode: self.mode, event: self.event, policy: self.rule.map(|rule| rule.policy_id) }
    }

    /// The values of the labels.
    #[must_use]
    pub fn values(&self) -> [&'p str; 4] {
        let reason = self.event.reason().map_or(NONE, DenyReason::slug);
        [self.mode.slug(), self.event.slug(), reason, self.rule.map_or(NONE, |rule| rule.policy)]
    }

    /// The name of a counter for which Envoy has no labels: they precede the last part of `base`, which a dot separates.
    /// Stats tags split the name. Each label has the form for which Istio's bootstrap has the tags, with `extraStatTags`.
    ///
    /// Source: Istio, `tools/packaging/common/envoy_bootstrap.json`.
    #[must_use]
    pub fn name(&self, base: &str) -> String {
        let (space, counter) = base.rfind('.').map_or(("", base), |dot| base.split_at(dot + 1));
        let labels = Self::LABELS.iter().zip(self.values());
        labels.fold(space.to_owned(), |name, (label, value)| name + label + "=.=" + value + ";.;") + counter
    }
}

/// A key of a count that is unique within a policy set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountKey {
    mode: Mode,
    event: Event,
    policy: Option<PolicyId>,
}

#[cfg(test)]
mod tests;
