//! Paths that differ in identifiers, as path templates. docs/policies.md has the rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The maximum number of `{*}` in a template.
pub(super) const MAX_WILDCARDS: usize = 3;
/// The maximum number of paths that a template excludes.
pub(super) const MAX_EXCLUDED: usize = 20;
/// The operator for one segment.
const WILDCARD: &str = "{*}";

/// Words in segments that a template must not match unless the caller was seen with the path.
const SENSITIVE: [&str; 24] = [
    "actuator",
    "admin",
    "administrator",
    "all",
    "backup",
    "bulk",
    "config",
    "credentials",
    "debug",
    "delete",
    "export",
    "internal",
    "key",
    "keys",
    "login",
    "metrics",
    "password",
    "private",
    "root",
    "secret",
    "secrets",
    "settings",
    "token",
    "tokens",
];

/// The form of an identifier. One `{*}` replaces identifiers of one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Number,
    Uuid,
    Hex,
    Date,
    Ulid,
}

impl Kind {
    /// Returns the form of a segment, or `None` if it is not an identifier.
    fn of(segment: &str) -> Option<Self> {
        let bytes = segment.as_bytes();
        let is_hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
        let has_digit = || bytes.iter().any(u8::is_ascii_digit);
        // Crockford's alphabet of base 32.
        let is_ulid = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() && !b"ILOU".contains(byte);
        let groups = |lengths: &[usize], is_of: fn(&u8) -> bool| {
            let found: Vec<&str> = segment.split('-').collect();
            found.iter().map(|group| group.len()).eq(lengths.iter().copied())
                && found.iter().all(|group| group.as_bytes().iter().all(is_of))
        };
        if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
            Some(Self::Number)
        } else if groups(&[8, 4, 4, 4, 12], u8::is_ascii_hexdigit) {
            Some(Self::Uuid)
        } else if groups(&[4, 2, 2], u8::is_ascii_digit) {
            Some(Self::Date)
        } else if bytes.len() == 26 && bytes.iter().all(is_ulid) && has_digit() {
            Some(Self::Ulid)
        } else if bytes.len() >= 16 && is_hex(bytes) && has_digit() {
            Some(Self::Hex)
        } else {
            None
        }
    }
}

/// A template, and the paths that it generalizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template<'p> {
    /// The template, in the form of `paths`.
    pub(super) text: String,
    /// The positions of `{*}` with the form of the identifiers, in ascending order.
    wildcards: Vec<(usize, Kind)>,
    /// The paths, in ascending order.
    pub(super) seen: Vec<&'p str>,
    /// The paths that the template would match, and that others use or that were denied.
    pub(super) excluded: BTreeSet<&'p str>,
    /// One of the paths of others that has a sensitive word.
    sensitive: Option<&'p str>,
}

/// A path in its segments.
type Segments<'p> = Vec<&'p str>;
/// The segments of similar paths: a literal, or the form of the identifiers.
type Shape<'p> = Vec<Result<&'p str, Kind>>;
/// Similar paths.
type Group<'p> = Vec<(&'p str, Segments<'p>)>;

fn segments(path: &str) -> Segments<'_> {
    path.split('/').skip(1).collect()
}

/// Generalizes the paths of one caller and method. Paths of which no template is made are missing in the result.
pub(super) fn generalize<'p>(paths: &BTreeSet<&'p str>, threshold: usize) -> Vec<Template<'p>> {
    // Paths of one shape differ in identifiers only.
    let mut shapes: BTreeMap<Shape<'p>, Group<'p>> = BTreeMap::new();
    for path in paths {
        let segments = segments(path);
        let shape: Shape<'p> = segments
            .iter()
            .enumerate()
            // The first segment is the most general part of a path.
            .map(|(position, segment)| Kind::of(segment).filter(|_| position > 0).map_or(Ok(*segment), Err))
            .collect();
        let is_literal = |segment: &Result<&str, Kind>| segment.is_ok();
        let is_expressible =
            |segment: &Result<&str, Kind>| segment.is_err() || segment.is_ok_and(is_literal_of_template);
        if !shape.iter().all(is_literal) && shape.iter().all(is_expressible) {
            shapes.entry(shape).or_default().push((path, segments));
        }
    }
    let mut templates = Vec::new();
    for (shape, group) in shapes {
        let kinds: Vec<(usize, Kind)> =
            shape.iter().enumerate().filter_map(|(position, segment)| Some((position, segment.err()?))).collect();
        refine(group, kinds, threshold, &mut templates);
    }
    templates
}

