//! Regions as patterns that people read, in the words of policies.

use std::cmp::Reverse;
use std::fmt;

use super::attribute::{Attribute, Class, Classes, Value};
use super::cube::Cube;
use super::set::Set;
use super::space::{CALLER, Space};

/// Requests, as patterns of their attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// The callers.
    pub callers: Vec<Pattern>,
    /// The attributes that have not every value.
    pub conditions: Vec<Condition>,
}

/// The values of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The name, such as `path` or `request.headers[x-token]`.
    pub attribute: String,
    /// The patterns, one of which a value matches.
    pub values: Vec<Pattern>,
    /// Whether another filter writes the attribute, so that any request can have any value.
    pub is_opaque: bool,
}

/// Values in the form in which policies have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern.
    pub pattern: String,
    /// The patterns of other values that match it.
    pub except: Vec<String>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)?;
        if self.except.is_empty() { Ok(()) } else { write!(f, " except {}", self.except.join(" or ")) }
    }
}

/// The number of exceptions within exceptions.
const MAX_DEPTH: usize = 4;

/// The patterns of an attribute.
pub(super) struct Vocabulary<'s> {
    classes: &'s Classes,
    /// The classes that each value of a policy matches.
    values: Vec<Set>,
    /// Other patterns.
    others: Vec<(String, Set)>,
}

impl<'s> Vocabulary<'s> {
    pub(super) fn new(attribute: &Attribute, classes: &'s Classes) -> Self {
        let len = classes.classes.len();
        let absent: Set = (0..len).filter(|class| classes.classes[*class].value == Value::Absent).collect();
        let all = Set::full(len);
        let others = match (attribute, &*classes.classes) {
            // The question fixes the caller.
            (Attribute::Caller, [Class { value: Value::Text(principal), .. }]) => vec![(&**principal, all)],
            (Attribute::Caller, _) => vec![
                ("any accepted caller", all.clone()),
                ("any accepted identity", all.without(&absent)),
                ("a caller without an identity", absent),
            ],
            _ if absent.is_empty() => vec![("any", all)],
            _ if classes.atoms.iter().any(|atom| atom == "*") => vec![("any or none", all), ("none", absent)],
            _ => vec![("any or none", all)],
        };
        let others = others.into_iter().map(|(name, set)| (name.to_owned(), set)).collect();
        Self { classes, values: classes.vocabulary(), others }
    }

    /// Returns the pattern of a class that matches most of `rest`, with the classes that it matches.
    fn best(&self, class: usize, rest: &Set, target: &Set, avoided: &Set, depth: usize) -> (Pattern, Set) {
        let of_values = self.classes.classes[class].atoms.iter().map(|atom| {
            let atom = *atom as usize;
            (&*self.classes.atoms[atom], &self.values[atom])
        });
        let others = self.others.iter().filter(|(_, set)| set.contains(class)).map(|(name, set)| (&**name, set));
        // Words are preferred to a pattern for the same values.
        let options: Vec<(&str, &Set)> = of_values.chain(others).collect();
        let is_word = |name: &str| self.others.iter().any(|(other, _)| *other == name);
        let plain = |pattern: String| Pattern { pattern, except: Vec::new() };
        let exact = options.iter().filter(|(_, set)| !set.intersects(avoided));
        if let Some((name, set)) =
            exact.max_by_key(|(name, set)| (set.and(rest).count(), is_word(name), Reverse(name.len())))
        {
            return (plain((*name).to_owned()), (*set).clone());
        }
        let pairs = options.iter().enumerate().flat_map(|(position, one)| {
            options[position + 1..].iter().map(move |other| (one.0, other.0, one.1.and(other.1)))
        });
        let exact = pairs.filter(|(.., set)| !set.intersects(avoided));
        if let Some((one, other, set)) = exact.max_by_key(|(.., set)| set.and(rest).count()) {
            return (plain(format!("{one} and {other}")), set);
        }
        let fewest = options.iter().min_by_key(|(name, set)| (set.and(avoided).count(), name.len()));
        match fewest.filter(|_| depth < MAX_DEPTH) {
            Some((name, set)) => {
                let except = self.cover(&set.and(avoided), &set.and(target), depth + 1);
                let except = except.iter().map(Pattern::nested).collect();
                (Pattern { pattern: (*name).to_owned(), except }, (*set).clone())
            }
            None => (plain(self.example(class)), [class].into_iter().collect()),
        }
    }

    /// Returns a pattern of a class that only a value of it describes.
    fn example(&self, class: usize) -> String {
        match &self.classes.classes[class].value {
            Value::Absent => "none".to_owned(),
            Value::Text(text) => format!("values like {text}"),
            Value::Port(port) => format!("values like {port}"),
            Value::Address(address) => format!("values like {address}"),
            Value::Metadata(values) => {
                let values: Vec<String> = values.iter().map(|(_, value)| value.to_string()).collect();
                format!("values like {}", values.join(", "))
            }
        }
    }

    /// Returns patterns that match the classes of `target`, and no class of `avoided`.
    fn cover(&self, target: &Set, avoided: &Set, depth: usize) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        let mut rest = target.clone();
        while let Some(class) = rest.first() {
            let (pattern, covered) = self.best(class, &rest, target, avoided, depth);
            patterns.push(pattern);
            rest = rest.without(&covered);
        }
        patterns
    }
}

impl Pattern {
    /// The pattern as an exception of another one.
    fn nested(&self) -> String {
        if self.except.is_empty() { self.pattern.clone() } else { format!("({self})") }
    }
}

/// The patterns of all attributes of a space.
pub(super) struct Vocabularies<'s> {
    vocabularies: Vec<Vocabulary<'s>>,
    /// The callers that every policy set rejects. No region contains them, so a pattern can match them.
    rejected: Set,
}

impl<'s> Vocabularies<'s> {
    pub(super) fn new(space: &'s Space<'_>) -> Self {
        let accepted = space.sides.iter().fold(Set::default(), |accepted, side| accepted.or(&side.accepted));
        Self {
            vocabularies: space
                .attributes
                .iter()
                .map(|(attribute, classes)| Vocabulary::new(attribute, classes))
                .collect(),
            rejected: Set::full(space.sizes[CALLER]).without(&accepted),
        }
    }

    /// Describes a region.
    pub(super) fn describe(&self, space: &Space<'_>, region: &Cube) -> Requests {
        let patterns = |attribute: usize, set: &Set| {
            let mut avoided = Set::full(space.sizes[attribute]).without(set);
            if attribute == CALLER {
                avoided = avoided.without(&self.rejected);
            }
            self.vocabularies[attribute].cover(set, &avoided, 0)
        };
        let callers = match region.get(CALLER) {
            Some(callers) => patterns(CALLER, callers),
            None => patterns(CALLER, &Set::full(space.sizes[CALLER])),
        };
        let conditions = space.attributes.iter().enumerate().skip(1).filter_map(|(position, (attribute, _))| {
            let set = region.get(position)?;
            (set.count() < space.sizes[position]).then(|| Condition {
                attribute: attribute.to_string(),
                values: patterns(position, set),
                is_opaque: attribute.is_opaque(),
            })
        });
        Requests { callers, conditions: conditions.collect() }
    }
}
