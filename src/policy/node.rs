//! A parsed JSON or YAML value. Unlike `serde_json::Value`, it keeps repeated fields, and it borrows strings from the input:
//! Envoy parses documents with thousands of policies.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of a document before its meaning is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number. No field of the document accepts one.
    Number,
    /// A string.
    String(Cow<'t, str>),
    /// A list.
    List(Vec<Node<'t>>),
    /// An object: its fields in the order of the input, including repeated ones.
    Object(Vec<(Cow<'t, str>, Node<'t>)>),
}

impl Node<'_> {
    /// Converts the value to one that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Node<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Null => Node::Null,
            Self::Bool(value) => Node::Bool(value),
            Self::Number => Node::Number,
            Self::String(text) => Node::String(owned(text)),
            Self::List(items) => Node::List(items.into_iter().map(Node::into_owned).collect()),
            Self::Object(fields) => {
                Node::Object(fields.into_iter().map(|(name, value)| (owned(name), value.into_owned())).collect())
            }
        }
    }

    /// The value of a field of this object, or `None` if the field is absent or this is not an object.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(found, _)| &**found == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The items of the list in a field of this object. Empty if the field is absent or not a list.
    #[must_use]
    pub fn list(&self, name: &str) -> &[Self] {
        self.field(name).map_or(&[], Self::items)
    }

    /// The items of this list. Empty if this is not a list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The string, or `None` if this is not a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a JSON pointer (RFC 6901) whose names contain neither `~` nor `/`.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |node, name| match node {
            Self::List(items) => items.get(name.parse::<usize>().ok()?),
            node => node.field(name),
        })
    }

    /// The type of the value, as diagnostics name it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node<'de>, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        // Most lists and objects have one item. A vector that grows on its own starts with a capacity of four.
        let mut list = Vec::with_capacity(1);
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node<'de>, A::Error> {
        let mut object = Vec::with_capacity(1);
        while let Some(Name(name)) = fields.next_key()? {
            object.push((name, fields.next_value()?));
        }
        Ok(Node::Object(object))
    }
}

/// The name of a field.
pub(super) struct Name<'t>(pub(super) Cow<'t, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::Node;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn keeps_order_and_repeated_names() {
        let node: Node = serde_json::from_str(r#"{"b":1,"a":[null,true,"x",1.5],"b":-2}"#).unwrap();
        let Node::Object(fields) = node else { panic!("not an object") };
        let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["b", "a", "b"]);
        let root = Node::Object(fields.clone());
        assert_eq!(root.at("/a/2").and_then(Node::text), Some("x"));
        assert_eq!((root.at("/a/4"), root.at("/c"), root.at("")), (None, None, Some(&root)));
        assert_eq!(fields[1].1, Node::List(vec![Node::Null, Node::Bool(true), Node::String("x".into()), Node::Number]));
    }
}