/// Makes a template of paths that differ in the segments `wildcards` only. A segment with too few values is kept as it is.
fn refine<'p>(group: Group<'p>, wildcards: Vec<(usize, Kind)>, threshold: usize, templates: &mut Vec<Template<'p>>) {
    if wildcards.is_empty() || group.len() < threshold {
        return;
    }
    let count = |position: usize| {
        group.iter().filter_map(|(_, segments)| segments.get(position)).collect::<BTreeSet<_>>().len()
    };
    let fewest = wildcards.iter().enumerate().map(|(index, (position, _))| (count(*position), index)).min();
    let Some((fewest, index)) = fewest else { return };
    if fewest >= threshold && wildcards.len() <= MAX_WILDCARDS {
        let Some((_, first)) = group.first() else { return };
        let text: String = first
            .iter()
            .enumerate()
            .flat_map(|(position, segment)| {
                let is_wildcard = wildcards.iter().any(|(wildcard, _)| *wildcard == position);
                ["/", if is_wildcard { WILDCARD } else { segment }]
            })
            .collect();
        let mut seen: Vec<&str> = group.iter().map(|(path, _)| *path).collect();
        seen.sort_unstable();
        templates.push(Template { text, wildcards, seen, excluded: BTreeSet::new(), sensitive: None });
        return;
    }
    let mut rest = wildcards;
    let (position, _) = rest.remove(index);
    let mut parts: BTreeMap<&str, Group<'p>> = BTreeMap::new();
    for (path, segments) in group {
        parts.entry(segments.get(position).copied().unwrap_or_default()).or_default().push((path, segments));
    }
    for part in parts.into_values() {
        refine(part, rest.clone(), threshold, templates);
    }
}

/// Returns `true` if a template can have this segment: the `pchar` of RFC 3986 section 3.3, and no `*`.
fn is_literal_of_template(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,:@=".contains(&byte))
}

impl<'p> Template<'p> {
    /// Returns the path before the first `{*}`.
    fn prefix(&self) -> &str {
        self.text.split(WILDCARD).next().unwrap_or_default()
    }

    /// Returns `true` if the template matches a path.
    fn matches(&self, path: &str) -> bool {
        let (mut expected, mut found) = (self.text.split('/').skip(1), path.split('/').skip(1));
        let is_matched = expected.by_ref().all(|expected| {
            found.next().is_some_and(
                |segment| {
                    if expected == WILDCARD { !segment.is_empty() } else { expected == segment }
                },
            )
        });
        is_matched && found.next().is_none()
    }

    /// Excludes paths that were denied to the caller of the template.
    pub(super) fn exclude_denied(&mut self, denied: impl Iterator<Item = &'p str>) {
        for path in denied {
            if self.excluded.len() <= MAX_EXCLUDED && self.matches(path) {
                self.excluded.insert(path);
            }
        }
    }

    /// Returns `true` if the template matches a path that differs from those it generalizes in more than identifiers.
    fn matches_other(&self, path: &str) -> bool {
        let is_identifier = |position: usize, segment: &str| {
            self.wildcards.iter().any(|(wildcard, kind)| *wildcard == position && Kind::of(segment) == Some(*kind))
        };
        let segments = segments(path);
        let has_other = || {
            let mut found =
                self.wildcards.iter().filter_map(|(position, _)| Some((*position, *segments.get(*position)?)));
            found.any(|(position, segment)| !is_identifier(position, segment))
        };
        self.matches(path) && has_other()
    }

