//! The action and the mode of a policy.

/// The effect of a policy on the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The request is allowed, unless a DENY policy matches it.
    Allow,
    /// The request is denied.
    Deny,
    /// The request is counted and logged.
    Audit,
}

/// Whether the verdict of a policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The verdict is enforced.
    Enforce,
    /// The verdict is only counted and logged.
    Shadow,
}

impl Action {
    /// The name in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
        }
    }
}

impl Mode {
    /// The stable name in documents, metrics and logs.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}
