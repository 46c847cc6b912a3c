//! The outline of a document that lints read: its policies, rules and fields, with their places.

use super::audience::Audience;
use crate::identity::{Pattern, PeerRequirement};
use crate::policy::Node;
use crate::policy::field::{
    ACTION, EXPIRES, FEDERATED_TRUST_DOMAINS, Field, IDENTITY, KEY, Key, MODE, NAMESPACE, NOT_BEFORE, PATTERN, PEER,
    POLICIES, ROOT_NAMESPACE, RULES, SCOPE, Selector, TRUST_DOMAIN, TRUST_DOMAIN_ALIASES, VALIDATED, VALUES, WHEN,
    conditions_name_trust_domain,
};
use crate::policy::{Action, Mode};
use crate::timestamp::Timestamp;

/// The settings of a document that decide which callers are accepted.
pub(super) struct Settings<'n> {
    pub(super) pattern: Pattern,
    /// Whether callers without an identity reach the policies.
    pub(super) peer_is_optional: bool,
    pub(super) local: &'n str,
    pub(super) aliases: Vec<&'n str>,
    /// The federated trust domains and patterns of the list.
    federated: Vec<&'n str>,
    /// Whether every trust domain is federated that Envoy's SPIFFE validator accepts.
    accepts_validated: bool,
}

impl<'n> Settings<'n> {
    pub(super) fn new(root: &'n Node<'n>) -> Self {
        let names = |field| root.list(field).iter().filter_map(Node::text).collect();
        let identity = |field| root.field(IDENTITY).and_then(|identity| identity.field(field)).and_then(Node::text);
        let pattern = identity(PATTERN).and_then(|pattern| Pattern::parse(pattern).ok());
        Self {
            pattern: pattern.unwrap_or_else(Pattern::istio),
            peer_is_optional: identity(PEER) == Some(PeerRequirement::Optional.name()),
            local: root.field(TRUST_DOMAIN).and_then(Node::text).unwrap_or_default(),
            aliases: names(TRUST_DOMAIN_ALIASES),
            federated: names(FEDERATED_TRUST_DOMAINS),
            accepts_validated: root.field(FEDERATED_TRUST_DOMAINS).and_then(Node::text) == Some(VALIDATED),
        }
    }

    /// Returns `true` if workloads of this trust domain are accepted.
    pub(super) fn accepts(&self, name: &str) -> bool {
        let is_covered = |pattern: &str| pattern.strip_prefix('*').is_some_and(|suffix| name.ends_with(suffix));
        self.local == name
            || self.aliases.contains(&name)
            || self.accepts_validated
            || self.federated.iter().any(|federated| *federated == name || is_covered(federated))
    }

    /// Returns `true` if workloads of another trust domain can be accepted.
    pub(super) fn federates(&self) -> bool {
        self.accepts_validated || !self.federated.is_empty()
    }
}

/// A policy.
pub(super) struct Policy<'n> {
    pub(super) node: &'n Node<'n>,
    pub(super) pointer: String,
    pub(super) namespace: Option<&'n str>,
    /// The workloads of the policy, or `None` if every policy of the document applies to the same ones.
    audience: Option<Audience<'n>>,
    pub(super) action: Action,
    pub(super) mode: Mode,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    pub(super) rules: Vec<Rule<'n>>,
}

/// A rule.
pub(super) struct Rule<'n> {
    /// The positions of the policy in the document and of the rule in its policy.
    pub(super) position: (usize, usize),
    pub(super) pointer: String,
    /// The fields of each source.
    pub(super) sources: Vec<Vec<FieldUse<'n>>>,
    /// The fields of each operation.
    pub(super) operations: Vec<Vec<FieldUse<'n>>>,
    pub(super) conditions: Vec<FieldUse<'n>>,
    /// Whether a condition names the trust domains of the rule.
    pub(super) conditions_name_trust_domain: bool,
}

impl Policy<'_> {
    /// Returns `true` if this policy applies to every workload that another policy of the document applies to.
    pub(super) fn applies_where(&self, other: &Self) -> bool {
        self.audience.as_ref().zip(other.audience.as_ref()).is_none_or(|(audience, other)| audience.includes(other))
    }

    /// Returns `true` if a match of this field makes the policy allow a request: in ALLOW policies, and as a negated field of a
    /// DENY policy, which then does not match.
    pub(super) fn grants(&self, used: &FieldUse<'_>) -> bool {
        match self.action {
            Action::Allow => !used.negated,
            Action::Deny | Action::Audit => used.negated,
        }
    }
}

