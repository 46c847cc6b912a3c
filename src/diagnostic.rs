//! Errors in a configuration document: the place, the broken rule, and the next step.

use std::fmt;

use crate::slugs;

/// An error in a configuration document.
///
/// `Display` writes the line for Envoy's log and the command: `<pointer>: <code>: <message> (<help>)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The JSON pointer (RFC 6901) to the value. Empty for the whole document.
    pub pointer: String,
    /// The broken rule.
    pub code: Code,
    /// The value that was found, and the expected one.
    pub message: String,
    /// The next step, or the allowed values.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{place}: {}: {} ({})", self.code.slug(), self.message, self.help)
    }
}

/// Returns the log lines of an adapter for a configuration that it rejects.
pub fn rejection(diagnostics: &[Diagnostic]) -> impl Iterator<Item = String> {
    let count = diagnostics.len();
    let sum = format!("spiffe-authz: configuration rejected: {count} {}", if count == 1 { "error" } else { "errors" });
    diagnostics.iter().map(|diagnostic| format!("spiffe-authz: {diagnostic}")).chain([sum])
}

slugs! {
    /// A rule of the configuration document.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Code {
        Syntax = "syntax", "The document is empty, or not JSON.";
        WrongType = "wrong-type", "A value has a different JSON type than its field.";
        UnknownField = "unknown-field", "A field is not part of the document.";
        Unsupported = "unsupported", "A field or value of Istio is not supported by this filter.";
        DuplicateField = "duplicate-field", "A field appears twice in an object.";
        MissingField = "missing-field", "A required field is missing.";
        Empty = "empty", "A list, object or string is empty, which could be read as \"anything\".";
        InvalidValue = "invalid-value", "A value is not allowed in its field.";
        ConflictingFields = "conflicting-fields", "Two fields cannot be combined.";
        DuplicatePolicy = "duplicate-policy", "Two policies have the same namespace and name.";
        NeverMatches = "never-matches", "A value matches no request.";
        ScopeUnresolved = "scope-unresolved",
            "`scope` selects policies by the workload of the proxy, and its namespace or its labels are not known.";
    }
}
