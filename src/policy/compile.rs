//! From the configuration document to a `Policy`, with every mistake reported at once.
//!
//! One pass reads a field's form and its meaning, so that a wrong type in one rule does not hide a wrong value in the
//! next, and each diagnostic points at the place in the text.

mod condition;
mod identity;
mod selector;

use std::sync::Arc;

use super::node::Node;
use super::pointer::Pointer;
use super::reader::Reader;
use super::rule::{Action, Mode, Period, PolicyName, Rule};
use super::{Policy, PolicyId, RoutePolicy, Stages};
use crate::diagnostic::{Code, Diagnostic};
use crate::pattern::Pattern;
use crate::peer::Realm;
use crate::spiffe_id::TrustDomain;
use crate::timestamp::Timestamp;
use condition::{read_condition, say_trust_domain};
use identity::read_identity;
use selector::{read_operation, read_source};

/// Fields of Istio's AuthorizationPolicy that are refused by name rather than as unknown.
const UNSUPPORTED: [&str; 2] = ["selector", "targetRefs"];

/// Lints that are not to be reported: of use to the linter alone.
pub(crate) const IGNORE_LINTS: &str = "ignoreLints";

/// Compiles a document given as JSON text.
pub(super) fn compile_json(text: &[u8]) -> Result<Policy, Vec<Diagnostic>> {
    compile(&parse_json(text, "a JSON object with `trustDomain` and `policies`")?)
}

fn parse_json<'t>(text: &'t [u8], help: &str) -> Result<Node<'t>, Vec<Diagnostic>> {
    let syntax = |message: String| {
        vec![Diagnostic { pointer: String::new(), code: Code::Syntax, message, help: help.to_owned() }]
    };
    if text.trim_ascii().is_empty() {
        return Err(syntax("the configuration is empty".to_owned()));
    }
    serde_json::from_slice(text).map_err(|error| syntax(error.to_string()))
}

/// Compiles what a route says for itself, given as JSON text.
pub(super) fn compile_route(text: &[u8]) -> Result<RoutePolicy, Vec<Diagnostic>> {
    let root = parse_json(text, "a JSON object with `mode`, `configuration`, or both")?;
    let mut reader = Reader::new(&UNSUPPORTED);
    let route = read_route(&mut reader, &root);
    reader.finish(route)
}

fn read_route(r: &mut Reader, root: &Node) -> Option<RoutePolicy> {
    let fields = r.object(root, &Pointer::ROOT, &["mode", "configuration"])?;
    if fields.is_empty() {
        r.report(&Pointer::ROOT, Code::Empty, "the route says nothing".to_owned(), "`mode`, `configuration`, or both");
    }
    let mode = fields.optional(r, "mode", read_mode).unwrap_or(Mode::Enforce);
    let policy = fields.optional(r, "configuration", read_document);
    Some(RoutePolicy { mode, policy })
}

fn read_mode(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Mode> {
    r.one_of(node, at, &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)])
}

/// Compiles a document that was parsed into nodes.
pub(super) fn compile(root: &Node) -> Result<Policy, Vec<Diagnostic>> {
    let mut reader = Reader::new(&UNSUPPORTED);
    let policy = read_document(&mut reader, root, &Pointer::ROOT);
    reader.finish(policy)
}

