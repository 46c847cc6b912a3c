//! Dynamic metadata, which earlier filters write, such as the claims of a verified token.
//!
//! Envoy provides it as a serialized `envoy.config.core.v3.Metadata` with `google.protobuf.Struct` values. Only this form
//! distinguishes the types: a number must not match a string, nor a string a list.

mod wire;

/// A value of a JSON type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    String(Box<[u8]>),
    /// A list.
    List(Box<[Value]>),
    /// An object.
    Object(Object),
    /// A number, a boolean, or null, which no policy matches.
    Other,
    /// A value that the host does not expose.
    Unreadable,
}

/// An object of named values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object(Vec<(Box<[u8]>, Value)>);

/// The error of parsing bytes that are not a `Metadata` message, or that are nested too deeply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataError;

/// The host did not expose a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Object {
    /// Parses a serialized `Metadata` message, which contains an object for each filter.
    ///
    /// # Errors
    /// Returns [`MetadataError`] if the bytes are not such a message, or are nested too deeply.
    pub fn from_metadata(bytes: &[u8]) -> Result<Self, MetadataError> {
        wire::metadata(bytes)
    }

    /// The value at this path of names, or `None` if it is absent.
    ///
    /// # Errors
    /// Returns [`Unreadable`] if the host does not expose the value.
    pub fn get(&self, path: &[impl AsRef<str>]) -> Result<Option<&Value>, Unreadable> {
        let Some((name, rest)) = path.split_first() else { return Ok(None) };
        match self.0.iter().find(|(found, _)| **found == *name.as_ref().as_bytes()).map(|(_, value)| value) {
            Some(Value::Unreadable) => Err(Unreadable),
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
    /// Returns the string, or the strings of the list.
    pub(crate) fn texts(&self) -> Vec<&[u8]> {
        match self {
            Self::String(text) => vec![text],
            Self::List(items) => items.iter().flat_map(Self::texts).collect(),
            Self::Object(_) | Self::Other | Self::Unreadable => Vec::new(),
        }
    }

    /// Returns `true` if this is a string for which `matches` returns `true`, or a list that contains one.
    pub fn any_text(&self, matches: impl Fn(&[u8]) -> bool) -> bool {
        match self {
            Self::String(text) => matches(text),
            Self::List(items) => items.iter().any(|item| matches!(item, Self::String(text) if matches(text))),
            Self::Object(_) | Self::Other | Self::Unreadable => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MetadataError, Object, Unreadable, Value};
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
    fn an_unreadable_value_fails_when_it_is_read() {
        let of = |name: &[u8], value| (Box::from(name), value);
        let object: Object = [of(b"hidden", Value::Unreadable), of(b"n", Value::Other)].into_iter().collect();
        assert_eq!(object.get(&["hidden"]), Err(Unreadable));
        assert_eq!(object.get(&["hidden", "deeper"]), Err(Unreadable));
        assert_eq!((object.get(&["n"]), object.get(&["absent"])), (Ok(Some(&Value::Other)), Ok(None)));
    }

    #[test]
    fn rejects_bytes_that_are_not_a_message() {
        for bytes in [&[0x0a][..], &[0x0a, 5, 1], &[0x0f], &[0xff; 11], &[0x09, 1, 2]] {
            assert_eq!(Object::from_metadata(bytes), Err(MetadataError), "{bytes:?}");
        }
        let nested = |depth| (0..depth).fold(text("x"), |inner, _| field(5, &entry("a", &inner)));
        assert!(Object::from_metadata(&entry("f", &entry("a", &nested(40)))).is_ok());
        assert_eq!(Object::from_metadata(&entry("f", &entry("a", &nested(60)))), Err(MetadataError));
    }
}
