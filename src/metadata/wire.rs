//! The wire format of protobuf (protobuf.dev, "Encoding"), as far as dynamic metadata needs it.

use super::{MetadataError, Object, Value};

/// The maximum depth of nested values, which is Envoy's limit for JSON.
const MAX_DEPTH: u32 = 100;

/// Parses a `Metadata` message: `filter_metadata = 1`, a map of `Struct`.
pub(super) fn metadata(bytes: &[u8]) -> Result<Object, MetadataError> {
    object(bytes, &|bytes, depth| object(bytes, &value, depth).map(Value::Object), MAX_DEPTH)
}

type ReadValue<'f> = &'f dyn Fn(&[u8], u32) -> Result<Value, MetadataError>;

/// Parses a message whose field 1 is a map from strings to the values that `read` parses: `Metadata`, or `Struct` (`fields = 1`).
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

/// Parses a `google.protobuf.Value`: `string_value = 3`, `struct_value = 5`, `list_value = 6`.
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

/// Parses a `google.protobuf.ListValue`: `values = 1`.
fn list(bytes: &[u8], depth: u32) -> Result<Box<[Value]>, MetadataError> {
    let items = Fields(bytes).filter_map(|field| match field {
        Ok(Field { number: 1, content: Some(bytes) }) => Some(value(bytes, depth)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    items.collect()
}

/// The fields of a message.
struct Fields<'b>(&'b [u8]);

struct Field<'b> {
    number: u64,
    /// The bytes of a length-delimited field.
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