fn read_document(r: &mut Reader, root: &Node, at: &Pointer<'_>) -> Option<Policy> {
    let fields = r.object(
        root,
        at,
        &["trustDomain", "federatedTrustDomains", "trustDomainAliases", "identity", "policies", IGNORE_LINTS],
    )?;
    let trust_domain = fields.required(r, "trustDomain", read_trust_domain);
    let mut named: Vec<Box<str>> = trust_domain.iter().cloned().collect();
    let federated = fields.optional(r, "federatedTrustDomains", |r, n, at| read_others(r, n, at, &mut named));
    let aliases = fields.optional(r, "trustDomainAliases", |r, n, at| read_others(r, n, at, &mut named));
    let identity = fields.optional(r, "identity", read_identity).unwrap_or_default();
    let context = Context { pattern: &identity.pattern };
    let policies = fields.required(r, "policies", |r, n, at| r.list(n, at, |r, n, at| read_policy(r, n, at, &context)));
    fields.optional(r, IGNORE_LINTS, read_lint_names);
    let policies = policies?;
    report_duplicates(r, at, &policies);
    let (names, rules) = number(policies);
    let stages = Stages::of(&names, &rules);
    Some(Policy {
        id: PolicyId::next(),
        realm: Realm {
            trust_domain: trust_domain?,
            aliases: aliases.unwrap_or_else(Vec::new).into(),
            federated: federated.unwrap_or_else(Vec::new).into(),
            pattern: identity.pattern,
        },
        source: identity.source,
        peer: identity.peer,
        require_validated: identity.require_validated,
        lifetime: identity.lifetime,
        revoked: Arc::new(identity.revoked),
        boundaries: boundaries(&names),
        names,
        rules,
        stages,
    })
}

/// What reading a policy needs to know of the rest of the document.
struct Context<'a> {
    pattern: &'a Pattern,
}

fn read_trust_domain(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let name = r.string(node, at)?;
    if let Err(error) = TrustDomain::parse(name.as_bytes()) {
        let help = "a trust domain's name, such as `example.org`, of `a-z`, `0-9`, `.`, `-`, `_`";
        r.report(at, Code::InvalidValue, format!("`{name}`: {error}"), help);
        return None;
    }
    Some(name)
}

/// Trust domains besides the own one, each named once in the whole document.
fn read_others(r: &mut Reader, node: &Node, at: &Pointer<'_>, named: &mut Vec<Box<str>>) -> Option<Vec<Box<str>>> {
    r.list(node, at, |r, node, at| {
        let name = read_trust_domain(r, node, at)?;
        if named.contains(&name) {
            r.report(at, Code::ConflictingFields, format!("`{name}` is named already"), "each trust domain once");
            return None;
        }
        named.push(name.clone());
        Some(name)
    })
}

/// A policy as read, before its rules are numbered.
struct Entry {
    name: PolicyName,
    rules: Vec<Rule>,
}

fn read_policy(r: &mut Reader, node: &Node, at: &Pointer<'_>, context: &Context<'_>) -> Option<Entry> {
    let fields =
        r.object(node, at, &["name", "namespace", "action", "mode", "notBefore", "expires", "rules", IGNORE_LINTS])?;
    let name = fields.required(r, "name", read_kubernetes_name);
    let namespace = fields.optional(r, "namespace", read_kubernetes_name);
    let action = fields.optional(r, "action", read_action).unwrap_or(Action::Allow);
    let mode = fields.optional(r, "mode", read_mode).unwrap_or(Mode::Enforce);
    if action == Action::Audit && mode == Mode::Shadow {
        let message = "AUDIT decides nothing that could be tried out".to_owned();
        r.report(&at.key("mode"), Code::ConflictingFields, message, "`shadow` beside `ALLOW` or `DENY`");
    }
    let period = Period {
        not_before: fields.optional(r, "notBefore", read_timestamp),
        expires: fields.optional(r, "expires", read_timestamp),
    };
    if let Period { not_before: Some(not_before), expires: Some(expires) } = period
        && expires <= not_before
    {
        let message = "the policy expires before it applies".to_owned();
        r.report(&at.key("expires"), Code::NeverMatches, message, "a moment after `notBefore`");
    }
    fields.optional(r, IGNORE_LINTS, read_lint_names);
    let home = Home { context, action, namespace: namespace.as_deref() };
    let rules = fields.optional(r, "rules", |r, n, at| r.list(n, at, |r, n, at| read_rule(r, n, at, &home)));
    let rules = rules.unwrap_or_else(Vec::new);
    let no_rules = fields.node("rules").is_none_or(|rules| matches!(rules, Node::List(rules) if rules.is_empty()));
    if no_rules && action != Action::Allow {
        let help = "at least one rule; `rules: [{}]` matches every request";
        r.report(&at.key("rules"), Code::MissingField, "without rules nothing is ever matched".to_owned(), help);
    }
    let name = name?;
    let full_name = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}").into());
    Some(Entry { name: PolicyName { full_name, action, mode, period }, rules })
}

