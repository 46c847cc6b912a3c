//! The classes of values of dynamic metadata, such as the claims of a token.
//!
//! A value is absent, a string, or a list of strings. Any other value matches nothing, like an absent one. Paths whose values depend on
//! each other are one attribute: the issuer and the subject of `requestPrincipals`, and a path with the beginning of another one,
//! because a string has no fields.

use std::rc::Rc;

use rustc_hash::FxHashSet;
use serde_json::{Map, Value as Json};

use super::super::super::rule::{JWT_PAYLOAD, Matcher, MetadataValue};
use super::super::super::values::Text;
use super::super::NotDecided;
use super::super::automaton::{self, Grammar};
use super::super::language::Language;
use super::{Atoms, Attribute, Class, Classes, MetadataPath, Value, name_of};
use crate::case::CaseRequest;

/// The number of kinds of strings of which every combination in a list is considered.
const MAX_COMBINED: usize = 10;
/// The maximum number of lists for a path with more kinds of strings.
const MAX_LISTS: usize = 5_000;
/// The maximum number of classes of an attribute.
const MAX_CLASSES: usize = 50_000;

/// Returns the path of a claim.
pub(super) fn claim(name: &str) -> MetadataPath {
    [JWT_PAYLOAD[0], JWT_PAYLOAD[1], name].map(Box::from).into()
}

/// Returns the paths that matchers read, grouped by dependence.
pub(in super::super) fn components<'m>(matchers: impl Iterator<Item = &'m Matcher>) -> Vec<Rc<[MetadataPath]>> {
    let mut paths: Vec<MetadataPath> = Vec::new();
    let mut reads_principal = false;
    let mut seen = FxHashSet::default();
    for matcher in matchers {
        let read = match matcher {
            Matcher::Metadata(path, _) => vec![path.clone()],
            Matcher::RequestPrincipals(_) => {
                reads_principal = true;
                vec![claim("iss"), claim("sub")]
            }
            _ => continue,
        };
        paths.extend(read.into_iter().filter(|path| seen.insert(path.clone())));
    }
    let of_principal = [claim("iss"), claim("sub")];
    let depend = |one: &MetadataPath, other: &MetadataPath| {
        one.starts_with(other)
            || other.starts_with(one)
            || (reads_principal && of_principal.contains(one) && of_principal.contains(other))
    };
    let mut components: Vec<Vec<MetadataPath>> = Vec::new();
    for path in paths {
        let (joined, apart): (Vec<_>, Vec<_>) =
            components.into_iter().partition(|component| component.iter().any(|other| depend(&path, other)));
        components = apart;
        components.push(joined.into_iter().flatten().chain([path]).collect());
    }
    components.into_iter().map(Rc::from).collect()
}

/// Returns the values of an attribute in the claims of a token, or `None` if it has a value of another filter.
pub(in super::super) fn given_claims(paths: &Rc<[MetadataPath]>, claims: &Map<String, Json>) -> Option<Value> {
    let mut values = Vec::new();
    for path in paths.iter() {
        let [filter, payload, first, rest @ ..] = &**path else { return None };
        if [&**filter, &**payload] != JWT_PAYLOAD {
            return None;
        }
        let value = rest.iter().try_fold(claims.get(&**first), |value, name| Some(value?.get(&**name)));
        values.extend(value.flatten().map(|value| (path.clone(), value.clone())));
    }
    Some(if values.is_empty() { Value::Absent } else { Value::Metadata(values) })
}

/// Sets a value of the metadata of a request.
pub(super) fn insert(request: &mut CaseRequest, path: &MetadataPath, value: &Json) {
    match &**path {
        [filter, payload, claims @ ..] if [&**filter, &**payload] == JWT_PAYLOAD && !claims.is_empty() => {
            insert_at(request.claims.get_or_insert_with(Map::new), claims, value);
        }
        path => insert_at(&mut request.metadata, path, value),
    }
}

