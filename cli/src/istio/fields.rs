//! Reading the fields of a Kubernetes resource, and collecting every error in it.

use std::collections::HashSet;

use spiffe_authz::diagnostic::Code;

use super::remark::{Origin, Remark};
use crate::located::{Field, Located, Position, Value};
use crate::suggestion::hint;

/// Collects the errors in a resource, as lost parts.
pub(crate) struct Fields<'i> {
    pub(crate) origin: &'i Origin,
    pub(crate) errors: Vec<Remark>,
}

impl Fields<'_> {
    pub(crate) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Adds an error.
    pub(crate) fn report(&mut self, code: Code, position: Position, field: &str, message: impl Into<String>) {
        self.errors.push(self.origin.remark(position, field, message).lost(code));
    }

    /// Adds the error that a value has another type.
    pub(crate) fn report_type(&mut self, value: &Located, field: &str, expected: &str) {
        let quoted = match &value.value {
            Value::Bool(_) | Value::Number(_) if expected == "a string" => " (put the value in quotation marks)",
            _ => "",
        };
        self.report(
            Code::WrongType,
            value.position,
            field,
            format!("expected {expected}, found {}{quoted}", value.kind()),
        );
    }

    pub(crate) fn report_unknown(&mut self, field: &Field, at: &str) {
        self.report(
            Code::UnknownField,
            field.position,
            &joined(at, &field.name),
            format!("unknown field `{}`", field.name),
        );
    }

    pub(crate) fn report_unknown_of(&mut self, field: &Field, at: &str, allowed: &[&str]) {
        let message = format!("unknown field `{}` ({})", field.name, hint(&field.name, allowed));
        self.report(Code::UnknownField, field.position, &joined(at, &field.name), message);
    }

    /// Returns the fields of an object that are not in `allowed`. Reports duplicate fields.
    pub(crate) fn object<'r>(&mut self, object: &'r Located, at: &str, allowed: &[&str]) -> Vec<&'r Field> {
        let mut names = HashSet::new();
        for field in object.fields() {
            if !names.insert(&field.name) {
                let message = format!("duplicate field `{}`", field.name);
                self.report(Code::DuplicateField, field.position, &joined(at, &field.name), message);
            }
        }
        let unknown = object.fields().iter().filter(|field| !allowed.contains(&&*field.name));
        unknown.filter(|field| !field.value.is_null()).collect()
    }

    /// Returns `true` for an object, and reports every other value.
    pub(crate) fn is_object(&mut self, value: &Located, at: &str) -> bool {
        let is_object = matches!(value.value, Value::Object(_));
        if !is_object {
            self.report_type(value, at, "an object");
        }
        is_object
    }

    /// Returns the string in an optional field, with its position. Reports every other value, and an empty string.
    pub(crate) fn text<'r>(&mut self, object: &'r Located, name: &str, at: &str) -> Option<(&'r str, Position)> {
        let (text, position) = self.text_or_empty(object, name, at)?;
        if text.is_empty() {
            self.report(Code::Empty, position, &joined(at, name), "the string is empty");
            return None;
        }
        Some((text, position))
    }

    /// Returns the string in an optional field, with its position. Reports every other value.
    pub(crate) fn text_or_empty<'r>(
        &mut self,
        object: &'r Located,
        name: &str,
        at: &str,
    ) -> Option<(&'r str, Position)> {
        let value = object.field(name)?;
        let text = value.text();
        if text.is_none() {
            self.report_type(value, &joined(at, name), "a string");
        }
        Some((text?, value.position))
    }

    /// Returns the fields of an object whose values are strings, and reports every other value.
    pub(crate) fn texts<'r>(&mut self, object: &'r Located, at: &str) -> Vec<(&'r str, &'r str, Position)> {
        let mut texts = Vec::new();
        if !self.is_object(object, at) {
            return texts;
        }
        self.object(object, at, &[]);
        for Field { name, value, .. } in object.fields() {
            match value.text() {
                Some(text) => texts.push((&**name, text, value.position)),
                None => self.report_type(value, &joined(at, name), "a string"),
            }
        }
        texts
    }

    /// Reports each string with a placeholder of Helm's templates.
    pub(crate) fn report_templates(&mut self, value: Option<&Located>, at: &str) {
        let Some(value) = value else { return };
        match &value.value {
            Value::String(text) if text.contains(TEMPLATE) => {
                self.report(Code::InvalidValue, value.position, at, format!("`{text}`: {IS_TEMPLATE}"));
            }
            Value::List(items) => {
                for (position, item) in items.iter().enumerate() {
                    self.report_templates(Some(item), &format!("{at}[{position}]"));
                }
            }
            Value::Object(fields) => {
                for field in fields {
                    self.report_templates(Some(&field.value), &joined(at, &field.name));
                }
            }
            _ => {}
        }
    }
}

/// The beginning of a placeholder in Helm's templates.
pub(crate) const TEMPLATE: &str = "{{";
/// The description of a template.
pub(crate) const IS_TEMPLATE: &str = "this is a template (render it first, for example with `helm template`)";

fn joined(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
