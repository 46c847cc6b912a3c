//! The classes of attributes that are strings.

use super::super::super::rule::Matcher;
use super::super::NotDecided;
use super::super::automaton::{self, Grammar};
use super::super::language::Language;
use super::{Atoms, Attribute, Class, Classes, Value};

/// The methods that examples prefer.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];

pub(super) fn classes(attribute: &Attribute, grammar: Grammar, matchers: &[&Matcher]) -> Result<Classes, NotDecided> {
    let mut atoms = Atoms::new();
    for (number, matcher) in matchers.iter().enumerate() {
        languages(matcher).into_iter().for_each(|language| atoms.add(language, Some(number)));
    }
    let found = automaton::classes(grammar, &atoms.atoms, &attribute.to_string())?;
    let mut is_reached = vec![false; atoms.atoms.len()];
    let mut classes = Vec::new();
    // A value that matches no value of a policy is like an absent attribute.
    let can_be_absent = !matches!(attribute, Attribute::Method | Attribute::Path);
    if can_be_absent {
        classes.push(Class { value: Value::Absent, atoms: Box::default() });
    }
    for automaton::Class { text, languages } in found {
        languages.iter().for_each(|language| is_reached[*language as usize] = true);
        if !(can_be_absent && languages.is_empty()) {
            let text = if *attribute == Attribute::Method { usual(&atoms.atoms, &languages, text) } else { text };
            classes.push(Class { value: Value::Text(text), atoms: languages });
        }
    }
    if let Some(usual) = classes.iter().position(|class| class.value == Value::Text(METHODS[0].to_owned())) {
        classes.swap(0, usual);
    }
    let regular = classes.len();
    for ((number, language), is_reached) in (0..).zip(&atoms.atoms).zip(is_reached) {
        let text = language.example();
        if !is_reached && grammar.tolerates(&text) {
            classes.push(Class { value: Value::Text(text), atoms: [number].into() });
        }
    }
    let spelled = classes.len() - regular;
    let displays = atoms.atoms.into_iter().map(|language| language.display).collect();
    Ok(Classes { classes, atoms: displays, uses: atoms.uses, spelled, limit: None })
}

/// Returns a usual method of a class, or `other` if it has none.
fn usual(languages: &[Language], of_class: &[u32], other: String) -> String {
    let is_in_class = |method: &&str| {
        let found = (0..).zip(languages).filter(|(_, language)| language.contains(method)).map(|(number, _)| number);
        found.eq(of_class.iter().copied())
    };
    METHODS.into_iter().find(is_in_class).map_or(other, str::to_owned)
}

/// Returns the values of a matcher of a string.
fn languages(matcher: &Matcher) -> Vec<Language> {
    match matcher {
        Matcher::Methods(values)
        | Matcher::ServerNames(values)
        | Matcher::Hosts(values, _)
        | Matcher::Header(_, values, _) => values.any_of.iter().chain(&values.none_of).map(Language::of_text).collect(),
        Matcher::Paths(values, _) => values.any_of.iter().chain(&values.none_of).map(Language::of_path).collect(),
        _ => Vec::new(),
    }
}
