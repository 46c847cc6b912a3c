//! Dynamic metadata: what filters before this one have found out, such as the claims of a verified token.
//!
//! Envoy hands it over as a serialized `envoy.config.core.v3.Metadata`, whose values are `google.protobuf.Struct`s. Only that
//! form keeps the types apart: a number must not be taken for text, nor text for a list.

use crate::request::HostFailure;

/// A value, of the JSON types that policies look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    String(Box<[u8]>),
    /// A list.
    List(Box<[Value]>),
    /// An object.
    Object(Object),
    /// A number, a boolean, or null: no policy matches one.
    Other,
    /// There is a value, and the host does not tell which.
    Unreadable,
}

/// Named values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object(Vec<(Box<[u8]>, Value)>);

/// The bytes are no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataError;

/// What Envoy itself takes of nested JSON.
const MAX_DEPTH: u32 = 100;

impl Object {
    /// Reads a serialized `Metadata`: the objects of each filter, by its name.
    ///
    /// # Errors
    /// When the bytes are no such message, or nested too deep.
    pub fn from_metadata(bytes: &[u8]) -> Result<Self, MetadataError> {
        // Metadata.filter_metadata = 1, a map of Struct.
        object(bytes, &|bytes, depth| object(bytes, &value, depth).map(Value::Object), MAX_DEPTH)
    }

    /// The value at the end of `path`, one name a step.
    ///
    /// # Errors
    /// When the host does not tell it.
    pub fn get(&self, path: &[impl AsRef<str>]) -> Result<Option<&Value>, HostFailure> {
        let Some((name, rest)) = path.split_first() else { return Ok(None) };
        match self.0.iter().find(|(found, _)| **found == *name.as_ref().as_bytes()).map(|(_, value)| value) {
            Some(Value::Unreadable) => Err(HostFailure),
            value if rest.is_empty() => Ok(value),
            Some(Value::Object(object)) => object.get(rest),
            _ => Ok(None),
        }
    }
}

impl FromIterator<(Box<[u8]>, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (Box<[u8]>, Value)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(text) => Self::String(text.as_bytes().into()),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(fields) => Self::Object(fields.into()),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Self::Other,
        }
    }
}

impl From<&serde_json::Map<String, serde_json::Value>> for Object {
    fn from(fields: &serde_json::Map<String, serde_json::Value>) -> Self {
        Self(fields.iter().map(|(name, value)| (name.as_bytes().into(), value.into())).collect())
    }
}

impl Value {
    /// The text, or the texts of the list.
    pub(crate) fn texts(&self) -> Vec<&[u8]> {
        match self {
            Self::String(text) => vec![text],
            Self::List(items) => items.iter().flat_map(Self::texts).collect(),
            Self::Object(_) | Self::Other | Self::Unreadable => Vec::new(),
        }
    }

    /// Whether this is text that `matches`, or a list with such text in it.
    pub fn any_text(&self, matches: impl Fn(&[u8]) -> bool) -> bool {
        match self {
            Self::String(text) => matches(text),
            Self::List(items) => items.iter().any(|item| matches!(item, Self::String(text) if matches(text))),
            Self::Object(_) | Self::Other | Self::Unreadable => false,
        }
    }
}

type ReadValue<'f> = &'f dyn Fn(&[u8], u32) -> Result<Value, MetadataError>;

/// A message whose field 1 is a map from text to what `read` reads: Metadata, or Struct (fields = 1).
fn object(bytes: &[u8], read: ReadValue<'_>, depth: u32) -> Result<Object, MetadataError> {
    let depth = depth.checked_sub(1).ok_or(MetadataError)?;
    let mut entries = Vec::new();
    for field in Fields(bytes) {
        let Field { number: 1, content: Some(entry) } = field? else { continue };
        let (mut name, mut content): (&[u8], &[u8]) = (b"", b"");
        for field in Fields(entry) {
            match field? {
                Field { number: 1, content: Some(bytes) } => name = bytes,
                Field { number: 2, content: Some(bytes) } => content = bytes,
                _ => {}
            }
        }
        entries.push((name.into(), read(content, depth)?));
    }
    Ok(Object(entries))
}

