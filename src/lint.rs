//! Lints: what a document says that its author hardly means, although it can be decided by.
//!
//! They are found in the document as written, which must compile.

mod coverage;

use std::fmt;

use crate::policy::{IGNORE_LINTS, Node};
use crate::timestamp::Timestamp;
use coverage::covers;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably not what is meant.
    Warning,
    /// Lets in, or keeps out, others than it seems to.
    Error,
}

impl Severity {
    /// Every severity, the lightest first.
    pub const ALL: [Self; 3] = [Self::Note, Self::Warning, Self::Error];

    /// The word for it.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Where a policy is to be enforced, as far as lints look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A filter for HTTP.
    Http,
    /// A filter for TCP.
    Tcp,
    /// Istio's ztunnel, if the policies are used there, too.
    Ztunnel,
}

macro_rules! lints {
    ($($variant:ident $slug:literal $severity:ident $summary:literal)*) => {
        /// What can be found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Lint {
            $(#[doc = $summary] $variant,)*
        }

        impl Lint {
            /// Every lint.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name of this lint.
            #[must_use]
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// How much it weighs.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What it finds, in a sentence.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)* }
            }
        }
    };
}

lints! {
    PrefixSplitsTrustDomain "prefix-splits-trust-domain" Error
        "A prefix ends inside a trust domain's name, so that whoever registers a longer name is matched, too."
    PrefixSplitsSegment "prefix-splits-segment" Warning
        "A principal's prefix ends inside a path segment: `a/ns/prod*` matches `a/ns/prod-evil`, too."
    LiteralAsterisk "literal-asterisk" Warning
        "A `*` that is neither first nor last is an ordinary character, and `*x*` ends in the character `*`."
    NamespaceWildcard "namespace-wildcard" Note
        "A `*` within a namespace is a wildcard here and on Istio's sidecars, and an ordinary character in ztunnel."
    UnknownTrustDomain "unknown-trust-domain" Warning
        "A trust domain that is neither the own one nor an alias nor federated: its callers are denied before any policy."
    OnlyNegative "only-negative" Warning
        "An ALLOW rule that says only what must not match lets in callers without identity and everything new."
    TrustDomainUnsaid "trust-domain-unsaid" Note
        "A namespace or service account without trust domain, while others are federated: the reading that grants less is taken."
    AliasExcluded "alias-excluded" Warning
        "`notTrustDomains` names an alias of the own trust domain, whose workloads count as own."
    HttpOnlyDeny "http-only-deny" Note
        "On TCP a DENY rule denies more than it says, since HTTP attributes are not asked there; all, if it asks for no others."
    HttpOnlyAllow "http-only-allow" Warning
        "An ALLOW rule that asks for HTTP attributes is left out on TCP, and lets nobody in there."
    TrustDomainsIgnored "trust-domains-ignored" Error
        "ztunnel does not read `trustDomains` and `notTrustDomains`: the rule is wider there than it is written."
    HostWithoutPort "host-without-port" Note
        "A host without its twin `host:*` does not match a request that names the port."
    AnyPrincipal "any-principal" Note
        "The principal `*` is every verified workload, of every federated trust domain, too."
    DuplicateRule "duplicate-rule" Warning
        "The rule says what an earlier one says."
    ShadowedRule "shadowed-rule" Warning
        "Whatever the rule matches, an earlier rule of the same action matches before."
    UnreachableAllow "unreachable-allow" Warning
        "Whatever the ALLOW rule matches, a DENY rule refuses."
    NothingAllowed "nothing-allowed" Note
        "There is no ALLOW policy, so that whatever no DENY policy matches passes."
    LapsedPolicy "lapsed-policy" Warning
        "The policy has expired, so it matches nothing."
    UnknownLint "unknown-lint" Warning
        "`ignoreLints` names no lint."
}

/// One finding.
///
/// `Display` gives the line that people read: `<pointer>: <severity>: <lint>: <message>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which lint found it.
    pub lint: Lint,
    /// JSON pointer to what was found.
    pub pointer: String,
    /// What was found.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.pointer, self.lint.severity().slug(), self.lint.slug(), self.message)
    }
}

/// Every finding in a document that compiles, in its order, but for those that it asks to ignore. Policies expire by `now`.
#[must_use]
pub fn lint(root: &Node, target: Target, now: Timestamp) -> Vec<Finding> {
    let domains = Domains::of(root);
    let mut findings = Findings { list: Vec::new(), ignored: Vec::new() };
    findings.ignoring(root, "", |findings| {
        let policies: Vec<Policy<'_>> = list(root, "policies").iter().enumerate().map(Policy::of).collect();
        for policy in &policies {
            findings.ignoring(policy.node, &policy.pointer, |findings| {
                if let Some(expires) = policy.expires.filter(|expires| *expires <= now) {
                    let at = format!("{}/expires", policy.pointer);
                    findings.add(Lint::LapsedPolicy, &at, format!("the policy expired at {expires}"));
                }
                for rule in &policy.rules {
                    lint_rule(findings, rule, policy, &domains, target);
                    compare(findings, rule, policy, &policies);
                }
            });
        }
        if !policies.iter().any(|policy| policy.action == "ALLOW" && policy.enforced) {
            findings.add(Lint::NothingAllowed, "/policies", "no ALLOW policy is enforced".to_owned());
        }
    });
    findings.list
}

