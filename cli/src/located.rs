//! Parsed YAML or JSON in which each value has its position in the file.

pub(crate) mod positions;
pub(crate) mod read;
pub(crate) mod written;

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Number;
use serde_saphyr::{Location, Spanned};
use spiffe_authz::policy::Node;

use crate::yaml;

/// The line and the column of a value in a file. Both start at 1, and columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Returns a place in a file, such as `policy.yaml:3:1`, or the file if the position is unknown.
pub(crate) fn place(file: impl fmt::Display, position: Option<Position>) -> String {
    position.map_or_else(|| file.to_string(), |position| format!("{file}:{position}"))
}

impl Position {
    /// Returns the place in the file of this position in the text of a string at `start`. Each line of a literal block
    /// begins after `indentation` characters. In another string, every part has the position of the string.
    pub(crate) fn within(self, start: Self, indentation: Option<u32>) -> Self {
        match indentation {
            Some(indentation) => Self {
                line: start.line.saturating_add(self.line).saturating_sub(1),
                column: indentation.saturating_add(self.column),
            },
            None => start,
        }
    }
}

/// A value with its position.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// A parsed value. An object keeps the order of its fields, and repeated ones.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Located>),
    Object(Vec<Field>),
}

/// A field of an object.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// The position of the name.
    pub(crate) position: Position,
    pub(crate) name: String,
    pub(crate) value: Located,
}

/// An error in the notation of a file.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

/// Parses the documents of a file: YAML without its empty documents, or a stream of JSON values.
///
/// # Errors
/// Returns an error if the text is neither YAML nor JSON.
pub(crate) fn parse_all(text: &str) -> Result<Vec<Located>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(parsed) = parse_json(text) {
        return parsed;
    }
    let documents: Vec<Located> = yaml::from_multiple(text).map_err(|error| SyntaxError {
        position: error.location().map(Position::from),
        message: yaml::description(&error),
    })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Parses a stream of JSON values that begins with an object or a list. Returns `None` if the text is not JSON.
fn parse_json(text: &str) -> Option<Result<Vec<Located>, SyntaxError>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    if values.any(|value| value.is_err()) {
        return None;
    }
    let mut scanner = Scanner { rest: text, position: Position { line: 1, column: 1 }, depth: 0 };
    let mut found = Vec::new();
    while scanner.skip_space().is_some() {
        match scanner.value() {
            Some(value) => found.push(value),
            None if scanner.depth > yaml::DEPTH => {
                let message = yaml::too_deep();
                return Some(Err(SyntaxError { position: Some(scanner.position), message }));
            }
            None => return None,
        }
    }
    Some(Ok(found))
}

/// Reads text that serde_json accepts.
struct Scanner<'t> {
    rest: &'t str,
    position: Position,
    /// The number of objects and lists around the position, and of one that is too deep.
    depth: usize,
}

impl<'t> Scanner<'t> {
    fn advance(&mut self, bytes: usize) -> Option<&'t str> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        for character in taken.chars() {
            if character == '\n' {
                self.position = Position { line: self.position.line.saturating_add(1), column: 1 };
            } else {
                self.position.column = self.position.column.saturating_add(1);
            }
        }
        self.rest = rest;
        Some(taken)
    }

    /// Skips white space, and returns the next byte.
    fn skip_space(&mut self) -> Option<u8> {
        let space = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.advance(space)?;
        self.rest.bytes().next()
    }

    /// Skips this byte if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.skip_space() == Some(byte);
        if is_next {
            self.advance(1);
        }
        is_next
    }

    /// Skips the bracket of an object or a list. Returns `None` if it is too deep.
    fn enter(&mut self) -> Option<()> {
        self.depth += 1;
        if self.depth > yaml::DEPTH {
            return None;
        }
        self.advance(1).map(drop)
    }

    fn string(&mut self) -> Option<String> {
        let mut escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        serde_json::from_str(self.advance(end + 2)?).ok()
    }

    /// Reads a value. Returns `None` before an object or a list that is too deep.
    fn value(&mut self) -> Option<Located> {
        let first = self.skip_space()?;
        let position = self.position;
        let value = match first {
            b'"' => Value::String(self.string()?),
            b'{' => {
                self.enter()?;
                let mut fields = Vec::new();
                while !self.skip(b'}') {
                    self.skip(b',');
                    self.skip_space()?;
                    let position = self.position;
                    let name = self.string()?;
                    self.skip(b':');
                    fields.push(Field { position, name, value: self.value()? });
                }
                self.depth -= 1;
                Value::Object(fields)
            }
            b'[' => {
                self.enter()?;
                let mut items = Vec::new();
                while !self.skip(b']') {
                    self.skip(b',');
                    items.push(self.value()?);
                }
                self.depth -= 1;
                Value::List(items)
            }
            _ => {
                let end = |character: char| ",]} \t\r\n{[\"".contains(character);
                let word = self.advance(self.rest.find(end).unwrap_or(self.rest.len()))?;
                match serde_json::from_str(word).ok()? {
                    serde_json::Value::Null => Value::Null,
                    serde_json::Value::Bool(value) => Value::Bool(value),
                    serde_json::Value::Number(number) => Value::Number(number),
                    _ => return None,
                }
            }
        };
        Some(Located { position, value })
    }
}

impl Located {
    /// Returns a value that has its origin at this position.
    pub(crate) fn new(position: Position, value: Value) -> Self {
        Self { position, value }
    }

