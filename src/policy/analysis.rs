//! Answers about all requests: how two policy sets differ, who can do something, and whether a statement holds.
//!
//! The values of policies divide each attribute of a request into finitely many classes, and a verdict depends on the classes only. A
//! region is a product of sets of classes, and each answer is a list of regions. DESIGN.md has the argument.
//!
//! The answers are about requests with one reading: a path without parameters, a host without user information and a trailing dot, and
//! headers with one line that is not a list, unless a policy spells another value. The filter allows a request with several readings
//! only if it allows each of them.
#![allow(
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "only tools use the module: a wrong index is a bug in a tool, and denies no request"
)]

mod attribute;
mod automaton;
mod cube;
mod diff;
mod language;
mod minimal;
mod pattern;
mod prove;
mod set;
mod space;
mod usage;
mod who;

use std::fmt;

use crate::case::CaseRequest;
use crate::decision::Verdict;

pub use diff::{Change, ChangeKind, Difference, diff};
pub use pattern::{Condition, Pattern, Requests};
pub use prove::{Counterexample, Statement, prove};
pub use usage::RuleInfo;
pub use who::{CallerKind, Permission, Permissions, Question, who};

/// The number of steps after which an answer is not decided: some seconds.
const STEPS: u64 = 100_000_000;

/// A verdict of the filter, with the rule that it is based on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The policy and the position of the rule in it, or `None` if the verdict is not based on a rule.
    pub rule: Option<(String, u32)>,
}

/// The reason why a question has no answer.
#[derive(Debug)]
pub enum NotDecided {
    /// The answer takes too many steps.
    Budget,
    /// Policies distinguish too many values of the attribute with this name.
    Attribute(String),
    /// A rule matches this header, which repeats a part of other attributes.
    Header(String),
    /// The policy sets have no source of the callers' identities in common, so that no request has the same caller in all.
    Sources,
    /// The filter decides this request differently from the answer.
    Bug(Box<CaseRequest>),
}

impl fmt::Display for NotDecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget => f.write_str("the answer takes too many steps"),
            Self::Attribute(name) => write!(f, "policies distinguish too many values of `{name}`"),
            Self::Header(name) => write!(f, "a rule matches the header `{name}`, which repeats other attributes"),
            Self::Sources => f.write_str(
                "the documents have no source of identities in common (use one `identity.from`, with one proxy)",
            ),
            Self::Bug(request) => {
                let request = serde_json::to_string(request).unwrap_or_default();
                write!(f, "the filter decides a request differently, which is a bug in this command (report {request})")
            }
        }
    }
}

impl std::error::Error for NotDecided {}

#[cfg(test)]
mod tests;