struct Findings {
    list: Vec<Finding>,
    ignored: Vec<String>,
}

impl Findings {
    fn add(&mut self, lint: Lint, pointer: &str, message: String) {
        if !self.ignored.iter().any(|ignored| ignored == lint.slug()) {
            self.list.push(Finding { lint, pointer: pointer.to_owned(), message });
        }
    }

    /// Looks into `node` without the lints that it asks to ignore.
    fn ignoring(&mut self, node: &Node, pointer: &str, look: impl FnOnce(&mut Self)) {
        let before = self.ignored.len();
        for (position, name) in list(node, IGNORE_LINTS).iter().filter_map(Node::text).enumerate() {
            if !Lint::ALL.iter().any(|lint| lint.slug() == name) {
                let at = format!("{pointer}/{IGNORE_LINTS}/{position}");
                self.add(Lint::UnknownLint, &at, format!("there is no lint `{name}`"));
            }
            self.ignored.push(name.to_owned());
        }
        look(self);
        self.ignored.truncate(before);
    }
}

/// The trust domains of the document.
struct Domains<'n> {
    own: &'n str,
    aliases: Vec<&'n str>,
    federated: Vec<&'n str>,
}

impl<'n> Domains<'n> {
    fn of(root: &'n Node<'n>) -> Self {
        let texts = |name| list(root, name).iter().filter_map(Node::text).collect();
        Self {
            own: root.field("trustDomain").and_then(Node::text).unwrap_or_default(),
            aliases: texts("trustDomainAliases"),
            federated: texts("federatedTrustDomains"),
        }
    }

    fn know(&self, name: &str) -> bool {
        self.own == name || self.aliases.contains(&name) || self.federated.contains(&name)
    }
}

struct Policy<'n> {
    node: &'n Node<'n>,
    pointer: String,
    position: usize,
    action: &'n str,
    enforced: bool,
    not_before: Option<Timestamp>,
    expires: Option<Timestamp>,
    rules: Vec<Rule<'n>>,
}

struct Rule<'n> {
    node: &'n Node<'n>,
    pointer: String,
    position: usize,
}

impl<'n> Policy<'n> {
    fn of((position, node): (usize, &'n Node<'n>)) -> Self {
        let pointer = format!("/policies/{position}");
        let moment = |name| node.field(name).and_then(Node::text).and_then(|text| Timestamp::parse(text).ok());
        let rules = list(node, "rules").iter().enumerate();
        let rules =
            rules.map(|(position, node)| Rule { node, pointer: format!("{pointer}/rules/{position}"), position });
        Self {
            node,
            position,
            action: node.field("action").and_then(Node::text).unwrap_or("ALLOW"),
            enforced: node.field("mode").and_then(Node::text) != Some("shadow"),
            not_before: moment("notBefore"),
            expires: moment("expires"),
            rules: rules.collect(),
            pointer,
        }
    }
}

/// A field of a rule with its values: of a source, an operation, or a condition, whose key is its name.
struct Field<'n> {
    name: &'n str,
    negated: bool,
    pointer: String,
    values: Vec<&'n str>,
}

impl Field<'_> {
    /// The name in a source or operation that means the same as a condition's key.
    fn meaning(&self) -> &str {
        match self.name {
            "source.principal" => "principals",
            "source.namespace" => "namespaces",
            "source.serviceAccount" => "serviceAccounts",
            "source.trustDomain" => "trustDomains",
            "request.auth.principal" => "requestPrincipals",
            "source.ip" => "ipBlocks",
            "remote.ip" => "remoteIpBlocks",
            "destination.port" => "ports",
            name => name,
        }
    }

    fn is_http_only(&self) -> bool {
        matches!(self.meaning(), "hosts" | "methods" | "paths" | "requestPrincipals")
            || self.name.starts_with("request.")
    }
}

/// The selectors of `from` or `to`, and the fields of each.
fn selectors<'n>(rule: &Rule<'n>, list_name: &str, wrapper: &str) -> Vec<Vec<Field<'n>>> {
    let selectors = list(rule.node, list_name).iter().enumerate();
    selectors
        .filter_map(|(position, item)| {
            let Node::Object(fields) = item.field(wrapper)? else { return None };
            let pointer = format!("{}/{list_name}/{position}/{wrapper}", rule.pointer);
            Some(fields.iter().map(|(name, node)| selector_field(name, node, &pointer)).collect())
        })
        .collect()
}

