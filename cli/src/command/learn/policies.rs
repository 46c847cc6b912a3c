//! The fewest policies that allow what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::seen::Seen;
use super::template::{Template, exclude, generalize};
use crate::located::Located;
use crate::located::written::{list, object, text};

/// A permission of a caller: one path, or the paths of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Grant<'s> {
    method: &'s str,
    path: String,
    excluded: BTreeSet<&'s str>,
    host: Option<&'s str>,
    port: Option<u16>,
}

/// An entry of `to`. Every combination of the values is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Operation<'s> {
    pub(super) methods: BTreeSet<&'s str>,
    pub(super) paths: BTreeSet<String>,
    pub(super) excluded: BTreeSet<&'s str>,
    pub(super) hosts: BTreeSet<&'s str>,
    pub(super) ports: BTreeSet<u16>,
}

/// A policy with one rule, which allows these callers these operations.
#[derive(Debug)]
pub(super) struct Policy<'s> {
    pub(super) name: String,
    pub(super) callers: Vec<&'s str>,
    pub(super) operations: Vec<Operation<'s>>,
    pub(super) generalizations: Vec<Generalization<'s>>,
    /// The templates that are not used, with the callers' methods.
    pub(super) not_used: Vec<(&'s str, Template<'s>)>,
}

/// A template in a policy, and the paths from which it was made.
#[derive(Debug)]
pub(super) struct Generalization<'s> {
    pub(super) template: String,
    pub(super) excluded: BTreeSet<&'s str>,
    pub(super) host: Option<&'s str>,
    pub(super) port: Option<u16>,
    /// The paths of each caller and method.
    pub(super) seen: BTreeMap<(&'s str, &'s str), Vec<&'s str>>,
}

impl<'s> Generalization<'s> {
    pub(super) fn methods(&self) -> BTreeSet<&'s str> {
        self.seen.keys().map(|(_, method)| *method).collect()
    }

    pub(super) fn callers(&self) -> BTreeSet<&'s str> {
        self.seen.keys().map(|(caller, _)| *caller).collect()
    }

    /// Returns the first paths that every caller was seen with, with this method.
    pub(super) fn shared(&self, method: &str, limit: usize) -> BTreeSet<String> {
        let mut of_callers = self.seen.iter().filter(|((_, own), _)| *own == method).map(|(_, paths)| paths);
        let Some(first) = of_callers.next() else { return BTreeSet::new() };
        let others: Vec<BTreeSet<&str>> = of_callers.map(|paths| paths.iter().copied().collect()).collect();
        let is_shared = |path: &&&str| others.iter().all(|paths| paths.contains(*path));
        first.iter().filter(is_shared).take(limit).map(|&path| path.to_owned()).collect()
    }

    /// Returns the number of requests from which the template was made.
    pub(super) fn count(&self) -> usize {
        self.seen.values().map(Vec::len).sum()
    }
}

/// The caller, method, host and port of requests that differ in their paths.
type Key<'s> = (&'s str, &'s str, Option<&'s str>, Option<u16>);

fn key<'s>(Seen { caller, method, host, port, .. }: &Seen<'s>) -> Key<'s> {
    (caller, method, *host, *port)
}