fn insert_at(object: &mut Map<String, Json>, path: &[Box<str>], value: &Json) {
    match path {
        [] => {}
        [name] => {
            object.insert(name.to_string(), value.clone());
        }
        [name, rest @ ..] => {
            let inner = object.entry(name.to_string()).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                insert_at(inner, rest, value);
            }
        }
    }
}

/// A value of a policy: what it must be, for the value at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Atom {
    path: usize,
    kind: Kind,
    text: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    String,
    InList,
    StringOrInList,
}

/// A possible value at a path, with the values of policies that match it.
#[derive(Clone)]
struct Choice {
    value: Option<Json>,
    atoms: Vec<u32>,
}

pub(super) fn classes(
    attribute: &Attribute,
    paths: &Rc<[MetadataPath]>,
    matchers: &[&Matcher],
) -> Result<Classes, NotDecided> {
    let atoms = atoms(paths, matchers);
    let mut limit = None;
    let mut combined: Vec<Vec<Choice>> = vec![Vec::new()];
    for (number, path) in paths.iter().enumerate() {
        let choices = choices(path, number, &atoms.atoms, &mut limit)?;
        if combined.len().saturating_mul(choices.len()) > MAX_CLASSES {
            return Err(NotDecided::Attribute(attribute.to_string()));
        }
        combined = combined
            .iter()
            .flat_map(|values| choices.iter().map(move |choice| [&**values, std::slice::from_ref(choice)].concat()))
            .filter(|values| is_possible(paths, values))
            .collect();
    }
    let classes = combined.into_iter().map(|values| {
        let mut atoms: Vec<u32> = values.iter().flat_map(|choice| choice.atoms.iter().copied()).collect();
        atoms.sort_unstable();
        let present = paths.iter().zip(values).filter_map(|(path, choice)| Some((path.clone(), choice.value?)));
        let present: Vec<_> = present.collect();
        let value = if present.is_empty() { Value::Absent } else { Value::Metadata(present) };
        Class { value, atoms: atoms.into() }
    });
    let classes = classes.collect();
    let display = |Atom { path, kind, text }: &Atom| {
        let text = Language::of_text(text).display;
        let text = if *kind == Kind::InList { format!("[{text}]") } else { text };
        if paths.len() == 1 { text } else { format!("{}: {text}", name_of(&paths[*path])) }
    };
    let displays = atoms.atoms.iter().map(display).collect();
    Ok(Classes { classes, atoms: displays, uses: atoms.uses, spelled: 0, limit })
}

/// Returns `false` if a value that is not an object would have fields.
fn is_possible(paths: &[MetadataPath], values: &[Choice]) -> bool {
    let present = || paths.iter().zip(values).filter(|(_, choice)| choice.value.is_some()).map(|(path, _)| path);
    !present().any(|outer| present().any(|inner| inner.len() > outer.len() && inner.starts_with(outer)))
}

/// Returns the values of policies.
fn atoms(paths: &[MetadataPath], matchers: &[&Matcher]) -> Atoms<Atom> {
    let mut atoms = Atoms::new();
    let number_of = |path: &MetadataPath| paths.iter().position(|other| other == path).unwrap_or_default();
    for (number, matcher) in matchers.iter().enumerate() {
        match matcher {
            Matcher::Metadata(path, values) => {
                let path = number_of(path);
                for value in values.any_of.iter().chain(&values.none_of) {
                    let (kind, text) = match value {
                        MetadataValue::Text(text) => (Kind::String, text),
                        MetadataValue::InList(text) => (Kind::InList, text),
                        MetadataValue::TextOrInList(text) => (Kind::StringOrInList, text),
                    };
                    atoms.add(Atom { path, kind, text: text.clone() }, Some(number));
                }
            }
            Matcher::RequestPrincipals(values) => {
                for value in values.any_of.iter().chain(&values.none_of) {
                    for (name, text) in [("iss", &value.issuer), ("sub", &value.subject)] {
                        let path = number_of(&claim(name));
                        atoms.add(Atom { path, kind: Kind::String, text: text.clone() }, Some(number));
                    }
                }
            }
            _ => {}
        }
    }
    atoms
}

