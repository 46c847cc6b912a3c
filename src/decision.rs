//! What was decided, and why.

use crate::peer::IdentityReason;

/// Everything that comes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'p> {
    /// The decision that is acted on.
    pub decision: Decision<'p>,
    /// What the decision would be if the shadow policies were enforced; `None` where there are none.
    pub shadow: Option<Decision<'p>>,
    /// The first AUDIT rule that matches.
    pub audit: Option<RuleName<'p>>,
}

impl Outcome<'_> {
    /// A denial that no policy was asked for.
    pub(crate) const fn denied(reason: DenyReason) -> Self {
        Self { decision: Decision { verdict: Verdict::Deny(reason), rule: None }, shadow: None, audit: None }
    }

    /// What comes of the same request where no policy is acted on: what the policies deny passes, and is the shadow
    /// verdict. Who has no identity that counts is denied all the same.
    #[must_use]
    pub fn in_shadow(self) -> Self {
        match self.decision.verdict {
            Verdict::Deny(
                DenyReason::Identity(_)
                | DenyReason::NotConfigured
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

/// A verdict and the rule that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'p> {
    /// Whether the request passes.
    pub verdict: Verdict,
    /// The rule that decided, if one did.
    pub rule: Option<RuleName<'p>>,
}

/// Whether a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It does not.
    Deny(DenyReason),
}

impl Verdict {
    /// The word for it in metrics, logs and filter state.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
        }
    }

    /// Why, if it is a denial.
    #[must_use]
    pub const fn reason(self) -> Option<DenyReason> {
        match self {
            Self::Allow => None,
            Self::Deny(reason) => Some(reason),
        }
    }
}

/// A rule, by the name of its policy and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleName<'p> {
    /// `<namespace>/<name>`, or the bare name of a policy without namespace.
    pub policy: &'p str,
    /// The policy's place in the document.
    pub policy_id: u32,
    /// The rule's place in its policy, from 0.
    pub position: u32,
}

/// Why a request was denied. Closed, so that whoever shows reasons must handle a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The caller has no identity that counts.
    Identity(IdentityReason),
    /// Envoy did not tell what the policies ask of the request.
    RequestUnreadable,
    /// A DENY policy matches.
    DeniedByPolicy,
    /// There are ALLOW policies and none of them matches.
    NoPolicyAllows,
    /// The filter has no configuration to decide by.
    NotConfigured,
    /// The filter itself has failed.
    FilterFailed,
    /// The host does not report the time, so that no SVID is known to be valid.
    ClockUnavailable,
}

impl DenyReason {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        IdentityReason::all().map(Self::Identity).chain([
            Self::RequestUnreadable,
            Self::DeniedByPolicy,
            Self::NoPolicyAllows,
            Self::NotConfigured,
            Self::FilterFailed,
            Self::ClockUnavailable,
        ])
    }

    /// Returns `true` if the connection should be closed with the denial, because a new connection may be allowed: a client that
    /// has rotated its SVID presents the new one there.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        match self {
            Self::Identity(reason) => reason.ends_with_the_connection(),
            _ => false,
        }
    }

    /// The stable name of this reason in metrics, logs, response-code details and the command's output.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Identity(reason) => reason.slug(),
            Self::RequestUnreadable => "request-unreadable",
            Self::DeniedByPolicy => "denied-by-policy",
            Self::NoPolicyAllows => "no-policy-allows",
            Self::NotConfigured => "not-configured",
            Self::FilterFailed => "filter-failed",
            Self::ClockUnavailable => "clock-unavailable",
        }
    }
}
