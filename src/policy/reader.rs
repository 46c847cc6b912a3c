//! Reads nodes into values, and collects every mistake on the way.

use std::borrow::Cow;

use super::node::Node;
use super::pointer::Pointer;
use crate::diagnostic::{Code, Diagnostic};

/// Collects what is wrong with a document while it is read.
pub(crate) struct Reader {
    unsupported: &'static [&'static str],
    diagnostics: Vec<Diagnostic>,
}

impl Reader {
    /// `unsupported`: names of fields that are refused as such, instead of as unknown.
    pub(crate) const fn new(unsupported: &'static [&'static str]) -> Self {
        Self { unsupported, diagnostics: Vec::new() }
    }

    /// What was read, if nothing was wrong.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        match value {
            Some(value) if self.diagnostics.is_empty() => Ok(value),
            _ => Err(self.diagnostics),
        }
    }

    pub(crate) fn report(&mut self, at: &Pointer<'_>, code: Code, message: String, help: &str) {
        self.diagnostics.push(Diagnostic { pointer: at.to_string(), code, message, help: help.to_owned() });
    }

    /// An object with no other fields than `allowed`, each at most once.
    pub(crate) fn object<'n, 'p>(
        &mut self,
        node: &'n Node<'n>,
        at: &'p Pointer<'p>,
        allowed: &[&'static str],
    ) -> Option<Object<'n, 'p>> {
        let Node::Object(fields) = node else {
            self.wrong_type(node, at, "an object");
            return None;
        };
        for (position, (name, _)) in fields.iter().enumerate() {
            let at = at.key(name);
            if self.unsupported.contains(&&**name) {
                let help = format!("remove it; supported here: {}", Self::quoted(allowed));
                self.report(&at, Code::Unsupported, format!("`{name}` is not supported"), &help);
            } else if !allowed.contains(&&**name) {
                let help = format!("allowed here: {}", Self::quoted(allowed));
                self.report(&at, Code::UnknownField, format!("there is no field `{name}` here"), &help);
            } else if fields.iter().take(position).any(|(earlier, _)| earlier == name) {
                self.report(&at, Code::DuplicateField, format!("`{name}` stands here twice"), "each field once");
            }
        }
        Some(Object { fields, at })
    }

    /// A list, possibly empty.
    pub(crate) fn list<T>(
        &mut self,
        node: &Node,
        at: &Pointer<'_>,
        mut read: impl FnMut(&mut Self, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::List(items) = node else {
            self.wrong_type(node, at, "a list");
            return None;
        };
        Some(items.iter().enumerate().filter_map(|(i, item)| read(self, item, &at.index(i))).collect())
    }

    /// A list with at least one item: an empty one would read as "anything".
    pub(crate) fn some<T>(
        &mut self,
        node: &Node,
        at: &Pointer<'_>,
        read: impl FnMut(&mut Self, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(node, Node::List(items) if items.is_empty()) {
            self.report(at, Code::Empty, "the list is empty".to_owned(), "at least one item, or leave the field out");
            return None;
        }
        self.list(node, at, read)
    }

    /// A string that is not empty.
    pub(crate) fn string(&mut self, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
        let Node::String(value) = node else {
            self.wrong_type(node, at, "a string");
            return None;
        };
        if value.is_empty() {
            self.report(at, Code::Empty, "the string is empty".to_owned(), "at least one character");
            return None;
        }
        Some((**value).into())
    }

    pub(crate) fn boolean(&mut self, node: &Node, at: &Pointer<'_>) -> Option<bool> {
        let Node::Bool(value) = node else {
            self.wrong_type(node, at, "a boolean");
            return None;
        };
        Some(*value)
    }

    /// One of a closed set of words.
    pub(crate) fn one_of<T: Copy>(&mut self, node: &Node, at: &Pointer<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let value = self.string(node, at)?;
        let found = words.iter().find(|(word, _)| *word == &*value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
            let help = format!("one of {}", Self::quoted(&names));
            self.report(at, Code::InvalidValue, format!("`{value}` is not one of the values"), &help);
        }
        found
    }

    /// Names as a diagnostic's help shows them.
    pub(crate) fn quoted(names: &[&'static str]) -> String {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    fn wrong_type(&mut self, node: &Node, at: &Pointer<'_>, wanted: &str) {
        self.report(at, Code::WrongType, format!("{} stands here", node.kind()), &format!("{wanted} is wanted"));
    }
}

/// An object whose field names were checked.
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

    /// The field `key`, read by `read`; `None` when it is absent or wrong (which is reported).
    pub(crate) fn optional<T>(
        &self,
        r: &mut Reader,
        key: &'static str,
        read: impl FnOnce(&mut Reader, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<T> {
        read(r, self.node(key)?, &self.at.key(key))
    }

    /// As `optional`, and its absence is reported.
    pub(crate) fn required<T>(
        &self,
        r: &mut Reader,
        key: &'static str,
        read: impl FnOnce(&mut Reader, &Node, &Pointer<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            r.report(&self.at.key(key), Code::MissingField, format!("`{key}` is missing"), "it is required");
        }
        self.optional(r, key, read)
    }
}
