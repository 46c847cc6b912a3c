//! Text in Markdown.

use crate::printable::Printable;

/// Returns text as code. An HTML element can contain every character if some of them are entities.
pub(crate) fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

/// Escapes text, so that it is not markup in a paragraph, a heading or a cell of a table.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in Printable(text).to_string().chars() {
        match character {
            '&' | '<' | '>' | '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '@' | '#' | ':' => {
                escaped.push_str(&format!("&#{};", u32::from(character)));
            }
            character => escaped.push(character),
        }
    }
    escaped
}
