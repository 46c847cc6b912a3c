//! The configuration of a route.

use super::{Mode, PolicySet, compile};
use crate::diagnostic::Diagnostic;

/// The configuration of a route, which overrides the one of the filter.
///
/// A route cannot accept an identity that the filter rejects, unless it has a policy set of its own.
#[derive(Debug)]
pub struct RoutePolicy {
    /// Whether policies are enforced.
    pub mode: Mode,
    /// The policy set that replaces the one of the filter.
    pub policies: Option<PolicySet>,
}

impl RoutePolicy {
    /// Compiles `{"mode": …, "configuration": …}`, in which one of the fields can be absent.
    ///
    /// # Errors
    /// Returns every error in the JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        compile::compile_route(text)
    }
}
