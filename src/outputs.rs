//! The settings of the outputs: how decisions and callers are shown, and what is counted.

use crate::slugs;

/// The field `outputs` of a document. The defaults cost the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputSettings {
    /// The form of a decision in access logs and for later filters.
    pub decision: DecisionForm,
    /// The time for which the caller stays shown.
    pub caller: CallerSpan,
    /// The detail of the counters.
    pub counters: CounterDetail,
}

slugs! {
    /// The form of a decision in access logs and for later filters.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum DecisionForm {
        #[default]
        Summary = "summary", "One value, such as `allow default/sleep-reads 0`.";
        Facts = "facts", "A value for each fact, such as the policy.";
        Both = "both", "The summary, and each fact.";
    }
}

slugs! {
    /// The time for which the caller stays shown.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum CallerSpan {
        #[default]
        Connection = "connection", "Once for each connection.";
        Request = "request", "For each request.";
        Never = "none", "Not at all.";
    }
}

slugs! {
    /// The detail of the counters.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum CounterDetail {
        #[default]
        Verdict = "verdict", "Allowed requests have one counter. Everything else is counted by reason and policy.";
        Policy = "policy", "Allowed requests are counted by policy, too.";
    }
}

impl DecisionForm {
    /// Returns `true` if there is a summary.
    pub(crate) const fn has_summary(self) -> bool {
        matches!(self, Self::Summary | Self::Both)
    }

    /// Returns `true` if each fact is shown.
    pub(crate) const fn has_facts(self) -> bool {
        matches!(self, Self::Facts | Self::Both)
    }
}