/// Returns the policies for distinct requests. With a threshold, paths are generalized, but not to denied ones.
pub(super) fn learn<'s>(requests: &[Seen<'s>], denied: &[Seen<'s>], threshold: Option<usize>) -> Vec<Policy<'s>> {
    let mut paths: BTreeMap<Key<'s>, BTreeSet<&'s str>> = BTreeMap::new();
    for seen in requests {
        paths.entry(key(seen)).or_default().insert(seen.path);
    }
    let (templates, mut not_used) = templates(&paths, denied, threshold);
    let mut grants: BTreeMap<&str, BTreeSet<Grant<'_>>> = BTreeMap::new();
    for ((caller, method, host, port), paths) in &paths {
        let grant = |path: &str, excluded: &BTreeSet<&'s str>| Grant {
            method,
            path: path.to_owned(),
            excluded: excluded.clone(),
            host: *host,
            port: *port,
        };
        let own = templates.get(&(*caller, *method, *host, *port)).map_or(&[][..], Vec::as_slice);
        let covered: BTreeSet<&str> = own.iter().flat_map(|template| template.seen.iter().copied()).collect();
        let exact = paths.iter().filter(|path| !covered.contains(*path)).map(|path| grant(path, &BTreeSet::new()));
        let generalized = own.iter().map(|template| grant(&template.text, &template.excluded));
        grants.entry(caller).or_default().extend(exact.chain(generalized));
    }
    let mut groups: BTreeMap<BTreeSet<Grant<'_>>, Vec<&str>> = BTreeMap::new();
    for (caller, grants) in grants {
        groups.entry(grants).or_default().push(caller);
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(grants, callers)| (callers, grants)).collect();
    groups.sort_unstable();
    let mut names = BTreeSet::new();
    let policies = groups.into_iter().map(|(callers, grants)| Policy {
        name: unique(name(&callers), &mut names),
        generalizations: generalizations(&callers, &templates),
        not_used: callers.iter().flat_map(|caller| not_used.remove(caller)).flatten().collect(),
        operations: operations(grants),
        callers,
    });
    policies.collect()
}

/// The templates for each caller, method, host and port.
type Templates<'s> = BTreeMap<Key<'s>, Vec<Template<'s>>>;
/// The templates of each caller that are not used, with their methods.
type NotUsed<'s> = BTreeMap<&'s str, Vec<(&'s str, Template<'s>)>>;

/// Returns the templates, and those that are not used.
fn templates<'s>(
    paths: &BTreeMap<Key<'s>, BTreeSet<&'s str>>,
    denied: &[Seen<'s>],
    threshold: Option<usize>,
) -> (Templates<'s>, NotUsed<'s>) {
    let mut not_used = NotUsed::new();
    let Some(threshold) = threshold else { return (Templates::new(), not_used) };
    let mut templates: Templates<'s> = paths.iter().map(|(key, paths)| (*key, generalize(paths, threshold))).collect();
    let mut with_own: Vec<(&mut Template<'s>, &BTreeSet<&'s str>)> = templates
        .iter_mut()
        .filter_map(|(key, templates)| Some((templates, paths.get(key)?)))
        .flat_map(|(templates, own)| templates.iter_mut().map(move |template| (template, own)))
        .collect();
    let all: BTreeSet<&str> = paths.values().flatten().copied().collect();
    exclude(&mut with_own, all.into_iter());
    let mut of_keys: BTreeMap<Key<'_>, Vec<&str>> = BTreeMap::new();
    for seen in denied {
        of_keys.entry(key(seen)).or_default().push(seen.path);
    }
    for (key, templates) in &mut templates {
        if let Some(denied) = of_keys.get(key) {
            templates.iter_mut().for_each(|template| template.exclude_denied(denied.iter().copied()));
        }
        let (caller, method, ..) = key;
        for template in templates.extract_if(.., |template| template.obstacle().is_some()) {
            not_used.entry(caller).or_default().push((method, template));
        }
    }
    (templates, not_used)
}

/// Returns the templates of a policy with these callers, whose templates are the same.
fn generalizations<'s>(callers: &[&'s str], templates: &Templates<'s>) -> Vec<Generalization<'s>> {
    type Place<'s> = (String, BTreeSet<&'s str>, Option<&'s str>, Option<u16>);
    let mut found: BTreeMap<Place<'s>, BTreeMap<(&str, &str), Vec<&str>>> = BTreeMap::new();
    for caller in callers {
        let own = templates.range((*caller, "", None, None)..).take_while(|((found, ..), _)| found == caller);
        for ((caller, method, host, port), templates) in own {
            for template in templates {
                let place = (template.text.clone(), template.excluded.clone(), *host, *port);
                // Identifiers of several forms can have the same template.
                found.entry(place).or_default().entry((*caller, *method)).or_default().extend(&template.seen);
            }
        }
    }
    let found = found.into_iter().map(|((template, excluded, host, port), seen)| Generalization {
        template,
        excluded,
        host,
        port,
        seen,
    });
    found.collect()
}

