//! Regions as patterns that people read, in the words of policies.

use super::attribute::{Attribute, Classes, Value};
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

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.pattern)?;
        if self.except.is_empty() { Ok(()) } else { write!(f, " except {}", self.except.join(", ")) }
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
    others: Vec<(&'static str, Set)>,
}

impl<'s> Vocabulary<'s> {
    pub(super) fn new(attribute: &Attribute, classes: &'s Classes) -> Self {
        let len = classes.classes.len();
        let absent: Set = (0..len).filter(|class| classes.classes[*class].value == Value::Absent).collect();
        let all = Set::full(len);
        let others = if *attribute == Attribute::Caller {
            let identified = all.without(&absent);
            vec![("any caller", all), ("any accepted identity", identified), ("a caller without an identity", absent)]
        } else if classes.atoms.iter().any(|atom| atom == "*") {
            vec![("any or none", all), ("none", absent)]
        } else {
            vec![("any or none", all)]
        };
        Self { classes, values: classes.vocabulary(), others }
    }

    /// Returns patterns that match the classes of `target`, and no class of `avoided`.
    fn cover(&self, target: &Set, avoided: &Set, depth: usize) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        let mut rest = target.clone();
        while let Some(class) = rest.first() {
            let of_values = self.classes.classes[class].atoms.iter().map(|atom| {
                let atom = *atom as usize;
                (&*self.classes.atoms[atom], &self.values[atom])
            });
            let others = self.others.iter().filter(|(_, set)| set.contains(class)).map(|(name, set)| (*name, set));
            let best = of_values
                .chain(others)
                .min_by_key(|(name, set)| (set.and(avoided).count(), usize::MAX - set.and(&rest).count(), name.len()));
            let exceptions = best.map(|(_, set)| set.and(avoided));
            let is_too_deep =
                depth >= MAX_DEPTH && exceptions.as_ref().is_some_and(|exceptions| !exceptions.is_empty());
            match best.zip(exceptions).filter(|_| !is_too_deep) {
                Some(((name, set), exceptions)) => {
                    let except = self.cover(&exceptions, &set.and(target), depth + 1);
                    let except = except.iter().map(Pattern::nested).collect();
                    patterns.push(Pattern { pattern: name.to_owned(), except });
                    rest = rest.without(set);
                }
                None => {
                    let value = match &self.classes.classes[class].value {
                        Value::Absent => "none".to_owned(),
                        Value::Text(text) => text.clone(),
                        Value::Port(port) => port.to_string(),
                        Value::Address(address) => address.to_string(),
                        Value::Metadata(values) => {
                            values.iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>().join(", ")
                        }
                    };
                    patterns.push(Pattern { pattern: format!("values like {value}"), except: Vec::new() });
                    rest = rest.without(&[class].into_iter().collect());
                }
            }
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
    /// The callers that no policy set accepts. They are in no region, so a pattern can match them.
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
