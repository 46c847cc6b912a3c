//! Compiling a configuration document to a policy set, and reporting every error in it.
//!
//! One pass reads the form and the meaning of a field. A wrong type in one rule therefore does not hide a wrong value in the
//! next, and each diagnostic points to its place in the document.

mod condition;
mod document;
mod identity;
mod operation;
mod outputs;
pub(super) mod pointer;
pub(super) mod reader;
mod scope;
mod source;
mod trust_domains;
mod values;

use super::PolicySet;
use super::action::{Action, Mode};
use super::field::{
    ACTION, EXPIRES, FEDERATED_TRUST_DOMAINS, FROM, IDENTITY, IGNORE_LINTS, MODE, NAME, NAMESPACE, NOT_BEFORE,
    OPERATION, OUTPUTS, POLICIES, RULES, SCOPE, SELECTOR, SOURCE, Selector, TARGET_REFS, TO, TRUST_DOMAIN,
    TRUST_DOMAIN_ALIASES, WHEN, conditions_name_trust_domain,
};
use super::node::Node;
use super::rule::{Period, Policy, Rule};
use super::workload::Proxy;
use crate::decision::PolicyId;
use crate::diagnostic::{Code, Diagnostic};
use crate::identity::{IdentitySettings, Pattern};
use crate::timestamp::Timestamp;
use condition::read_condition;
use document::JsonDocument;
use identity::read_identity;
use operation::read_operation;
use outputs::read_outputs;
use pointer::Pointer;
use reader::{Object, Reader};
use scope::{Scope, read_attachment, read_scope};
use source::read_source;
use trust_domains::{read_trust_domains, report_open_federation};

/// The fields of a policy that need `scope` in the document.
const NEEDS_SCOPE: &str = "remove it, or add `scope` to the document";
/// Fields of Istio's AuthorizationPolicy that are reported as unsupported instead of unknown, each with the next step.
pub(super) const UNSUPPORTED: [(&str, &str); 2] = [(SELECTOR, NEEDS_SCOPE), (TARGET_REFS, NEEDS_SCOPE)];

/// Compiles a document in JSON for a proxy.
pub(super) fn compile_json(text: &[u8], proxy: Proxy<'_>) -> Result<PolicySet, Vec<Diagnostic>> {
    let help = "use a JSON object with `trustDomain` and `policies`";
    let JsonDocument { text, root, policies } = parse(text, help, JsonDocument::parse)?;
    let mut reader = Reader::new(&UNSUPPORTED);
    let compiled = read_document_with(&mut reader, &root, &Pointer::ROOT, proxy, |r, node, at, head| match policies {
        Some(list) => read_policies_of_text(r, text, list, at, head),
        None => read_policies(r, node, at, head),
    });
    reader.finish(compiled)
}

/// Parses text in JSON. An error is a diagnostic with this help.
pub(super) fn parse<'t, T>(
    text: &'t [u8],
    help: &str,
    parse: impl FnOnce(&'t str) -> Result<T, serde_json::Error>,
) -> Result<T, Vec<Diagnostic>> {
    let syntax = |message: String| {
        vec![Diagnostic { pointer: String::new(), code: Code::Syntax, message, help: help.to_owned() }]
    };
    if text.trim_ascii().is_empty() {
        return Err(syntax("the configuration is empty".to_owned()));
    }
    let text = str::from_utf8(text).map_err(|error| syntax(error.to_string()))?;
    parse(text).map_err(|error| syntax(error.to_string()))
}

pub(super) fn read_mode(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Mode> {
    r.one_of(node, at, &[Mode::Enforce, Mode::Shadow].map(|mode| (mode.slug(), mode)))
}

/// Compiles a document that was parsed into nodes, for a proxy.
pub(super) fn compile(root: &Node, proxy: Proxy<'_>) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut reader = Reader::new(&UNSUPPORTED);
    let policy = read_document(&mut reader, root, &Pointer::ROOT, proxy);
    reader.finish(policy)
}

pub(super) fn read_document(r: &mut Reader, root: &Node, at: &Pointer<'_>, proxy: Proxy<'_>) -> Option<PolicySet> {
    read_document_with(r, root, at, proxy, read_policies)
}

/// The settings of a document that its policies need.
struct Head<'h> {
    pattern: &'h Pattern,
    scope: Option<Scope<'h>>,
}