    /// Returns `true` if the segment of a path that `{*}` matches has a sensitive word.
    fn is_sensitive(&self, path: &str) -> bool {
        let segments = segments(path);
        self.wildcards.iter().filter_map(|(position, _)| segments.get(*position)).any(|segment| {
            segment.split(['-', '_', '.', '~']).any(|word| SENSITIVE.contains(&&*word.to_ascii_lowercase()))
        })
    }

    /// Returns the reason why the template cannot be used, or `None` if it can.
    pub(super) fn obstacle(&self) -> Option<String> {
        if let Some(path) = self.sensitive {
            return Some(format!("it would match {path} of another caller or method"));
        }
        (self.excluded.len() > MAX_EXCLUDED).then(|| format!("it would match more than {MAX_EXCLUDED} other paths"))
    }
}

/// Excludes the paths that others use from templates. Each template comes with the paths that its caller uses.
pub(super) fn exclude<'p>(
    templates: &mut [(&mut Template<'p>, &BTreeSet<&'p str>)],
    paths: impl Iterator<Item = &'p str>,
) {
    let mut by_prefix: HashMap<(usize, String), Vec<usize>> = HashMap::new();
    for (index, (template, _)) in templates.iter().enumerate() {
        let depth = template.text.split('/').count();
        by_prefix.entry((depth, template.prefix().to_owned())).or_default().push(index);
    }
    for path in paths {
        let depth = path.split('/').count();
        for (slash, _) in path.match_indices('/') {
            let Some(prefix) = path.get(..=slash) else { continue };
            let Some(found) = by_prefix.get(&(depth, prefix.to_owned())) else { continue };
            for index in found {
                let Some((template, own)) = templates.get_mut(*index) else { continue };
                if !own.contains(path) && template.matches_other(path) {
                    if template.is_sensitive(path) {
                        template.sensitive = Some(path);
                    }
                    // One more than allowed is enough.
                    if template.excluded.len() <= MAX_EXCLUDED {
                        template.excluded.insert(path);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kind, Template, exclude, generalize};

    fn texts(paths: &[String], threshold: usize) -> Vec<String> {
        let paths: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
        generalize(&paths, threshold).into_iter().map(|template| template.text).collect()
    }

    fn numbered(template: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
        numbers.map(|number| template.replace('#', &number.to_string())).collect()
    }

    #[test]
    fn identifiers_have_a_form() {
        for (segment, kind) in [
            ("0", Some(Kind::Number)),
            ("12345678901234567890", Some(Kind::Number)),
            ("123e4567-e89b-12d3-a456-426614174000", Some(Kind::Uuid)),
            ("2026-01-31", Some(Kind::Date)),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(Kind::Ulid)),
            ("507f1f77bcf86cd799439011", Some(Kind::Hex)),
            ("", None),
            ("v1", None),
            ("-1", None),
            ("1.5", None),
            ("deadbeef", None),
            ("abcdefabcdefabcdef", None),
            ("123e4567-e89b-12d3-a456-42661417400g", None),
            ("2026-1-31", None),
            ("me", None),
        ] {
            assert_eq!(Kind::of(segment), kind, "{segment}");
        }
    }

    #[test]
    fn a_template_needs_enough_values() {
        assert_eq!(texts(&numbered("/a/#", 0..5), 5), ["/a/{*}"]);
        assert_eq!(texts(&numbered("/a/#", 0..4), 5), [""; 0]);
        // The forms differ.
        let mixed = [numbered("/a/#", 0..4), vec!["/a/2026-01-31".to_owned()]].concat();
        assert_eq!(texts(&mixed, 5), [""; 0]);
    }

    #[test]
    fn the_first_segment_is_never_generalized() {
        assert_eq!(texts(&numbered("/#", 0..100), 5), [""; 0]);
        assert_eq!(texts(&numbered("/#/x", 0..100), 5), [""; 0]);
        assert_eq!(texts(&numbered("/7/#", 0..100), 5), ["/7/{*}"]);
    }

    #[test]
    fn prefix_and_suffix_are_the_same() {
        let paths = [numbered("/a/#/x", 0..3), numbered("/a/#/y", 3..6), numbered("/b/#/x", 6..8)].concat();
        assert_eq!(texts(&paths, 5), [""; 0]);
        assert_eq!(texts(&[paths, numbered("/a/#/x", 3..5)].concat(), 5), ["/a/{*}/x"]);
        assert_eq!(texts(&numbered("/a/#/", 0..5), 5), ["/a/{*}/"]);
    }

    #[test]
    fn a_segment_with_few_values_stays() {
        let items = |order: u32| numbered(&format!("/orders/{order}/items/#"), 0..5);
        assert_eq!(texts(&[items(1), items(2)].concat(), 5), ["/orders/1/items/{*}", "/orders/2/items/{*}"]);
        let all: Vec<String> = (1..6).flat_map(items).collect();
        assert_eq!(texts(&all, 5), ["/orders/{*}/items/{*}"]);
    }

    #[test]
    fn at_most_three_segments_are_generalized() {
        let paths: Vec<String> = (0..6).map(|number| format!("/a/{number}/{number}/{number}/{number}")).collect();
        assert_eq!(texts(&paths, 5), [""; 0]);
        let paths: Vec<String> = (0..6).map(|number| format!("/a/7/{number}/{number}/{number}")).collect();
        assert_eq!(texts(&paths, 5), ["/a/7/{*}/{*}/{*}"]);
    }

    #[test]
    fn a_template_has_only_characters_that_it_can_have() {
        assert_eq!(texts(&numbered("/a\"b/#", 0..9), 5), [""; 0]);
        assert_eq!(texts(&numbered("/a*b/#", 0..9), 5), [""; 0]);
        assert_eq!(texts(&numbered("/a:b/#", 0..9), 5), ["/a:b/{*}"]);
    }

    #[test]
    fn paths_of_others_are_excluded() {
        let own = numbered("/a/#/x", 0..5);
        let own: BTreeSet<&str> = own.iter().map(String::as_str).chain(["/a/me/x"]).collect();
        let after = |others: &[&str]| {
            let mut templates = generalize(&own, 5);
            let [template] = &mut templates[..] else { panic!("{templates:?}") };
            let all: Vec<String> = others.iter().map(|&other| other.to_owned()).collect();
            let template: &mut Template<'_> = template;
            let excluded: Vec<String> = {
                let mut owned = template.clone();
                exclude(&mut [(&mut owned, &own)], own.iter().copied().chain(all.iter().map(String::as_str)));
                if owned.obstacle().is_some() {
                    return None;
                }
                owned.excluded.iter().map(|&path| path.to_owned()).collect()
            };
            Some(excluded)
        };
        assert_eq!(after(&[]), Some(vec![]));
        // Other identifiers are the purpose of the template, and other places are not matched.
        assert_eq!(after(&["/a/99/x", "/a/b/y", "/a/b", "/a/b/x/y", "/b/c/x", "/a//x"]), Some(vec![]));
        assert_eq!(after(&["/a/self/x"]), Some(vec!["/a/self/x".to_owned()]));
        for sensitive in ["/a/admin/x", "/a/Export/x", "/a/api-keys/x"] {
            assert_eq!(after(&[sensitive]), None, "{sensitive}");
        }
        let many: Vec<String> = (0..21).map(|number| format!("/a/u{number}/x")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(after(&many[..20]).map(|excluded| excluded.len()), Some(20));
        assert_eq!(after(&many), None);
    }
}
