//! Reading the values of nodes, and collecting every error.

use std::borrow::Cow;

use super::pointer::Pointer;
use crate::diagnostic::{Code, Diagnostic};
use crate::policy::node::Node;

/// Collects the errors in a document.
pub(crate) struct Reader {
    unsupported: &'static [(&'static str, &'static str)],
    diagnostics: Vec<Diagnostic>,
}

impl Reader {
    /// Creates a reader that reports the fields with these names, each with the next step, as unsupported instead of unknown.
    pub(crate) const fn new(unsupported: &'static [(&'static str, &'static str)]) -> Self {
        Self { unsupported, diagnostics: Vec::new() }
    }

    /// Returns the value if there are no errors, and otherwise every error.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        match value {
            Some(value) if self.diagnostics.is_empty() => Ok(value),
            _ => Err(self.diagnostics),
        }
    }

    pub(crate) fn report(&mut self, at: &Pointer<'_>, code: Code, message: String, help: &str) {
        self.diagnostics.push(Diagnostic { pointer: at.to_string(), code, message, help: help.to_owned() });
    }

    /// Reads an object. Reports fields that are not in `allowed`, and duplicate ones.
    pub(crate) fn object<'n, 'p>(
        &mut self,
        node: &'n Node<'n>,
        at: &'p Pointer<'p>,
        allowed: &[&'static str],
    ) -> Option<Object<'n, 'p>> {
        let Node::Object(fields) = node else {
            self.wrong_type(node, at, "an object", &format!("use an object with {}", Self::quoted(allowed)));
            return None;
        };
        for (position, (name, _)) in fields.iter().enumerate() {
            let at = at.key(name);
            let is_allowed = allowed.contains(&&**name);
            if !is_allowed && let Some((_, reason)) = self.unsupported.iter().find(|(field, _)| field == name) {
                let help = format!("{reason}; the supported fields are {}", Self::quoted(allowed));
                self.report(&at, Code::Unsupported, format!("`{name}` is not supported"), &help);
            } else if !is_allowed {
                let help = format!("expected one of {}", Self::quoted(allowed));
                self.report(&at, Code::UnknownField, format!("unknown field `{name}`"), &help);
            } else if fields.iter().take(position).any(|(earlier, _)| earlier == name) {
                self.report(&at, Code::DuplicateField, format!("duplicate field `{name}`"), "remove one of the two");
            }
        }
        Some(Object { fields, at })
    }

    /// Reads an object with any names. Reports duplicate ones.
    pub(crate) fn entries<T>(
        &mut self,
        node: &Node,
        at: &Pointer<'_>,
        mut read: impl FnMut(&mut Self, &str, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::Object(fields) = node else {
            self.wrong_type(node, at, "an object", "use an object with strings");
            return None;
        };
        let entries = fields.iter().enumerate().filter_map(|(position, (name, node))| {
            let at = at.key(name);
            if fields.iter().take(position).any(|(earlier, _)| earlier == name) {
                self.report(&at, Code::DuplicateField, format!("duplicate field `{name}`"), "remove one of the two");
                return None;
            }
            read(self, name, node, &at)
        });
        Some(entries.collect())
    }

    /// Reads a list, which can be empty.
    pub(crate) fn list<T>(
        &mut self,
        node: &Node,
        at: &Pointer<'_>,
        mut read: impl FnMut(&mut Self, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::List(items) = node else {
            self.wrong_type(node, at, "a list", "put the value in brackets: `[…]`");
            return None;
        };
        Some(items.iter().enumerate().filter_map(|(i, item)| read(self, item, &at.index(i))).collect())
    }

    /// Reads a list with at least one item, because an empty one could be read as "anything".
    pub(crate) fn some<T>(
        &mut self,
        node: &Node,
        at: &Pointer<'_>,
        read: impl FnMut(&mut Self, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(node, Node::List(items) if items.is_empty()) {
            self.report(at, Code::Empty, "the list is empty".to_owned(), "add an item, or remove the field");
            return None;
        }
        self.list(node, at, read)
    }

    /// Reads a string, which must not be empty.
    pub(crate) fn string(&mut self, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
        let Node::String(value) = node else {
            self.wrong_type(node, at, "a string", "put the value in quotation marks");
            return None;
        };
        if value.is_empty() {
            self.report(at, Code::Empty, "the string is empty".to_owned(), "set a value, or remove the field");
            return None;
        }
        Some((**value).into())
    }

    pub(crate) fn boolean(&mut self, node: &Node, at: &Pointer<'_>) -> Option<bool> {
        let Node::Bool(value) = node else {
            self.wrong_type(node, at, "a boolean", "use `true` or `false`, without quotation marks");
            return None;
        };
        Some(*value)
    }

    /// Reads one of these values.
    pub(crate) fn one_of<T: Copy>(&mut self, node: &Node, at: &Pointer<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let value = self.string(node, at)?;
        let found = words.iter().find(|(word, _)| *word == &*value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
            let help = format!("expected one of {}", Self::quoted(&names));
            self.report(at, Code::InvalidValue, format!("unknown value `{value}`"), &help);
        }
        found
    }

    /// Formats names for the help of a diagnostic.
    pub(crate) fn quoted(names: &[&'static str]) -> String {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    fn wrong_type(&mut self, node: &Node, at: &Pointer<'_>, expected: &str, help: &str) {
        let help = if matches!(node, Node::Null) { "set a value, or remove the field" } else { help };
        self.report(at, Code::WrongType, format!("expected {expected}, found {}", node.kind()), help);
    }
}

/// An object without unknown or duplicate fields.
pub(crate) struct Object<'n, 'p> {
    fields: &'n [(Cow<'n, str>, Node<'n>)],
    at: &'p Pointer<'p>,
}

impl<'p> Object<'_, 'p> {
    pub(crate) const fn place(&self) -> &'p Pointer<'p> {
        self.at
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    pub(crate) fn node(&self, key: &str) -> Option<&Node<'_>> {
        self.fields.iter().find(|(name, _)| &**name == key).map(|(_, node)| node)
    }

    /// Reads the field `key` with `read`. Returns `None` if the field is absent, or if it is wrong, which is reported.
    pub(crate) fn optional<T>(
        &self,
        r: &mut Reader,
        key: &'static str,
        read: impl FnOnce(&mut Reader, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<T> {
        read(r, self.node(key)?, &self.at.key(key))
    }

    /// Reads the field `key` as [`Self::optional`] does, and reports its absence.
    pub(crate) fn required<T>(
        &self,
        r: &mut Reader,
        key: &'static str,
        read: impl FnOnce(&mut Reader, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            r.report(
                &self.at.key(key),
                Code::MissingField,
                format!("missing field `{key}`"),
                "add it: the field is required",
            );
        }
        self.optional(r, key, read)
    }
}