/// A field of a source or an operation, or a condition, with its values.
pub(super) struct FieldUse<'n> {
    pub(super) field: Field,
    /// The name of the field, or the key of the condition.
    pub(super) name: &'n str,
    pub(super) negated: bool,
    pub(super) pointer: String,
    pub(super) values: Vec<&'n str>,
}

/// Returns the policies of a document that compiles.
pub(super) fn policies<'n>(root: &'n Node<'n>) -> Vec<Policy<'n>> {
    let root_namespace = root.field(SCOPE).and_then(|scope| scope.field(ROOT_NAMESPACE)).and_then(Node::text);
    root.list(POLICIES).iter().enumerate().map(|(position, node)| Policy::new(position, node, root_namespace)).collect()
}

impl<'n> Policy<'n> {
    fn new(position: usize, node: &'n Node<'n>, root_namespace: Option<&str>) -> Self {
        let pointer = format!("/{POLICIES}/{position}");
        let text = |name| node.field(name).and_then(Node::text);
        let time = |name| Timestamp::parse(text(name)?).ok();
        let rules = node.list(RULES).iter().enumerate();
        let rules = rules.map(|(rule, node)| Rule::new(node, (position, rule), format!("{pointer}/{RULES}/{rule}")));
        let actions = [Action::Allow, Action::Deny, Action::Audit];
        Self {
            node,
            namespace: text(NAMESPACE),
            audience: root_namespace.map(|root_namespace| Audience::new(node, root_namespace)),
            action: actions.into_iter().find(|action| text(ACTION) == Some(action.name())).unwrap_or(Action::Allow),
            mode: if text(MODE) == Some(Mode::Shadow.slug()) { Mode::Shadow } else { Mode::Enforce },
            not_before: time(NOT_BEFORE),
            expires: time(EXPIRES),
            rules: rules.collect(),
            pointer,
        }
    }
}

impl<'n> Rule<'n> {
    fn new(node: &'n Node<'n>, position: (usize, usize), pointer: String) -> Self {
        Self {
            position,
            sources: selectors(node, &pointer, Selector::Source),
            operations: selectors(node, &pointer, Selector::Operation),
            conditions: conditions(node, &pointer),
            conditions_name_trust_domain: conditions_name_trust_domain(node),
            pointer,
        }
    }

    /// Every field of the rule.
    pub(super) fn fields(&self) -> impl Iterator<Item = &FieldUse<'n>> {
        self.sources.iter().chain(&self.operations).flatten().chain(&self.conditions)
    }
}

fn selectors<'n>(rule: &'n Node<'n>, pointer: &str, selector: Selector) -> Vec<Vec<FieldUse<'n>>> {
    let (list, object) = selector.place();
    let items = rule.list(list).iter().enumerate().filter_map(|(position, item)| {
        let Node::Object(fields) = item.field(object)? else { return None };
        let fields = fields.iter().filter_map(|(name, node)| {
            let (field, negated) = Field::named(name)?;
            let pointer = format!("{pointer}/{list}/{position}/{object}/{name}");
            Some(FieldUse { field, name, negated, pointer, values: texts(node) })
        });
        Some(fields.collect())
    });
    items.collect()
}

fn conditions<'n>(rule: &'n Node<'n>, pointer: &str) -> Vec<FieldUse<'n>> {
    let mut conditions = Vec::new();
    for (position, condition) in rule.list(WHEN).iter().enumerate() {
        let name = condition.field(KEY).and_then(Node::text).unwrap_or_default();
        let Some(Key { field, .. }) = Key::parse(name) else { continue };
        for (list, negated) in VALUES.into_iter().zip([false, true]) {
            if let Some(values) = condition.field(list) {
                let pointer = format!("{pointer}/{WHEN}/{position}/{list}");
                conditions.push(FieldUse { field, name, negated, pointer, values: texts(values) });
            }
        }
    }
    conditions
}

fn texts<'n>(list: &'n Node<'n>) -> Vec<&'n str> {
    list.items().iter().filter_map(Node::text).collect()
}