fn selector_field<'n>(name: &'n str, node: &'n Node<'n>, selector: &str) -> Field<'n> {
    let positive = name.strip_prefix("not").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    let known = positive.and_then(|positive| {
        let names = [
            "principals",
            "namespaces",
            "serviceAccounts",
            "trustDomains",
            "requestPrincipals",
            "ipBlocks",
            "remoteIpBlocks",
            "hosts",
            "ports",
            "methods",
            "paths",
        ];
        names.into_iter().find(|name| name.eq_ignore_ascii_case(positive))
    });
    let values = node.items().iter().filter_map(Node::text).collect();
    Field { name: known.unwrap_or(name), negated: known.is_some(), pointer: format!("{selector}/{name}"), values }
}

fn conditions<'n>(rule: &Rule<'n>) -> Vec<Field<'n>> {
    let conditions = list(rule.node, "when").iter().enumerate();
    conditions
        .flat_map(|(position, condition)| {
            let key = condition.field("key").and_then(Node::text).unwrap_or_default();
            let pointer = format!("{}/when/{position}", rule.pointer);
            [("values", false), ("notValues", true)].into_iter().filter_map(move |(name, negated)| {
                let values = condition.field(name)?.items().iter().filter_map(Node::text).collect();
                Some(Field { name: key, negated, pointer: format!("{pointer}/{name}"), values })
            })
        })
        .collect()
}

