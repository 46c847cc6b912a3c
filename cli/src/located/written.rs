//! Values that the program writes. They have no place in a file.

use super::{Field, Located, Position, Value};

/// The position of values that do not come from a file.
pub(crate) const NOWHERE: Position = Position { line: 0, column: 0 };

/// Returns a string.
pub(crate) fn text(text: impl Into<String>) -> Located {
    Located::string(NOWHERE, text)
}

/// Returns a number.
pub(crate) fn number(number: impl Into<serde_json::Number>) -> Located {
    Located::new(NOWHERE, Value::Number(number.into()))
}

/// Returns a list.
pub(crate) fn list(items: impl IntoIterator<Item = Located>) -> Located {
    Located::new(NOWHERE, Value::List(items.into_iter().collect()))
}

/// Returns a field.
pub(crate) fn field(name: &str, value: Located) -> Field {
    Field { position: value.position, name: name.to_owned(), value }
}

/// Returns an object with these fields, in this order.
pub(crate) fn object<'n>(fields: impl IntoIterator<Item = (&'n str, Located)>) -> Located {
    let fields = fields.into_iter().map(|(name, value)| field(name, value)).collect();
    Located::new(NOWHERE, Value::Object(fields))
}