/// google.protobuf.Value: string_value = 3, struct_value = 5, list_value = 6.
fn value(bytes: &[u8], depth: u32) -> Result<Value, MetadataError> {
    let depth = depth.checked_sub(1).ok_or(MetadataError)?;
    let mut found = Value::Other;
    for field in Fields(bytes) {
        found = match field? {
            Field { number: 3, content: Some(bytes) } => Value::String(bytes.into()),
            Field { number: 5, content: Some(bytes) } => Value::Object(object(bytes, &value, depth)?),
            Field { number: 6, content: Some(bytes) } => Value::List(list(bytes, depth)?),
            _ => Value::Other,
        };
    }
    Ok(found)
}

/// google.protobuf.ListValue: values = 1.
fn list(bytes: &[u8], depth: u32) -> Result<Box<[Value]>, MetadataError> {
    let items = Fields(bytes).filter_map(|field| match field {
        Ok(Field { number: 1, content: Some(bytes) }) => Some(value(bytes, depth)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    items.collect()
}

/// The fields of a message: protobuf.dev, "Encoding".
struct Fields<'b>(&'b [u8]);

struct Field<'b> {
    number: u64,
    /// Of a length-delimited field.
    content: Option<&'b [u8]>,
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<Field<'b>, MetadataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(MetadataError))
    }
}

impl<'b> Fields<'b> {
    fn field(&mut self) -> Option<Field<'b>> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => {
                let size = usize::try_from(self.varint()?).ok()?;
                Some(self.take(size)?)
            }
            5 => self.take(4).map(|_| None)?,
            _ => return None,
        };
        Some(Field { number: tag >> 3, content })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, size: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::{MetadataError, Object, Value};
    use crate::request::HostFailure;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut size = content.len();
        while size > 0x7f {
            bytes.push(u8::try_from(size & 0x7f | 0x80).unwrap());
            size >>= 7;
        }
        bytes.push(u8::try_from(size).unwrap());
        bytes.extend(content);
        bytes
    }

    fn entry(name: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, name.as_bytes()), field(2, value)].concat())
    }

    fn text(text: &str) -> Vec<u8> {
        field(3, text.as_bytes())
    }

    #[test]
    fn reads_every_type() {
        let number = [vec![2 << 3 | 1], 1.5f64.to_le_bytes().to_vec()].concat();
        let list = field(6, &[field(1, &text("a")), field(1, &number), field(1, &text("b"))].concat());
        let inner = field(5, &[entry("s", &text("deep")), entry("bool", &[4 << 3, 1])].concat());
        let payload = [entry("list", &list), entry("n", &number), entry("inner", &inner)].concat();
        let metadata = entry("filter", &payload);
        let object = Object::from_metadata(&metadata).unwrap();
        assert_eq!(object.get(&["filter", "inner", "s"]), Ok(Some(&Value::String(b"deep".as_slice().into()))));
        assert_eq!(object.get(&["filter", "n"]), Ok(Some(&Value::Other)));
        assert_eq!(object.get(&["filter", "inner", "bool"]), Ok(Some(&Value::Other)));
        assert_eq!(object.get(&["filter", "n", "x"]), Ok(None));
        assert_eq!(object.get(&["other", "n"]), Ok(None));
        let found = object.get(&["filter", "list"]).unwrap().unwrap();
        assert!(found.any_text(|text| text == b"b") && !found.any_text(|text| text == b"c"));
        assert!(!object.get(&["filter", "n"]).unwrap().unwrap().any_text(|_| true));
    }

    #[test]
    fn what_cannot_be_read_fails_where_it_is_asked_for() {
        let of = |name: &[u8], value| (Box::from(name), value);
        let object: Object = [of(b"hidden", Value::Unreadable), of(b"n", Value::Other)].into_iter().collect();
        assert_eq!(object.get(&["hidden"]), Err(HostFailure));
        assert_eq!(object.get(&["hidden", "deeper"]), Err(HostFailure));
        assert_eq!((object.get(&["n"]), object.get(&["absent"])), (Ok(Some(&Value::Other)), Ok(None)));
    }

    #[test]
    fn refuses_what_is_no_message() {
        for bytes in [&[0x0a][..], &[0x0a, 5, 1], &[0x0f], &[0xff; 11], &[0x09, 1, 2]] {
            assert_eq!(Object::from_metadata(bytes), Err(MetadataError), "{bytes:?}");
        }
        let nested = |depth| (0..depth).fold(text("x"), |inner, _| field(5, &entry("a", &inner)));
        assert!(Object::from_metadata(&entry("f", &entry("a", &nested(40)))).is_ok());
        assert_eq!(Object::from_metadata(&entry("f", &entry("a", &nested(60)))), Err(MetadataError));
    }
}
