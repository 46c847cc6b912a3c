//! Reads values into types, with errors that have a position and a suggestion.

use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Field, Located, Position, Value};
use crate::suggestion::hint;

/// An error in a value.
#[derive(Debug)]
pub(crate) struct ReadError {
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

impl Located {
    /// Reads the value.
    ///
    /// # Errors
    /// Returns the first error in the value.
    pub(crate) fn read<'t, T: Deserialize<'t>>(&'t self) -> Result<T, ReadError> {
        T::deserialize(self)
    }
}

impl ReadError {
    fn at(self, position: Position) -> Self {
        Self { position: self.position.or(Some(position)), ..self }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { position: None, message: message.to_string() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("unknown field `{field}` ({})", hint(field, expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("unknown value `{variant}` ({})", hint(variant, expected)))
    }
}

impl Located {
    /// Returns the error for a value of another type.
    pub(crate) fn expected(&self, expected: &str) -> ReadError {
        let message = format!("expected {expected}, found {}", self.kind());
        ReadError { position: Some(self.position), message }
    }

    /// Returns an object for a visitor.
    fn object(&self) -> Result<Fields<'_>, ReadError> {
        let Value::Object(fields) = &self.value else { return Err(self.expected("an object")) };
        let mut names = HashSet::new();
        if let Some(Field { position, name, .. }) = fields.iter().find(|field| !names.insert(&field.name)) {
            let message = format!("duplicate field `{name}` (remove one of the two)");
            return Err(ReadError { position: Some(*position), message });
        }
        Ok(Fields { fields: fields.iter(), value: None })
    }

    /// Returns an integer of a type with this maximum.
    fn integer(&self, max: u64) -> Result<u64, ReadError> {
        let expected = format!("an integer from 0 to {max}");
        let Value::Number(number) = &self.value else { return Err(self.expected(&expected)) };
        number.as_u64().filter(|integer| *integer <= max).ok_or_else(|| ReadError {
            position: Some(self.position),
            message: format!("expected {expected}, found {number}"),
        })
    }
}

/// The types of the fields of cases have their own methods, so that errors have the words of the file format. The others
/// accept every value.
impl<'de> Deserializer<'de> for &'de Located {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(_) => visitor.visit_map(self.object()?),
        };
        result.map_err(|error| error.at(self.position))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_map(self.object()?).map_err(|error| error.at(self.position))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::List(items) = &self.value else { return Err(self.expected("a list")) };
        visitor.visit_seq(Items(items.iter())).map_err(|error| error.at(self.position))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::String(text) = &self.value else { return Err(self.expected("a string")) };
        visitor.visit_borrowed_str(text).map_err(|error: ReadError| error.at(self.position))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_u64(self.integer(u16::MAX.into())?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_u64(self.integer(u32::MAX.into())?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Value::String(text) = &self.value else { return Err(self.expected("a string")) };
        visitor.visit_enum(text.as_str().into_deserializer()).map_err(|error: ReadError| error.at(self.position))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

struct Items<'t>(std::slice::Iter<'t, Located>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.0.next().map(|item| seed.deserialize(item).map_err(|error| error.at(item.position))).transpose()
    }
}

struct Fields<'t> {
    fields: std::slice::Iter<'t, Field>,
    value: Option<&'t Located>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        self.value = Some(&field.value);
        let name: StrDeserializer<'_, ReadError> = field.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.at(field.position))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let value = self.value.take().ok_or_else(|| de::Error::custom("missing value"))?;
        seed.deserialize(value).map_err(|error| error.at(value.position))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use crate::located::parse_all;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "lowercase")]
    struct Record {
        verdict: Verdict,
        #[serde(default)]
        port: Option<u16>,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Verdict {
        Allow,
        Deny,
    }

    #[test]
    fn values_are_read() {
        let documents = parse_all("verdict: deny\nport: 80\nheaders: {a: b}").unwrap();
        let Record { verdict, port, headers } = documents[0].read().unwrap();
        assert_eq!((verdict, port, &*headers["a"]), (Verdict::Deny, Some(80), "b"));
    }

    #[test]
    fn errors_have_a_position_and_a_suggestion() {
        for (text, expected) in [
            ("verdict: allowed", "1:10: unknown value `allowed` (did you mean `allow`?)"),
            ("verdict: allow\nprot: 1", "2:1: unknown field `prot` (did you mean `port`?)"),
            ("port: 1", "1:1: missing field `verdict`"),
            ("verdict: allow\nport: x", "2:7: expected an integer from 0 to 65535, found a string"),
            ("verdict: allow\nport: 65536", "2:7: expected an integer from 0 to 65535, found 65536"),
            ("verdict: allow\nheaders: {a: [1]}", "2:14: expected a string, found a list"),
            ("verdict: allow\nheaders: []", "2:10: expected an object, found a list"),
            ("verdict: allow\nheaders: {a: b, a: b}", "2:17: duplicate field `a` (remove one of the two)"),
            ("verdict: allow\nverdict: deny", "2:1: duplicate field `verdict` (remove one of the two)"),
            ("verdict: 1", "1:10: expected a string, found a number"),
            ("verdict: {allow: 1}", "1:10: expected a string, found an object"),
            ("[allow]", "1:1: expected an object, found a list"),
        ] {
            let error = parse_all(text).unwrap()[0].read::<Record>().unwrap_err();
            assert_eq!(format!("{}: {error}", error.position.unwrap()), expected);
        }
    }
}