/// Merges permissions to few operations that allow the same: the methods of a path, then the paths with the same methods,
/// then the hosts, then the ports.
fn operations<'s>(grants: BTreeSet<Grant<'s>>) -> Vec<Operation<'s>> {
    let single = grants.into_iter().map(|Grant { method, path, excluded, host, port }| Operation {
        methods: BTreeSet::from([method]),
        paths: BTreeSet::from([path]),
        excluded,
        hosts: host.into_iter().collect(),
        ports: port.into_iter().collect(),
    });
    let operations = merge(single, |operation| &mut operation.methods);
    // `notPaths` applies to every path of an operation.
    let (excluding, plain): (Vec<_>, Vec<_>) =
        operations.into_iter().partition(|operation| !operation.excluded.is_empty());
    let operations = merge(plain, |operation| &mut operation.paths).into_iter().chain(excluding);
    let operations = merge(operations, |operation| &mut operation.hosts);
    merge(operations, |operation| &mut operation.ports)
}

/// Merges operations that differ in one field only.
fn merge<'s, V: Ord>(
    operations: impl IntoIterator<Item = Operation<'s>>,
    field: impl for<'o> Fn(&'o mut Operation<'s>) -> &'o mut BTreeSet<V>,
) -> Vec<Operation<'s>> {
    let mut merged: BTreeMap<Operation<'s>, BTreeSet<V>> = BTreeMap::new();
    for mut operation in operations {
        let values = mem::take(field(&mut operation));
        merged.entry(operation).or_default().extend(values);
    }
    let with_values = |(mut operation, values)| {
        *field(&mut operation) = values;
        operation
    };
    merged.into_iter().map(with_values).collect()
}

/// The maximum length of a name, without a number that makes it unique. The limit of Kubernetes is 253.
const MAX_NAME: usize = 240;

/// Returns the name of a policy: the service account, namespace and trust domain of its first caller.
fn name(callers: &[&str]) -> String {
    let first = callers.first().copied().unwrap_or_default();
    let parts: Vec<&str> = first.split('/').collect();
    let parts = match &parts[..] {
        [trust_domain, "ns", namespace, "sa", account] => vec![*account, *namespace, *trust_domain],
        others => others.iter().rev().copied().collect(),
    };
    let others = callers.len().saturating_sub(1);
    let suffix = if others == 0 { String::new() } else { format!("-and-{others}-more") };
    let legal = |character: char| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' };
    let name: String = parts.join(".").to_ascii_lowercase().chars().map(legal).take(MAX_NAME - suffix.len()).collect();
    name + &suffix
}

/// Returns a name that no other policy has.
fn unique(name: String, names: &mut BTreeSet<String>) -> String {
    let with_number = (2..).map(|number| format!("{name}-{number}"));
    let unique = [name.clone()].into_iter().chain(with_number).find(|name| !names.contains(name)).unwrap_or(name);
    names.insert(unique.clone());
    unique
}

impl Policy<'_> {
    /// Returns the policy in the form of a document.
    pub(super) fn to_located(&self) -> Located {
        policy(&self.name, &[(&self.callers, &self.operations)])
    }
}

