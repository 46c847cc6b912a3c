//! The classes of the strings of an attribute: all combinations of languages to which one string can belong.
//!
//! The languages run side by side as one nondeterministic automaton, next to the grammar of the attribute. Every string of the grammar
//! leads to a state that the search visits, because at each state the search follows one character of every kind that the state can
//! distinguish. So each combination that some string has is found, with a shortest string that has it.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::NotDecided;
use super::language::{Chars, Element, Language};

/// The number of states beyond which the classes of an attribute are not decided.
const MAX_STATES: usize = 400_000;
/// The total size of the states.
const MAX_SIZE: usize = 40_000_000;

/// The strings that an attribute can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// A SPIFFE ID of a workload, without `spiffe://`, of any length.
    Principal,
    /// A token (RFC 9110 section 5.6.2).
    Method,
    /// A path that starts with a slash, without a query, a fragment and path parameters.
    Path,
    /// A host in lower case, without user information and trailing dots.
    Host,
    /// One line of a header that is not a list, without spaces at its ends.
    Header,
    /// Any string with at least one character.
    Text,
}

/// The characters that the search follows, in the order in which witnesses prefer them. Each character that they omit belongs to the
/// same classes as one of them: the others are control characters, and those outside ASCII.
const ALPHABET: &str =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~/:=+!$&'()*@;,%#?<>[]{}|\\^`\" éßłжΩ世";

impl Grammar {
    const START: u8 = 0;

    /// Returns the state after a character, or `None` if no string of the grammar continues with it.
    fn step(self, state: u8, character: char) -> Option<u8> {
        let is_visible = !character.is_control() && character != ' ';
        match self {
            // 0: at the start; 1: in the trust domain; 2: after a slash; 3: after `.`; 4: after `..`; 5: in another segment.
            Self::Principal => match (state, character) {
                (0 | 1, 'a'..='z' | '0'..='9' | '.' | '-' | '_') => Some(1),
                (1 | 5, '/') => Some(2),
                (2, '.') => Some(3),
                (3, '.') => Some(4),
                (2..=5, _) if Chars::Segment.contains(character) => Some(5),
                _ => None,
            },
            Self::Method => {
                u8::try_from(character).ok().filter(|byte| super::super::values::is_token_byte(*byte)).map(|_| 1)
            }
            Self::Path => match state {
                0 => (character == '/').then_some(1),
                _ => (is_visible && !matches!(character, '?' | '#' | ';')).then_some(1),
            },
            // 2: after a dot.
            Self::Host => match character {
                '.' if state != 0 => Some(2),
                ':' if state == 2 => None,
                '@' | '/' | '.' => None,
                _ => (is_visible && !character.is_ascii_uppercase()).then_some(1),
            },
            // 2: after a space.
            Self::Header => match character {
                ' ' => (state != 0).then_some(2),
                ',' => None,
                _ => is_visible.then_some(1),
            },
            Self::Text => Some(1),
        }
    }

    /// Returns `true` if answers consider a string outside the grammar that a value of a policy spells.
    pub(super) fn tolerates(self, text: &str) -> bool {
        let is_visible = |text: &str| !text.chars().any(|character| character.is_control() || character == ' ');
        match self {
            Self::Path => text.starts_with('/') && is_visible(text),
            Self::Host => !text.is_empty() && is_visible(text),
            Self::Header => text.contains(',') && !text.chars().any(char::is_control),
            Self::Principal | Self::Method | Self::Text => false,
        }
    }

    const fn accepts(self, state: u8) -> bool {
        match self {
            Self::Principal => state == 5,
            Self::Method | Self::Path | Self::Host | Self::Text => state == 1,
            Self::Header => state != 2,
        }
    }
}

/// A class of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    /// A shortest string of the class.
    pub(super) text: String,
    /// The numbers of the languages that contain the strings of the class, in ascending order.
    pub(super) languages: Box<[u32]>,
}

/// A position in all languages.
#[derive(Debug, Clone, Copy)]
enum Position {
    Before(Element),
    /// The end of the language with this number.
    End(u32),
}

