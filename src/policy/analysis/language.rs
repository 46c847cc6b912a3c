//! The values of rules as languages: concatenations of characters and of repeated character classes.

use super::super::path_template::{PathTemplate, Segment, is_path_byte};
use super::super::values::{Glob, Path, Text};
use crate::spiffe_id::is_segment_byte;

/// A class of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Chars {
    All,
    /// Those of a trust domain and of a segment of a SPIFFE ID. The grammar of the caller excludes uppercase letters in trust
    /// domains.
    Segment,
    /// Those that `{*}` matches.
    TemplateSegment,
    /// Those that `{**}` matches.
    TemplatePath,
}

impl Chars {
    pub(super) const ALL: [Self; 4] = [Self::All, Self::Segment, Self::TemplateSegment, Self::TemplatePath];

    pub(super) fn contains(self, character: char) -> bool {
        let is = |test: &dyn Fn(u8) -> bool| u8::try_from(character).is_ok_and(|byte| byte.is_ascii() && test(byte));
        match self {
            Self::All => true,
            Self::Segment => is(&is_segment_byte),
            Self::TemplateSegment => is(&|byte| byte == b'*' || is_path_byte(byte)),
            Self::TemplatePath => is(&|byte| matches!(byte, b'*' | b'/') || is_path_byte(byte)),
        }
    }
}

/// A part of a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Element {
    /// This character.
    Char(char),
    /// One character of the class.
    One(Chars),
    /// Any number of characters of the class.
    Any(Chars),
}

/// The set of strings that a value matches, with the form in which answers show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Language {
    pub(super) display: String,
    pub(super) elements: Vec<Element>,
}

impl Language {
    pub(super) const fn new() -> Self {
        Self { display: String::new(), elements: Vec::new() }
    }

    /// Appends these characters.
    pub(super) fn literal(mut self, text: &str) -> Self {
        self.display.push_str(text);
        self.elements.extend(text.chars().map(Element::Char));
        self
    }

    /// Appends any number of characters of a class.
    pub(super) fn any(mut self, class: Chars) -> Self {
        // Two stars in a row are one.
        if self.elements.last() != Some(&Element::Any(class)) {
            self.display.push('*');
            self.elements.push(Element::Any(class));
        }
        self
    }

    /// Appends one or more characters of a class.
    pub(super) fn some(mut self, class: Chars) -> Self {
        self.elements.push(Element::One(class));
        self.any(class)
    }

    /// Appends a string that a value matches, in which `*` is any number of characters of a class.
    pub(super) fn text(self, text: &Text, class: Chars) -> Self {
        match text {
            Text::Present => self.any(class),
            Text::Exact(text) => self.literal(text),
            Text::Prefix(text) => self.literal(text).any(class),
            Text::Suffix(text) => self.any(class).literal(text),
        }
    }

    /// Appends a string that a glob matches.
    pub(super) fn glob(self, Glob { first, rest }: &Glob, class: Chars) -> Self {
        rest.iter().fold(self.literal(first), |language, part| language.any(class).literal(part))
    }

    pub(super) fn of_text(text: &Text) -> Self {
        Self::new().text(text, Chars::All)
    }

    pub(super) fn of_path(path: &Path) -> Self {
        match path {
            Path::Text(text) => Self::of_text(text),
            Path::Template(template) => Self::of_template(template),
        }
    }

    /// Returns `true` if the language contains a string.
    pub(super) fn contains(&self, text: &str) -> bool {
        let closed = |positions: Vec<usize>| -> Vec<usize> {
            let mut closed = Vec::new();
            for mut position in positions {
                closed.push(position);
                while matches!(self.elements.get(position), Some(Element::Any(_))) {
                    position += 1;
                    closed.push(position);
                }
            }
            closed.sort_unstable();
            closed.dedup();
            closed
        };
        let mut positions = closed(vec![0]);
        for character in text.chars() {
            let next = positions.into_iter().filter_map(|position| match self.elements.get(position)? {
                Element::Char(expected) => (*expected == character).then_some(position + 1),
                Element::One(class) => class.contains(character).then_some(position + 1),
                Element::Any(class) => class.contains(character).then_some(position),
            });
            positions = closed(next.collect());
        }
        positions.contains(&self.elements.len())
    }

    /// Returns a short string of the language.
    pub(super) fn example(&self) -> String {
        self.elements
            .iter()
            .filter_map(|element| match element {
                Element::Char(character) => Some(*character),
                Element::One(_) => Some('a'),
                Element::Any(_) => None,
            })
            .collect()
    }

    fn of_template(PathTemplate { head, tail }: &PathTemplate) -> Self {
        let mut language = Self::new();
        let mut display = String::new();
        for segment in head {
            language = language.literal("/");
            language = match segment {
                Segment::Literal(literal) => {
                    display.push('/');
                    display.push_str(literal);
                    language.literal(literal)
                }
                Segment::One => {
                    display.push_str("/{*}");
                    language.some(Chars::TemplateSegment)
                }
            };
        }
        if let Some(tail) = tail {
            display.push_str("/{**}");
            display.push_str(tail);
            language = language.literal("/").any(Chars::TemplatePath).literal(tail);
        }
        Self { display, ..language }
    }
}