/// Names stand in metrics and logs, so they are kept to what Kubernetes allows (RFC 1123 subdomains).
fn read_kubernetes_name(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let name = r.string(node, at)?;
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if name.len() > 253 || !name.bytes().all(legal) {
        let help = "at most 253 of `a-z`, `0-9`, `-`, `.`";
        r.report(at, Code::InvalidValue, format!("`{name}` is no Kubernetes name"), help);
        return None;
    }
    Some(name)
}

fn read_timestamp(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Timestamp> {
    let text = r.string(node, at)?;
    Timestamp::parse(&text)
        .map_err(|error| r.report(at, Code::InvalidValue, format!("found `{text}`"), &error.to_string()))
        .ok()
}

fn read_action(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Action> {
    if matches!(node, Node::String(action) if &**action == "CUSTOM") {
        let message = "`CUSTOM` asks an external service".to_owned();
        r.report(at, Code::Unsupported, message, "one of `ALLOW`, `DENY`, `AUDIT`");
        return None;
    }
    r.one_of(node, at, &[("ALLOW", Action::Allow), ("DENY", Action::Deny), ("AUDIT", Action::Audit)])
}

fn read_lint_names(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Vec<Box<str>>> {
    r.list(node, at, |r, node, at| r.string(node, at))
}

/// The policy that a rule stands in.
struct Home<'a> {
    context: &'a Context<'a>,
    action: Action,
    namespace: Option<&'a str>,
}

fn read_rule(r: &mut Reader, node: &Node, at: &Pointer<'_>, home: &Home<'_>) -> Option<Rule> {
    let fields = r.object(node, at, &["from", "to", "when"])?;
    let trust_domain_said = fields.node("when").is_some_and(say_trust_domain);
    let sources = fields.optional(r, "from", |r, n, at| {
        r.some(n, at, |r, n, at| {
            let wrapper = r.object(n, at, &["source"])?;
            wrapper.required(r, "source", |r, n, at| read_source(r, n, at, home, trust_domain_said))
        })
    });
    let operations = fields.optional(r, "to", |r, n, at| {
        r.some(n, at, |r, n, at| {
            let wrapper = r.object(n, at, &["operation"])?;
            wrapper.required(r, "operation", |r, n, at| read_operation(r, n, at, home.action))
        })
    });
    let conditions = fields
        .optional(r, "when", |r, n, at| r.some(n, at, |r, n, at| read_condition(r, n, at, home, trust_domain_said)));
    Some(Rule {
        conditions: conditions.unwrap_or_else(Vec::new).into(),
        sources: sources.unwrap_or_else(Vec::new).into(),
        operations: operations.unwrap_or_else(Vec::new).into(),
        left_out: false,
        policy: 0,
        position: 0,
    })
}

fn boundaries(names: &[PolicyName]) -> Box<[Timestamp]> {
    let mut boundaries: Vec<_> = names.iter().flat_map(|name| name.period.boundaries()).collect();
    boundaries.sort_unstable();
    boundaries.dedup();
    boundaries.into()
}

fn report_duplicates(r: &mut Reader, at: &Pointer<'_>, policies: &[Entry]) {
    let mut seen = rustc_hash::FxHashSet::default();
    for policy in policies {
        let name = &policy.name.full_name;
        if !seen.insert(name) {
            let help = "each namespace and name once";
            r.report(&at.key("policies"), Code::DuplicatePolicy, format!("`{name}` stands here twice"), help);
        }
    }
}

/// Numbers the rules in the order of the document.
fn number(policies: Vec<Entry>) -> (Box<[PolicyName]>, Box<[Rule]>) {
    let mut names = Vec::with_capacity(policies.len());
    let mut rules: Vec<Rule> = Vec::new();
    for (policy, entry) in (0..).zip(policies) {
        for (position, rule) in (0..).zip(entry.rules) {
            rules.push(Rule { policy, position, ..rule });
        }
        names.push(entry.name);
    }
    (names.into(), rules.into())
}
