//! The remarks of an import.

use std::fmt;

use spiffe_authz::diagnostic::Code;

use crate::located::{Position, place};

/// A difference between a policy and the document, or a part that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// The file and the position in it, or `None` for a remark on the whole import.
    pub(crate) origin: Option<(String, Option<Position>)>,
    /// The resource, such as `default/reads`.
    pub(crate) place: String,
    /// The field of the resource, such as `spec.rules[0].from[1].source`.
    pub(crate) field: Option<String>,
    /// The reason if the document lacks a part of the policy, or does not compile.
    pub(crate) lost: Option<Code>,
    /// The description.
    pub(crate) message: String,
}

impl Remark {
    /// Returns a remark on the whole import.
    pub(crate) fn on_import(message: impl Into<String>) -> Self {
        Self { origin: None, place: "/".to_owned(), field: None, lost: None, message: message.into() }
    }

    /// Returns the remark for something that the document lacks.
    pub(crate) fn lost(self, code: Code) -> Self {
        Self { lost: Some(code), ..self }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, place: resource, field, message, .. } = self;
        if let Some((file, position)) = origin {
            write!(f, "{}: ", place(file, *position))?;
        }
        if origin.as_ref().is_some_and(|(file, _)| file != resource) {
            write!(f, "{resource}: ")?;
        }
        if let Some(field) = field {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)
    }
}

/// A resource in a file, for remarks.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The name of the file.
    pub(crate) file: String,
    /// The namespace and the name of the resource, as far as they are known.
    pub(crate) place: String,
}

impl Origin {
    /// Returns a remark on a field of the resource.
    pub(crate) fn remark(&self, position: Position, field: &str, message: impl Into<String>) -> Remark {
        Remark {
            origin: Some((self.file.clone(), Some(position))),
            place: self.place.clone(),
            field: (!field.is_empty()).then(|| field.to_owned()),
            lost: None,
            message: message.into(),
        }
    }
}