/// Reads a document, and its policies with `read_policies`.
fn read_document_with(
    r: &mut Reader,
    root: &Node,
    at: &Pointer<'_>,
    proxy: Proxy<'_>,
    read_policies: impl FnOnce(&mut Reader, &Node, &Pointer<'_>, &Head<'_>) -> Option<Policies>,
) -> Option<PolicySet> {
    let names =
        [TRUST_DOMAIN, FEDERATED_TRUST_DOMAINS, TRUST_DOMAIN_ALIASES, IDENTITY, OUTPUTS, SCOPE, POLICIES, IGNORE_LINTS];
    let fields = r.object(root, at, &names)?;
    let trust_domains = read_trust_domains(r, &fields);
    let settings = fields.optional(r, IDENTITY, read_identity).unwrap_or_default();
    let outputs = fields.optional(r, OUTPUTS, read_outputs).unwrap_or_default();
    let scope = fields.optional(r, SCOPE, |r, node, at| Some(read_scope(r, node, at, proxy)));
    let head = Head { pattern: &settings.pattern, scope };
    let policies = fields.required(r, POLICIES, |r, n, at| read_policies(r, n, at, &head));
    let is_delegated = head.scope.as_ref().is_some_and(Scope::is_delegated);
    fields.optional(r, IGNORE_LINTS, read_lint_names);
    let Policies { policies, rules, others } = policies?;
    report_duplicates(r, at, policies.iter().map(|policy| &policy.full_name).chain(&others));
    let identity::Settings { pattern, source, peer, lifetime, revoked } = settings;
    let trust_domains = trust_domains?;
    report_open_federation(r, at, &trust_domains, &source);
    let identity = IdentitySettings { trust_domains, pattern, source, peer, lifetime, revoked: revoked.into() };
    Some(PolicySet { is_delegated, ..PolicySet::new(identity, outputs, policies.into(), rules.into()) })
}

/// The policies of a document, and their rules in the order of the document.
#[derive(Default)]
struct Policies {
    policies: Vec<Policy>,
    rules: Vec<Rule>,
    /// The names of the policies of other workloads.
    others: Vec<Box<str>>,
}

/// A policy with its rules.
struct PolicyWithRules {
    policy: Policy,
    rules: Vec<Rule>,
    /// Whether the policy applies to the workload.
    applies: bool,
}

impl Policies {
    fn add(&mut self, PolicyWithRules { policy, rules, applies }: PolicyWithRules) {
        if !applies {
            self.others.push(policy.full_name);
            return;
        }
        let id = PolicyId::of_index(self.policies.len());
        self.rules.extend((0..).zip(rules).map(|(position, rule)| Rule { policy: id, position, ..rule }));
        self.policies.push(policy);
    }
}

fn read_policies(r: &mut Reader, node: &Node, at: &Pointer<'_>, head: &Head<'_>) -> Option<Policies> {
    let mut policies = Policies::default();
    let mut positions = 0..;
    r.list(node, at, |r, node, at| {
        policies.add(read_policy(r, node, at, positions.next()?, head)?);
        Some(())
    })?;
    Some(policies)
}

/// Reads the policies of a list in the text of a document in JSON. The parsed form of each one is dropped before the next one is parsed.
fn read_policies_of_text(
    r: &mut Reader,
    text: &str,
    list: &str,
    at: &Pointer<'_>,
    head: &Head<'_>,
) -> Option<Policies> {
    let mut policies = Policies::default();
    let parsed = document::for_each(list, &mut |position, node| {
        if let Some(policy) = read_policy(r, node, &at.index(position), position, head) {
            policies.add(policy);
        }
    });
    // The text was scanned, but not parsed completely: it can be nested too deeply, or contain an invalid escape.
    if let Err(error) = parsed {
        r.report(at, Code::Syntax, document::whole_error(text, error).to_string(), "correct the JSON of the policies");
        return None;
    }
    Some(policies)
}

fn read_policy(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    position: usize,
    head: &Head<'_>,
) -> Option<PolicyWithRules> {
    let mut names = vec![NAME, NAMESPACE, ACTION, MODE, NOT_BEFORE, EXPIRES, RULES, IGNORE_LINTS];
    if head.scope.is_some() {
        names.extend([SELECTOR, TARGET_REFS]);
    }
    let fields = r.object(node, at, &names)?;
    let name = fields.required(r, NAME, read_kubernetes_name);
    let namespace = match &head.scope {
        Some(_) => fields.required(r, NAMESPACE, read_kubernetes_name),
        None => fields.optional(r, NAMESPACE, read_kubernetes_name),
    };
    let action = fields.optional(r, ACTION, read_action).unwrap_or(Action::Allow);
    let mode = fields.optional(r, MODE, read_mode).unwrap_or(Mode::Enforce);
    if action == Action::Audit && mode == Mode::Shadow {
        let message = "`mode: shadow` is only allowed with `ALLOW` or `DENY`".to_owned();
        let help = "remove it: an AUDIT policy enforces nothing";
        r.report(&at.key(MODE), Code::ConflictingFields, message, help);
    }
    let period = read_period(r, &fields);
    fields.optional(r, IGNORE_LINTS, read_lint_names);
    let applies = head.scope.as_ref().is_none_or(|scope| {
        let attachment = read_attachment(r, &fields);
        namespace.as_deref().is_none_or(|namespace| scope.has(r, &fields, namespace, &attachment))
    });
    let home = Home { pattern: head.pattern, action, namespace: namespace.as_deref() };
    let rules = fields.optional(r, RULES, |r, n, at| r.list(n, at, |r, n, at| read_rule(r, n, at, &home)));
    let rules = rules.unwrap_or_else(Vec::new);
    let no_rules = fields.node(RULES).is_none_or(|rules| matches!(rules, Node::List(rules) if rules.is_empty()));
    if no_rules && action != Action::Allow {
        let message = "a DENY or AUDIT policy needs at least one rule".to_owned();
        r.report(&at.key(RULES), Code::MissingField, message, "use `rules: [{}]` to match every request");
    }
    let name = name?;
    let full_name = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}").into());
    Some(PolicyWithRules { policy: Policy { full_name, position, action, mode, period }, rules, applies })
}

