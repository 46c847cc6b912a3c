//! The remarks of an import.

/// A difference between a policy and the document, or a part that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// The resource, such as `default/reads`.
    pub(crate) place: String,
    /// The field of the policy, such as `rules[0].from[1].source`.
    pub(crate) field: Option<String>,
    /// Whether the document lacks a part of the policy, or does not compile.
    pub(crate) lost: bool,
    /// The description.
    pub(crate) message: String,
}

impl Remark {
    /// Returns a remark on a resource that is imported, or skipped on purpose.
    pub(crate) fn note(place: &str, message: impl Into<String>) -> Self {
        Self { place: place.to_owned(), field: None, lost: false, message: message.into() }
    }

    /// Returns a remark on a part that cannot be imported.
    pub(crate) fn lost(place: &str, message: impl Into<String>) -> Self {
        Self { lost: true, ..Self::note(place, message) }
    }

    /// Returns the remark for a field of the policy.
    pub(crate) fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }
}
