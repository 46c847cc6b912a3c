//! What is wrong with a configuration document: where, which rule was broken, and what is allowed instead.

use std::fmt;

/// One mistake in a configuration document.
///
/// `Display` gives the line that Envoy's log and the command show: `<pointer>: <code>: <message> (<help>)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// JSON pointer (RFC 6901) to the value at fault; empty for the whole document.
    pub pointer: String,
    /// Which rule of the document was broken.
    pub code: Code,
    /// What was found.
    pub message: String,
    /// What is allowed there.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{place}: {}: {} ({})", self.code.slug(), self.message, self.help)
    }
}

/// The lines of an adapter's log for a configuration that it refuses.
pub fn refusal(diagnostics: &[Diagnostic]) -> impl Iterator<Item = String> {
    let sum = format!("spiffe-authz: configuration refused: {} to mend", diagnostics.len());
    diagnostics.iter().map(|diagnostic| format!("spiffe-authz: {diagnostic}")).chain([sum])
}

/// The rules of the configuration document; a diagnostic names the one that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The text is empty, or no JSON.
    Syntax,
    /// A value of another JSON type than the one wanted.
    WrongType,
    /// A field that the document does not have.
    UnknownField,
    /// A field or value that Istio has and this filter does not support.
    Unsupported,
    /// The same field twice in one object.
    DuplicateField,
    /// A field that must be there is not.
    MissingField,
    /// A list or object that says nothing, where saying nothing would read as "anything".
    Empty,
    /// A value outside what its field allows.
    InvalidValue,
    /// Two fields of one object that exclude each other.
    ConflictingFields,
    /// Two policies of the same namespace and name.
    DuplicatePolicy,
    /// A value that is well formed and that no request can match.
    NeverMatches,
}

impl Code {
    /// Every code, in the order of the reference.
    pub const ALL: [Self; 11] = [
        Self::Syntax,
        Self::WrongType,
        Self::UnknownField,
        Self::Unsupported,
        Self::DuplicateField,
        Self::MissingField,
        Self::Empty,
        Self::InvalidValue,
        Self::ConflictingFields,
        Self::DuplicatePolicy,
        Self::NeverMatches,
    ];

    /// The stable name of this code.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::WrongType => "wrong-type",
            Self::UnknownField => "unknown-field",
            Self::Unsupported => "unsupported",
            Self::DuplicateField => "duplicate-field",
            Self::MissingField => "missing-field",
            Self::Empty => "empty",
            Self::InvalidValue => "invalid-value",
            Self::ConflictingFields => "conflicting-fields",
            Self::DuplicatePolicy => "duplicate-policy",
            Self::NeverMatches => "never-matches",
        }
    }
}