/// Returns a policy with a rule for each pair of callers and operations.
pub(super) fn policy(name: &str, rules: &[(&[&str], &[Operation<'_>])]) -> Located {
    let rules = rules.iter().map(|(callers, operations)| {
        let principals = list(callers.iter().map(|&caller| text(caller)));
        object([
            ("from", list([object([("source", object([("principals", principals)]))])])),
            ("to", list(operations.iter().map(|operation| object([("operation", operation.to_located())])))),
        ])
    });
    let rules = list(rules);
    // A policy without rules allows no one, and an empty list is an error.
    let rules = (!rules.items().is_empty()).then_some(("rules", rules));
    object([("name", text(name))].into_iter().chain(rules))
}

impl Operation<'_> {
    fn to_located(&self) -> Located {
        let Self { methods, paths, excluded, hosts, ports } = self;
        let texts = |values: &BTreeSet<&str>| values.iter().map(|&value| text(value)).collect::<Vec<_>>();
        let fields = [
            ("methods", texts(methods)),
            ("paths", paths.iter().map(text).collect()),
            ("notPaths", texts(excluded)),
            ("hosts", texts(hosts)),
            ("ports", ports.iter().map(|port| text(port.to_string())).collect()),
        ];
        // A connection has no method and no path.
        let is_used = |(_, values): &(&str, Vec<Located>)| {
            values.iter().any(|value| value.text().is_some_and(|text| !text.is_empty()))
        };
        object(fields.into_iter().filter(is_used).map(|(name, values)| (name, list(values))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{learn, name};
    use crate::command::learn::seen::Seen;

    const A: &str = "example.org/ns/n/sa/a";
    const B: &str = "example.org/ns/n/sa/b";

    fn seen<'s>(caller: &'s str, method: &'s str, path: &'s str) -> Seen<'s> {
        Seen { caller, method, path, host: None, port: None }
    }

    #[test]
    fn callers_with_the_same_operations_share_a_policy() {
        let requests = [seen(A, "GET", "/x"), seen(B, "GET", "/x"), seen("example.io/ns/n/sa/a", "GET", "/y")];
        let policies = learn(&requests, &[], None);
        let names: Vec<&str> = policies.iter().map(|policy| &*policy.name).collect();
        assert_eq!(names, ["a.n.example.io", "a.n.example.org-and-1-more"]);
        assert_eq!(policies[1].callers, [A, B]);
    }

    #[test]
    fn operations_allow_each_combination_that_was_seen_and_no_other() {
        let requests = [
            seen(A, "GET", "/x"),
            seen(A, "HEAD", "/x"),
            seen(A, "GET", "/y"),
            seen(A, "HEAD", "/y"),
            seen(A, "GET", "/z"),
        ];
        let policies = learn(&requests, &[], None);
        let found: Vec<(Vec<&str>, Vec<&str>)> = policies[0]
            .operations
            .iter()
            .map(|operation| {
                (operation.methods.iter().copied().collect(), operation.paths.iter().map(String::as_str).collect())
            })
            .collect();
        assert_eq!(found, [(vec!["GET"], vec!["/z"]), (vec!["GET", "HEAD"], vec!["/x", "/y"])]);
    }

    #[test]
    fn each_method_is_generalized_by_itself() {
        let paths: Vec<String> = (0..5).map(|number| format!("/u/{number}")).collect();
        let mut requests: Vec<Seen<'_>> = paths.iter().map(|path| seen(A, "GET", path)).collect();
        requests.extend(paths[..4].iter().map(|path| seen(A, "DELETE", path)));
        let policies = learn(&requests, &[], Some(5));
        let of = |method: &str| -> BTreeSet<&str> {
            let operations = policies[0].operations.iter().filter(|operation| operation.methods.contains(method));
            operations.flat_map(|operation| operation.paths.iter().map(String::as_str)).collect()
        };
        assert_eq!(of("GET"), BTreeSet::from(["/u/{*}"]));
        assert_eq!(of("DELETE").len(), 4);
        assert_eq!(policies[0].generalizations.len(), 1);
    }

    #[test]
    fn names_are_those_that_the_filter_accepts() {
        assert_eq!(name(&["example.org/ns/a/sa/b_C"]), "b-c.a.example.org");
        assert_eq!(name(&["example.org/web/x"]), "x.web.example.org");
        let long = format!("example.org/ns/a/sa/{}", "b".repeat(300));
        assert!(name(&[&long, A]).len() <= 253);
        let requests = [seen("t/ns/a/sa/b-c", "GET", "/x"), seen("t/ns/a/sa/b_c", "GET", "/y")];
        let names: Vec<String> = learn(&requests, &[], None).into_iter().map(|policy| policy.name).collect();
        assert_eq!(names, ["b-c.a.t", "b-c.a.t-2"]);
    }
}
