//! A document in JSON, whose policies are parsed one at a time.
//!
//! The parsed form of a policy takes more memory than the compiled one. With thousands of policies, it must not exist for all of
//! them at once, because the memory of a WebAssembly VM never shrinks.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::policy::field::POLICIES;
use crate::policy::node::{Name, Node};

/// A document, and the text of its policies.
pub(super) struct JsonDocument<'t> {
    /// The whole text.
    pub(super) text: &'t str,
    /// The document, in which the list of policies is empty if `policies` contains it.
    pub(super) root: Node<'t>,
    /// The list of policies.
    pub(super) policies: Option<&'t str>,
}

impl<'t> JsonDocument<'t> {
    /// Parses everything but the policies.
    pub(super) fn parse(text: &'t str) -> Result<Self, serde_json::Error> {
        Self::parse_parts(text).map_err(|error| whole_error(text, error))
    }

    fn parse_parts(text: &'t str) -> Result<Self, serde_json::Error> {
        let fields = match serde_json::from_str::<Fields<'t>>(text) {
            Ok(Fields(fields)) => fields,
            // Not an object, which is a valid `Node`.
            Err(error) if error.is_data() => {
                return Ok(Self { text, root: serde_json::from_str(text)?, policies: None });
            }
            Err(error) => return Err(error),
        };
        let mut policies = None;
        let mut parsed = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let node = if name == POLICIES && policies.is_none() && value.get().starts_with('[') {
                policies = Some(value.get());
                Node::List(Vec::new())
            } else {
                serde_json::from_str(value.get())?
            };
            parsed.push((name, node));
        }
        Ok(Self { text, root: Node::Object(parsed), policies })
    }
}

/// Calls `read` with the position and the parsed form of each item of a list in JSON.
pub(super) fn for_each(list: &str, read: &mut dyn FnMut(usize, &Node<'_>)) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(list);
    Items(read).deserialize(&mut deserializer)
}

/// Returns the syntax error with its position in the document. The error of a part has a position in the part.
pub(super) fn whole_error(document: &str, error_of_part: serde_json::Error) -> serde_json::Error {
    serde_json::from_str::<Node<'_>>(document).err().unwrap_or(error_of_part)
}

/// The fields of an object, with the text of their values.
struct Fields<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            fields.push((name, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

/// Reads a list item by item.
struct Items<'f>(&'f mut dyn FnMut(usize, &Node<'_>));

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut position: usize = 0;
        while let Some(item) = items.next_element::<Node<'_>>()? {
            (self.0)(position, &item);
            position = position.saturating_add(1);
        }
        Ok(())
    }
}