fn read_period(r: &mut Reader, fields: &Object<'_, '_>) -> Period {
    let not_before = fields.optional(r, NOT_BEFORE, read_timestamp);
    let expires = fields.optional(r, EXPIRES, read_timestamp);
    if let (Some(not_before), Some(expires)) = (not_before, expires)
        && expires <= not_before
    {
        let message = "the policy expires before it applies".to_owned();
        let help = "use a time after `notBefore`";
        r.report(&fields.place().key(EXPIRES), Code::NeverMatches, message, help);
    }
    Period { not_before, expires }
}

/// Reads a name, which Kubernetes must allow (RFC 1123 subdomain), because names appear in metrics and logs.
fn read_kubernetes_name(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let name = r.string(node, at)?;
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if name.len() > 253 || !name.bytes().all(legal) {
        let help = "use at most 253 characters of `a-z`, `0-9`, `-` and `.`";
        r.report(at, Code::InvalidValue, format!("`{name}` is not a Kubernetes name"), help);
        return None;
    }
    Some(name)
}

fn read_timestamp(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Timestamp> {
    let text = r.string(node, at)?;
    Timestamp::parse(&text)
        .map_err(|error| r.report(at, Code::InvalidValue, format!("`{text}` is not a time"), &error.to_string()))
        .ok()
}

fn read_action(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Action> {
    if matches!(node, Node::String(action) if &**action == "CUSTOM") {
        let message = "`CUSTOM` is not supported: it delegates the decision to an external service".to_owned();
        r.report(at, Code::Unsupported, message, "expected one of `ALLOW`, `DENY`, `AUDIT`");
        return None;
    }
    r.one_of(node, at, &[Action::Allow, Action::Deny, Action::Audit].map(|action| (action.name(), action)))
}

fn read_lint_names(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Vec<Box<str>>> {
    r.list(node, at, |r, node, at| r.string(node, at))
}

/// The context of a rule: its policy, and the pattern of the document.
struct Home<'a> {
    pattern: &'a Pattern,
    action: Action,
    namespace: Option<&'a str>,
}

fn read_rule(r: &mut Reader, node: &Node, at: &Pointer<'_>, home: &Home<'_>) -> Option<Rule> {
    let fields = r.object(node, at, &[FROM, TO, WHEN])?;
    let named = conditions_name_trust_domain(node);
    let sources = fields.optional(r, FROM, |r, n, at| {
        r.some(n, at, |r, n, at| {
            let wrapper = r.object(n, at, &[SOURCE])?;
            wrapper.required(r, SOURCE, |r, n, at| read_source(r, n, at, home, named))
        })
    });
    let operations = fields.optional(r, TO, |r, n, at| {
        r.some(n, at, |r, n, at| {
            let wrapper = r.object(n, at, &[OPERATION])?;
            wrapper.required(r, OPERATION, |r, n, at| read_operation(r, n, at, home.action))
        })
    });
    let conditions =
        fields.optional(r, WHEN, |r, n, at| r.some(n, at, |r, n, at| read_condition(r, n, at, home, named)));
    Some(Rule {
        conditions: conditions.unwrap_or_else(Vec::new).into(),
        sources: sources.unwrap_or_else(Vec::new).into(),
        operations: operations.unwrap_or_else(Vec::new).into(),
        left_out: false,
        // `Policies::add` sets both.
        policy: PolicyId::of_index(0),
        position: 0,
    })
}

/// Reads a source or an operation, which must have a field, because an empty one could be read as "anything".
fn selector_object<'n, 'p>(
    r: &mut Reader,
    node: &'n Node<'n>,
    at: &'p Pointer<'p>,
    selector: Selector,
) -> Option<Object<'n, 'p>> {
    let names: Vec<&'static str> = selector.fields().flat_map(|field| field.names()).collect();
    let fields = r.object(node, at, &names)?;
    if fields.is_empty() {
        let (_, name) = selector.place();
        let help = format!("add at least one of {}", Reader::quoted(&names));
        r.report(at, Code::Empty, format!("the {name} is empty"), &help);
    }
    Some(fields)
}

fn report_duplicates<'p>(r: &mut Reader, at: &Pointer<'_>, full_names: impl Iterator<Item = &'p Box<str>>) {
    let mut seen = rustc_hash::FxHashSet::default();
    for full_name in full_names {
        if !seen.insert(full_name) {
            let message = format!("duplicate policy `{full_name}`");
            r.report(&at.key(POLICIES), Code::DuplicatePolicy, message, "rename one of the two");
        }
    }
}
