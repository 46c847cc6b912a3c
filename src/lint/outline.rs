//! The outline of a document that lints read: its policies, rules and fields, with their places.

use crate::policy::Node;
use crate::policy::field::{
    ACTION, EXPIRES, FEDERATED_TRUST_DOMAINS, Field, KEY, Key, MODE, NAMESPACE, NOT_BEFORE, POLICIES, RULES, Selector,
    TRUST_DOMAIN, TRUST_DOMAIN_ALIASES, VALUES, WHEN, conditions_name_trust_domain,
};
use crate::policy::{Action, Mode};
use crate::timestamp::Timestamp;

/// The trust domains of a document.
pub(super) struct TrustDomains<'n> {
    pub(super) local: &'n str,
    pub(super) aliases: Vec<&'n str>,
    pub(super) federated: Vec<&'n str>,
}

impl<'n> TrustDomains<'n> {
    pub(super) fn new(root: &'n Node<'n>) -> Self {
        let names = |field| root.list(field).iter().filter_map(Node::text).collect();
        Self {
            local: root.field(TRUST_DOMAIN).and_then(Node::text).unwrap_or_default(),
            aliases: names(TRUST_DOMAIN_ALIASES),
            federated: names(FEDERATED_TRUST_DOMAINS),
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.local == name || self.aliases.contains(&name) || self.federated.contains(&name)
    }
}

/// A policy.
pub(super) struct Policy<'n> {
    pub(super) node: &'n Node<'n>,
    pub(super) pointer: String,
    pub(super) namespace: Option<&'n str>,
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
    root.list(POLICIES).iter().enumerate().map(|(position, node)| Policy::new(position, node)).collect()
}

impl<'n> Policy<'n> {
    fn new(position: usize, node: &'n Node<'n>) -> Self {
        let pointer = format!("/{POLICIES}/{position}");
        let text = |name| node.field(name).and_then(Node::text);
        let time = |name| Timestamp::parse(text(name)?).ok();
        let rules = node.list(RULES).iter().enumerate();
        let rules = rules.map(|(rule, node)| Rule::new(node, (position, rule), format!("{pointer}/{RULES}/{rule}")));
        let actions = [Action::Allow, Action::Deny, Action::Audit];
        Self {
            node,
            namespace: text(NAMESPACE),
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
