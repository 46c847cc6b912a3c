//! The positions of JSON pointers in a value.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Field, Located, Position, Value};

/// The first and the last field with each name in an object.
type Names<'l> = HashMap<&'l str, [&'l Field; 2]>;

/// Finds the positions of many JSON pointers in a value, each in the time of its length.
pub(crate) struct Positions<'l> {
    root: &'l Located,
    /// The names in each object that a pointer has passed, by the address of its fields.
    objects: RefCell<HashMap<*const Field, Names<'l>>>,
}

impl<'l> Positions<'l> {
    /// Returns the positions in a value.
    pub(crate) fn of(root: &'l Located) -> Self {
        Self { root, objects: RefCell::default() }
    }

    /// Returns the position of the value at a JSON pointer (RFC 6901), or of the closest part of the tree that contains
    /// it. If the last part of the pointer names a field, and `at_name` is `true` or the value is an object or a list, it is
    /// the position of the name. `at_name` selects the last field with this name, and otherwise the first.
    pub(crate) fn at(&self, pointer: &str, at_name: bool) -> Position {
        let mut parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).peekable();
        let mut node = self.root;
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            node = match &node.value {
                Value::List(items) => match part.parse::<usize>().ok().and_then(|index| items.get(index)) {
                    Some(item) => item,
                    None => break,
                },
                Value::Object(fields) => match self.named(fields, &part) {
                    Some([_, last]) if is_last && at_name => return last.position,
                    Some([first, _]) if is_last && first.value.is_container() => return first.position,
                    Some([first, _]) => &first.value,
                    None => break,
                },
                _ => break,
            };
        }
        node.position
    }

    /// Returns the first and the last field with this name.
    fn named(&self, fields: &'l [Field], name: &str) -> Option<[&'l Field; 2]> {
        let mut objects = self.objects.borrow_mut();
        let names = objects.entry(fields.as_ptr()).or_insert_with(|| {
            let mut names = Names::new();
            for field in fields {
                names.entry(&field.name).and_modify(|[_, last]| *last = field).or_insert([field, field]);
            }
            names
        });
        names.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Positions;
    use crate::located::{Located, Position, parse_all};

    /// Code that searches the object for each pointer needs minutes for this input, and otherwise seconds.
    #[test]
    fn fields_are_found_in_linear_time() {
        const COUNT: u32 = 50_000;
        let text: String = (0..COUNT).map(|number| format!("\"field{number}\": 1,\n")).collect();
        let documents: Vec<Located> = parse_all(&format!("{{{text}\"last\": 1}}")).unwrap();
        let positions = Positions::of(&documents[0]);
        let start = Instant::now();
        for number in 0..COUNT {
            let position = positions.at(&format!("/field{number}"), true);
            assert_eq!(position, Position { line: number + 1, column: if number == 0 { 2 } else { 1 } });
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