fn lint_rule(findings: &mut Findings, rule: &Rule<'_>, policy: &Policy<'_>, domains: &Domains<'_>, target: Target) {
    let sources = selectors(rule, "from", "source");
    let operations = selectors(rule, "to", "operation");
    let conditions = conditions(rule);
    let says_trust_domain =
        |fields: &[Field<'_>]| fields.iter().any(|field| field.meaning() == "trustDomains" && !field.negated);
    let said_in_when = says_trust_domain(&conditions);
    for fields in sources.iter().chain(&operations).chain([&conditions]) {
        let said = said_in_when || says_trust_domain(fields);
        for field in fields {
            lint_field(findings, field, domains);
            if matches!(field.meaning(), "namespaces" | "serviceAccounts") && !said && !domains.federated.is_empty() {
                let message = format!("`{}` leaves the trust domain unsaid", field.name);
                findings.add(Lint::TrustDomainUnsaid, &field.pointer, message);
            }
            if target == Target::Ztunnel && field.meaning() == "trustDomains" {
                findings.add(Lint::TrustDomainsIgnored, &field.pointer, "ztunnel does not read this".to_owned());
            }
        }
    }
    let fields: Vec<&Field<'_>> = sources.iter().chain(&operations).flatten().chain(&conditions).collect();
    if policy.action == "ALLOW" && !fields.is_empty() && fields.iter().all(|field| field.negated) {
        findings.add(Lint::OnlyNegative, &rule.pointer, "nothing is said that must match".to_owned());
    }
    let http = fields.iter().any(|field| field.is_http_only());
    if policy.action == "DENY" && http {
        // One selector of HTTP alone is any on TCP, whatever the others say.
        let any = |selectors: &[Vec<Field<'_>>]| {
            selectors.is_empty() || selectors.iter().any(|fields| fields.iter().all(Field::is_http_only))
        };
        if any(&sources) && any(&operations) && conditions.iter().all(Field::is_http_only) {
            findings.add(Lint::HttpOnlyDeny, &rule.pointer, "only HTTP attributes are asked for".to_owned());
        } else if target == Target::Tcp {
            let message = "HTTP attributes are asked for, and not looked at on TCP".to_owned();
            findings.add(Lint::HttpOnlyDeny, &rule.pointer, message);
        }
    }
    if policy.action == "ALLOW" && http && target != Target::Http {
        findings.add(Lint::HttpOnlyAllow, &rule.pointer, "HTTP attributes are asked for".to_owned());
    }
}

fn lint_field(findings: &mut Findings, field: &Field<'_>, domains: &Domains<'_>) {
    for (position, value) in field.values.iter().enumerate() {
        let at = format!("{}/{position}", field.pointer);
        let mut add = |lint, message| findings.add(lint, &at, message);
        match field.meaning() {
            "principals" => lint_principal(&mut add, value, domains),
            "trustDomains" => lint_trust_domain(&mut add, value, field.negated, domains),
            "namespaces" if inner_asterisk(value) => {
                add(Lint::NamespaceWildcard, format!("`{value}` has a `*` that is neither first nor last"));
            }
            "hosts" => {
                let twin = format!("{value}:*");
                if !value.contains([':', '*']) && !field.values.contains(&&*twin) {
                    add(Lint::HostWithoutPort, format!("`{value}` stands without `{twin}`"));
                }
            }
            _ => {}
        }
        let is_text = !matches!(field.meaning(), "namespaces" | "ports" | "ipBlocks" | "remoteIpBlocks");
        if is_text && inner_asterisk(value) && !value.contains("{*") {
            add(Lint::LiteralAsterisk, format!("`{value}` asks for the character `*`"));
        }
    }
}

fn inner_asterisk(value: &str) -> bool {
    let inner = value.strip_prefix('*').unwrap_or_else(|| value.strip_suffix('*').unwrap_or(value));
    inner.contains('*')
}

fn lint_principal(add: &mut impl FnMut(Lint, String), value: &str, domains: &Domains<'_>) {
    if value == "*" {
        add(Lint::AnyPrincipal, "every verified workload is meant".to_owned());
        return;
    }
    if value.starts_with('*') {
        return;
    }
    let prefix = value.strip_suffix('*');
    let literal = prefix.unwrap_or(value);
    match literal.split_once('/') {
        None => add(Lint::PrefixSplitsTrustDomain, format!("`{value}` matches trust domains that begin like this")),
        Some((trust_domain, _)) if !domains.know(trust_domain) => {
            add(Lint::UnknownTrustDomain, format!("`{trust_domain}` is not trusted here"));
        }
        Some(_) => {}
    }
    if prefix.is_some_and(|prefix| prefix.contains('/') && !prefix.ends_with('/')) {
        add(Lint::PrefixSplitsSegment, format!("`{value}` ends inside a segment"));
    }
}

fn lint_trust_domain(add: &mut impl FnMut(Lint, String), value: &str, negated: bool, domains: &Domains<'_>) {
    if value.ends_with('*') && value != "*" {
        add(Lint::PrefixSplitsTrustDomain, format!("`{value}` matches trust domains that begin like this"));
    } else if !value.contains('*') && !domains.know(value) {
        add(Lint::UnknownTrustDomain, format!("`{value}` is not trusted here"));
    } else if negated && domains.aliases.contains(&value) {
        add(Lint::AliasExcluded, format!("`{value}` is an alias of `{}`", domains.own));
    }
}

/// Looks for rules that leave nothing for this one to decide.
fn compare(findings: &mut Findings, rule: &Rule<'_>, policy: &Policy<'_>, policies: &[Policy<'_>]) {
    if !policy.enforced {
        return;
    }
    // A policy that applies for a time covers only what applies in that time.
    let applies_with = |other: &&Policy<'_>| {
        (other.not_before.is_none() || other.not_before == policy.not_before)
            && (other.expires.is_none() || other.expires == policy.expires)
    };
    for other in policies.iter().filter(|other| other.enforced).filter(applies_with) {
        // A bare service account means the policy's namespace, so that equal words may mean different callers.
        let alike = |other: &Policy<'_>| {
            other.node.field("namespace") == policy.node.field("namespace") || !names_service_account(rule.node)
        };
        for earlier in other.rules.iter().filter(|_| alike(other)) {
            let before = (other.position, earlier.position) < (policy.position, rule.position);
            if other.action == policy.action && before && covers(earlier.node, rule.node) {
                let (lint, verb) = if covers(rule.node, earlier.node) {
                    (Lint::DuplicateRule, "says the same")
                } else {
                    (Lint::ShadowedRule, "matches all of it before")
                };
                findings.add(lint, &rule.pointer, format!("{} {verb}", earlier.pointer));
                return;
            }
            // DENY reads namespaces and service accounts of every trust domain, ALLOW those of the own one at most.
            if policy.action == "ALLOW"
                && other.action == "DENY"
                && !has_negation(earlier.node)
                && covers(earlier.node, rule.node)
            {
                findings.add(Lint::UnreachableAllow, &rule.pointer, format!("{} refuses all of it", earlier.pointer));
                return;
            }
        }
    }
}

fn names_service_account(node: &Node) -> bool {
    any_name(node, &|name| name.ends_with("erviceAccounts"))
        || list(node, "when")
            .iter()
            .any(|condition| condition.field("key").and_then(Node::text) == Some("source.serviceAccount"))
}

fn has_negation(node: &Node) -> bool {
    any_name(node, &|name| name.starts_with("not"))
}

fn any_name(node: &Node, is: &impl Fn(&str) -> bool) -> bool {
    match node {
        Node::Object(fields) => fields.iter().any(|(name, value)| is(name) || any_name(value, is)),
        Node::List(items) => items.iter().any(|item| any_name(item, is)),
        _ => false,
    }
}

fn list<'n>(node: &'n Node<'n>, name: &str) -> &'n [Node<'n>] {
    node.field(name).map_or(&[], Node::items)
}