/// Returns the classes of the strings of a grammar, shortest strings first.
///
/// # Errors
/// Returns [`NotDecided::Attribute`] if there are too many states.
pub(super) fn classes(grammar: Grammar, languages: &[Language], name: &str) -> Result<Vec<Class>, NotDecided> {
    let mut search = Search::new(grammar, languages);
    let mut start = Entered::default();
    let mut offset = 0;
    for language in languages {
        search.enter(offset, &mut start);
        offset += to_u32(language.elements.len()) + 1;
    }
    search.visit(Grammar::START, 0, start, None);
    while let Some(state) = search.queue.pop_front() {
        if search.states.len() > MAX_STATES || search.size > MAX_SIZE {
            return Err(NotDecided::Attribute(name.to_owned()));
        }
        search.follow(state);
    }
    let mut found: Vec<(Box<[u32]>, usize)> = search.classes.into_iter().collect();
    found.sort_by_key(|(_, state)| *state);
    let states = &search.states;
    Ok(found.into_iter().map(|(languages, state)| Class { text: text(states, state), languages }).collect())
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Returns the string that leads to a state.
fn text(states: &[State], state: usize) -> String {
    let mut characters = Vec::new();
    let mut state = state;
    while let Some((previous, character)) = states[state].origin {
        characters.push(character);
        state = previous;
    }
    characters.iter().rev().collect()
}

struct State {
    grammar: u8,
    /// The number of the permanent positions.
    permanent: usize,
    /// The other positions.
    own: Box<[u32]>,
    /// The previous state and the character after it.
    origin: Option<(usize, char)>,
}

/// Positions that every later state has, because they follow any number of any characters. Thousands of suffixes would otherwise be a
/// part of each state.
#[derive(Default)]
struct Permanent {
    positions: Box<[u32]>,
    moves: Moves,
    /// The languages that end here.
    ends: Vec<u32>,
}

/// The positions after a character.
#[derive(Default)]
struct Moves {
    literals: FxHashMap<char, Vec<u32>>,
    classes: Vec<(Chars, u32)>,
}

struct Search {
    grammar: Grammar,
    positions: Vec<Position>,
    states: Vec<State>,
    permanents: Vec<Permanent>,
    permanent_numbers: FxHashMap<Box<[u32]>, usize>,
    /// The total number of positions in the states.
    size: usize,
    numbers: FxHashMap<(u8, usize, Box<[u32]>), usize>,
    queue: VecDeque<usize>,
    /// The first state of each class.
    classes: FxHashMap<Box<[u32]>, usize>,
    /// The characters that a state of the grammar distinguishes without the languages, in groups.
    groups: FxHashMap<u8, Vec<Vec<char>>>,
}

/// The positions that a character leads to.
#[derive(Default)]
struct Entered {
    own: Vec<u32>,
    permanent: Vec<u32>,
}

impl Search {
    fn new(grammar: Grammar, languages: &[Language]) -> Self {
        let mut positions = Vec::new();
        for (number, language) in (0..).zip(languages) {
            positions.extend(language.elements.iter().map(|element| Position::Before(*element)));
            positions.push(Position::End(number));
        }
        Self {
            grammar,
            positions,
            states: Vec::new(),
            permanents: vec![Permanent::default()],
            permanent_numbers: FxHashMap::from_iter([(Box::default(), 0)]),
            size: 0,
            numbers: FxHashMap::default(),
            queue: VecDeque::new(),
            classes: FxHashMap::default(),
            groups: FxHashMap::default(),
        }
    }

    /// Adds a position, and those that need no character.
    fn enter(&self, position: u32, to: &mut Entered) {
        let mut position = position;
        let mut is_permanent = false;
        loop {
            let found = self.positions[position as usize];
            is_permanent |= matches!(found, Position::Before(Element::Any(Chars::All)));
            if is_permanent {
                to.permanent.push(position);
            } else {
                to.own.push(position);
            }
            if !matches!(found, Position::Before(Element::Any(_))) {
                return;
            }
            position += 1;
        }
    }

    /// Adds the moves of positions, and the languages that end at them.
    fn moves(&self, positions: &[u32], ends: &mut Vec<u32>) -> Moves {
        let mut moves = Moves::default();
        for position in positions {
            match self.positions[*position as usize] {
                Position::Before(Element::Char(character)) => {
                    moves.literals.entry(character).or_default().push(position + 1);
                }
                Position::Before(Element::One(class)) => moves.classes.push((class, position + 1)),
                // A permanent position stays without a move.
                Position::Before(Element::Any(Chars::All)) => {}
                Position::Before(Element::Any(class)) => moves.classes.push((class, *position)),
                Position::End(language) => ends.push(language),
            }
        }
        moves
    }

    /// Returns the number of the permanent positions with others.
    fn extended(&mut self, permanent: usize, with: &[u32]) -> usize {
        let known = &self.permanents[permanent].positions;
        if with.iter().all(|position| known.binary_search(position).is_ok()) {
            return permanent;
        }
        let mut positions = [known, with].concat();
        positions.sort_unstable();
        positions.dedup();
        let positions = positions.into_boxed_slice();
        if let Some(number) = self.permanent_numbers.get(&positions) {
            return *number;
        }
        let mut ends = Vec::new();
        let moves = self.moves(&positions, &mut ends);
        self.size += positions.len();
        let number = self.permanents.len();
        self.permanent_numbers.insert(positions.clone(), number);
        self.permanents.push(Permanent { positions, moves, ends });
        number
    }

    fn visit(&mut self, grammar: u8, permanent: usize, entered: Entered, origin: Option<(usize, char)>) {
        let permanent = self.extended(permanent, &entered.permanent);
        let mut own = entered.own;
        own.sort_unstable();
        own.dedup();
        let known = &self.permanents[permanent];
        own.retain(|position| known.positions.binary_search(position).is_err());
        let key = (grammar, permanent, own.into_boxed_slice());
        if self.numbers.contains_key(&key) {
            return;
        }
        let number = self.states.len();
        self.size += key.2.len();
        if self.grammar.accepts(grammar) {
            let mut accepted = known.ends.clone();
            accepted.extend(key.2.iter().filter_map(|position| match self.positions[*position as usize] {
                Position::End(language) => Some(language),
                Position::Before(_) => None,
            }));
            accepted.sort_unstable();
            self.classes.entry(accepted.into()).or_insert(number);
        }
        self.states.push(State { grammar, permanent, own: key.2.clone(), origin });
        self.numbers.insert(key, number);
        self.queue.push_back(number);
    }

    /// Visits the states after a state.
    fn follow(&mut self, number: usize) {
        let State { grammar, permanent, own, .. } = &self.states[number];
        let (grammar, permanent) = (*grammar, *permanent);
        let moves = self.moves(own, &mut Vec::new());
        let lasting = &self.permanents[permanent].moves;
        let is_literal =
            |character: &char| moves.literals.contains_key(character) || lasting.literals.contains_key(character);
        let mut characters: Vec<char> = moves.literals.keys().chain(lasting.literals.keys()).copied().collect();
        characters.sort_unstable();
        characters.dedup();
        // The other characters of a group are alike: no literal of this state distinguishes them.
        let groups = self.groups.entry(grammar).or_insert_with(|| groups(self.grammar, grammar));
        let spare = groups.iter().filter_map(|group| group.iter().find(|character| !is_literal(character)));
        let characters: Vec<char> = spare.copied().chain(characters).collect();
        let mut next = Vec::with_capacity(characters.len());
        for character in characters {
            let Some(next_grammar) = self.grammar.step(grammar, character) else { continue };
            let mut entered = Entered::default();
            for Moves { literals, classes } in [&moves, &self.permanents[permanent].moves] {
                for position in literals.get(&character).into_iter().flatten() {
                    self.enter(*position, &mut entered);
                }
                for (_, position) in classes.iter().filter(|(class, _)| class.contains(character)) {
                    self.enter(*position, &mut entered);
                }
            }
            next.push((character, next_grammar, entered));
        }
        for (character, next_grammar, entered) in next {
            self.visit(next_grammar, permanent, entered, Some((number, character)));
        }
    }
}

/// Returns the characters that a string can continue with in a state of the grammar, in groups of equal effect.
fn groups(grammar: Grammar, state: u8) -> Vec<Vec<char>> {
    let mut effects: Vec<(u8, [bool; 4])> = Vec::new();
    let mut groups: Vec<Vec<char>> = Vec::new();
    for character in ALPHABET.chars() {
        let Some(next) = grammar.step(state, character) else { continue };
        let effect = (next, Chars::ALL.map(|class| class.contains(character)));
        match effects.iter().position(|found| *found == effect) {
            Some(position) => groups[position].push(character),
            None => {
                effects.push(effect);
                groups.push(vec![character]);
            }
        }
    }
    groups
}