/// Returns the values at a path that policies distinguish. The first one is absent.
fn choices(
    path: &MetadataPath,
    number: usize,
    atoms: &[Atom],
    limit: &mut Option<String>,
) -> Result<Vec<Choice>, NotDecided> {
    let own: Vec<(u32, &Atom)> = (0..).zip(atoms).filter(|(_, atom)| atom.path == number).collect();
    let mut texts: Vec<&Text> = Vec::new();
    let mut text_of: Vec<usize> = Vec::new();
    for (_, atom) in &own {
        let position = texts.iter().position(|text| **text == atom.text).unwrap_or_else(|| {
            texts.push(&atom.text);
            texts.len() - 1
        });
        text_of.push(position);
    }
    let languages: Vec<Language> = texts.iter().map(|text| Language::of_text(text)).collect();
    let kinds = automaton::classes(Grammar::Text, &languages, &name_of(path))?;
    let matched = |languages: &[u32], is_list: bool| -> Vec<u32> {
        let is_kind = |kind: Kind| if is_list { kind != Kind::String } else { kind != Kind::InList };
        let own = own.iter().zip(&text_of);
        own.filter(|((_, atom), text)| {
            is_kind(atom.kind) && languages.iter().any(|language| *language as usize == **text)
        })
        .map(|((atom, _), _)| *atom)
        .collect()
    };
    let mut seen = FxHashSet::from_iter([Vec::new()]);
    let mut choices = vec![Choice { value: None, atoms: Vec::new() }];
    for automaton::Class { text, languages } in &kinds {
        let atoms = matched(languages, false);
        if seen.insert(atoms.clone()) {
            choices.push(Choice { value: Some(Json::String(text.clone())), atoms });
        }
    }
    if own.iter().any(|(_, atom)| atom.kind != Kind::String) {
        let items: Vec<&automaton::Class> = kinds.iter().filter(|kind| !kind.languages.is_empty()).collect();
        for list in lists(&items, path, limit) {
            let mut languages: Vec<u32> = list.iter().flat_map(|item| item.languages.iter().copied()).collect();
            languages.sort_unstable();
            languages.dedup();
            let atoms = matched(&languages, true);
            if seen.insert(atoms.clone()) {
                let value = Json::Array(list.iter().map(|item| Json::String(item.text.clone())).collect());
                choices.push(Choice { value: Some(value), atoms });
            }
        }
    }
    Ok(choices)
}

/// Returns the lists of strings that are considered, shortest first.
fn lists<'k>(
    items: &[&'k automaton::Class],
    path: &MetadataPath,
    limit: &mut Option<String>,
) -> Vec<Vec<&'k automaton::Class>> {
    let mut lists: Vec<Vec<usize>> = (0..items.len()).map(|item| vec![item]).collect();
    let mut longest = lists.clone();
    let mut length = 1;
    while !longest.is_empty() {
        let after = |list: &[usize]| list.last().map_or(0, |last| last + 1);
        let count: usize = longest.iter().map(|list| items.len() - after(list)).sum();
        if items.len() > MAX_COMBINED && lists.len() + count > MAX_LISTS {
            let values = if length == 1 { "1 value".to_owned() } else { format!("{length} values") };
            *limit = Some(format!("`{}`: only lists with at most {values} that policies name", name_of(path)));
            break;
        }
        let longer: Vec<Vec<usize>> = longest
            .iter()
            .flat_map(|list| (after(list)..items.len()).map(move |item| [&**list, &[item]].concat()))
            .collect();
        length += 1;
        lists.extend(longer.iter().cloned());
        longest = longer;
    }
    lists.into_iter().map(|list| list.into_iter().map(|item| items[item]).collect()).collect()
}
