//! Decisions and their reasons.

use crate::identity::IdentityReason;
use crate::slugs;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'p> {
    /// The decision that is enforced.
    pub decision: Decision<'p>,
    /// The decision if the shadow policies were enforced, or `None` if there are none.
    pub shadow: Option<Decision<'p>>,
    /// The first AUDIT rule that matches.
    pub audit: Option<RuleName<'p>>,
}

impl Outcome<'_> {
    /// A denial without the evaluation of a policy.
    pub(crate) const fn denied(reason: DenyReason) -> Self {
        Self { decision: Decision { verdict: Verdict::Deny(reason), rule: None }, shadow: None, audit: None }
    }

    /// Returns the outcome of the same request in shadow mode: a denial by policies, including `request-unreadable`, becomes the
    /// shadow verdict, and the request is allowed. Other denials stay.
    #[must_use]
    pub fn in_shadow(self) -> Self {
        match self.decision.verdict {
            Verdict::Deny(
                DenyReason::Identity(_)
                | DenyReason::NotConfigured
                | DenyReason::DelegateMissing
                | DenyReason::FilterFailed
                | DenyReason::ClockUnavailable,
            ) => self,
            Verdict::Allow
            | Verdict::Deny(DenyReason::RequestUnreadable | DenyReason::DeniedByPolicy | DenyReason::NoPolicyAllows) => {
                let shadow = Some(self.shadow.unwrap_or(self.decision));
                Self { decision: Decision { verdict: Verdict::Allow, rule: None }, shadow, audit: self.audit }
            }
        }
    }
}

/// A verdict and the rule that it is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'p> {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule that matched, or `None` if the verdict is not based on a rule.
    pub rule: Option<RuleName<'p>>,
}

/// The verdict on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The request is allowed.
    Allow,
    /// The request is denied.
    Deny(DenyReason),
}

impl Verdict {
    /// The stable name in metrics, logs and filter state.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
        }
    }

    /// The reason for the denial, or `None` if the request is allowed.
    #[must_use]
    pub const fn reason(self) -> Option<DenyReason> {
        match self {
            Self::Allow => None,
            Self::Deny(reason) => Some(reason),
        }
    }
}

/// The number of a policy: its position in the policy set, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(u32);

impl PolicyId {
    /// Returns the number of the policy at an index.
    #[must_use]
    pub fn of_index(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The index of the policy in the policy set.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A rule, by its policy and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleName<'p> {
    /// The policy: `<namespace>/<name>`, or `<name>` for a policy without a namespace.
    pub policy: &'p str,
    /// The number of the policy.
    pub policy_id: PolicyId,
    /// The position of the rule in its policy, from 0.
    pub position: u32,
}

slugs! {
    /// The reason for a denial. The enum is closed, so that everything that handles reasons must handle a new one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum DenyReason {
        RequestUnreadable = "request-unreadable", "Envoy did not expose an attribute that a policy matches.";
        DeniedByPolicy = "denied-by-policy", "A DENY policy matches the request.";
        NoPolicyAllows = "no-policy-allows", "No ALLOW policy matches the request.";
        NotConfigured = "not-configured", "The filter has no configuration.";
        DelegateMissing = "delegate-missing",
            "The policies of the proxy's namespace are in another document, and no filter with it has decided the request.";
        FilterFailed = "filter-failed", "The filter failed.";
        ClockUnavailable = "clock-unavailable",
            "Envoy did not report the time, so the filter cannot check the dates of the SVID.";
        ..Identity(IdentityReason), "The caller has no accepted identity.";
    }
}

impl DenyReason {
    /// Returns `true` if the adapter closes the connection after the denial, because a new connection can be allowed: a client
    /// that has rotated its SVID presents the new one.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        match self {
            Self::Identity(reason) => reason.ends_with_the_connection(),
            _ => false,
        }
    }
}