    /// Returns a string that has its origin at this position.
    pub(crate) fn string(position: Position, text: impl Into<String>) -> Self {
        Self { position, value: Value::String(text.into()) }
    }

    /// Returns a field of this object, which is not null.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        let field = self.fields().iter().find(|field| field.name == name)?;
        (!field.value.is_null()).then_some(&field.value)
    }

    /// Returns the fields of this object. Empty if this is not an object.
    pub(crate) fn fields(&self) -> &[Field] {
        if let Value::Object(fields) = &self.value { fields } else { &[] }
    }

    /// Returns the fields of this object, for changes. A value that is not an object becomes an empty one.
    pub(crate) fn fields_mut(&mut self) -> &mut Vec<Field> {
        if !matches!(self.value, Value::Object(_)) {
            self.value = Value::Object(Vec::new());
        }
        match &mut self.value {
            Value::Object(fields) => fields,
            _ => unreachable!("the value is an object"),
        }
    }

    /// Returns the items of this list. Empty if this is not a list.
    pub(crate) fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// Returns the string, or `None` if this is not a string.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Returns the type of the value, as diagnostics name it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// Returns the value for the compiler of documents.
    pub(crate) fn to_node(&self) -> Node<'_> {
        match &self.value {
            Value::Null => Node::Null,
            Value::Bool(value) => Node::Bool(*value),
            Value::Number(_) => Node::Number,
            Value::String(text) => Node::String(text.into()),
            Value::List(items) => Node::List(items.iter().map(Self::to_node).collect()),
            Value::Object(fields) => {
                Node::Object(fields.iter().map(|Field { name, value, .. }| (name.into(), value.to_node())).collect())
            }
        }
    }

    /// Moves a value that was parsed from the text of a string at `position` to its place in the file, as in
    /// [`Position::within`].
    pub(crate) fn embed(&mut self, position: Position, indentation: Option<u32>) {
        let place = |inner: Position| inner.within(position, indentation);
        self.position = place(self.position);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.embed(position, indentation)),
            Value::Object(fields) => {
                for field in fields {
                    field.position = place(field.position);
                    field.value.embed(position, indentation);
                }
            }
            _ => {}
        }
    }

    const fn is_container(&self) -> bool {
        matches!(self.value, Value::List(_) | Value::Object(_))
    }
}

impl Serialize for Located {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => number.serialize(serializer),
            Value::String(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Object(fields) => {
                let mut object = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|field| object.serialize_entry(&field.name, &field.value))?;
                object.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } = Spanned::deserialize(deserializer)?;
        Ok(Self { position: defined.into(), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("expected a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(Spanned { value: name, defined, .. }) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value()?;
            fields.push(Field { position: defined.into(), name, value });
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::positions::Positions;
    use super::{Position, parse_all};

    fn at(text: &str, pointer: &str, at_name: bool) -> (u32, u32) {
        let documents = parse_all(text).unwrap();
        let Position { line, column } = Positions::of(documents.last().unwrap()).at(pointer, at_name);
        (line, column)
    }

    #[test]
    fn yaml_and_json_have_positions() {
        let yaml = "a:\n- b: x\n  c: [1, yes, null]\n- ü: {d: e}\n";
        for (pointer, at_name, expected) in [
            ("", false, (1, 1)),
            ("/a", true, (1, 1)),
            ("/a/0/b", false, (2, 6)),
            ("/a/0/b", true, (2, 3)),
            ("/a/0/c/1", false, (3, 10)),
            ("/a/1/ü/d", false, (4, 10)),
            ("/a/1/ü/missing", false, (4, 6)),
        ] {
            assert_eq!(at(yaml, pointer, at_name), expected, "{pointer}");
        }
        let json = "{\"a\": 1}\n {\n\t\"b\\\"\": [\"ü\\u00e9\", -1.5e3, {}, []],\t\"c\": null, \"c\": true}\n";
        for (pointer, at_name, expected) in [
            ("", false, (2, 2)),
            ("/b\"", false, (3, 2)),
            ("/b\"/1", false, (3, 21)),
            ("/b\"/2", false, (3, 29)),
            ("/c", true, (3, 49)),
        ] {
            assert_eq!(at(json, pointer, at_name), expected, "{pointer}");
        }
    }

    #[test]
    fn values_are_those_of_the_text() {
        for (text, expected) in [
            ("a: [1, no, 'no', 1.5, ~]", r#"{"a":[1,false,"no",1.5,null]}"#),
            ("a: 1\na: 2", r#"{"a":1,"a":2}"#),
            (r#"{"a":"\ud83d\ude00\/","a":[]}"#, "{\"a\":\"😀/\",\"a\":[]}"),
            ("{a: 1, b: x}", r#"{"a":1,"b":"x"}"#),
            ("a: &x {b: 1}\nc: *x", r#"{"a":{"b":1},"c":{"b":1}}"#),
        ] {
            let documents = parse_all(text).unwrap();
            assert_eq!(serde_json::to_string(&documents[0]).unwrap(), expected);
        }
        assert_eq!(parse_all("").unwrap().len(), 0);
        assert_eq!(parse_all("---\n---\na: 1\n---\n# nothing\n").unwrap().len(), 1);
        assert_eq!(parse_all("{} [] {\"a\":1}").unwrap().len(), 3);
        assert_eq!(parse_all("a: [").unwrap_err().position.map(|position| position.line), Some(1));
    }
}
