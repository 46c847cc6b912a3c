//! Lints: findings in a document that compiles, but probably does not mean what its author intends.

mod audience;
mod coverage;
mod impossible;
mod improbable;
mod outline;
mod reach;
mod value;
mod ztunnel;

use std::fmt;

use crate::policy::field::{EXPIRES, IGNORE_LINTS, POLICIES};
use crate::policy::{Action, Mode, Node};
use crate::slugs;
use crate::timestamp::Timestamp;
use coverage::Coverage;
use outline::{Policy, Settings};

slugs! {
    /// The severity of a finding.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Severity {
        Note = "note", "The finding is worth knowing.";
        Warning = "warning", "The document probably does not mean what its author intends.";
        Error = "error", "The document allows or denies requests that it does not seem to.";
    }
}

/// The place where policies are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The HTTP filter.
    Http,
    /// The network filter.
    Tcp,
    /// The HTTP filter, and Istio's ztunnel with the same policies.
    Ztunnel,
}

slugs! {
    /// A lint.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Lint {
        PrefixSplitsTrustDomain = "prefix-splits-trust-domain",
            "A prefix ends within the name of a trust domain, and matches every longer name that anyone registers.";
        PrefixSplitsSegment = "prefix-splits-segment",
            "The prefix of a principal ends within a path segment: `a/ns/prod*` also matches `a/ns/prod-evil`.";
        LiteralAsterisk = "literal-asterisk",
            "A `*` that is neither first nor last is an ordinary character, and `*x*` ends with the character `*`.";
        NamespaceWildcard = "namespace-wildcard",
            "A `*` within a namespace is a wildcard here and in Istio's sidecars, and an ordinary character in ztunnel.";
        UnknownTrustDomain = "unknown-trust-domain",
            "A trust domain is neither local, nor an alias, nor federated. Its callers are denied before any policy.";
        OnlyNegative = "only-negative",
            "An ALLOW rule with only negated fields allows callers without an identity, and every new caller.";
        TrustDomainUnsaid = "trust-domain-unsaid",
            "A namespace or service account has no trust domain, and others are federated. The reading that grants less applies.";
        AliasExcluded = "alias-excluded",
            "`notTrustDomains` contains an alias of the local trust domain, whose workloads are local.";
        HttpOnlyDeny = "http-only-deny",
            "On TCP, a DENY rule denies more than it says, because HTTP attributes are ignored. Without other fields, it denies all.";
        HttpOnlyAllow = "http-only-allow", "On TCP, an ALLOW rule with HTTP attributes never matches, and allows no one.";
        ZtunnelNoEffect = "ztunnel-no-effect",
            "ztunnel evaluates no field of a part of the DENY rule, which has no effect there.";
        ZtunnelDeniesMore = "ztunnel-denies-more",
            "ztunnel does not evaluate a field of the DENY rule, which denies more there.";
        ZtunnelAllowsMore = "ztunnel-allows-more",
            "ztunnel ignores the trust domains of a source of the ALLOW rule, which allows more there.";
        ZtunnelAllowsNoOne = "ztunnel-allows-no-one",
            "ztunnel does not evaluate a field of the ALLOW rule, which allows no one there.";
        VoidRestriction = "void-restriction",
            "A value in a DENY rule or in a negated field matches no request, so that it has no effect.";
        ImpossibleValue = "impossible-value", "A value matches no request, or excludes every request.";
        ImprobableValue = "improbable-value",
            "A value is probably a mistake: a regular expression, a placeholder, or a form that Envoy or clients do not send.";
        OutOfPattern = "out-of-pattern",
            "A principal does not match `identity.pattern`. Its callers are denied before any policy.";
        SuffixSplitsName = "suffix-splits-name",
            "A suffix starts within a name, and also matches longer names: `*shop.example` matches `evilshop.example`.";
        AnyTrustDomain = "any-trust-domain",
            "A principal with a leading wildcard allows workloads of every federated trust domain.";
        AnyCaller = "any-caller",
            "An ALLOW rule does not name a caller, and allows workloads of every federated trust domain.";
        AnonymousAllowed = "anonymous-allowed",
            "An ALLOW rule does not require a caller, and `identity.peer` is `optional`: it allows callers without a certificate.";
        SplitRule = "split-rule",
            "Two neighboring rules were probably intended as one: one has only callers, and the other has none.";
        HostPortBypass = "host-port-bypass",
            "A host in a DENY rule, or in a negated field of an ALLOW rule, does not match the same host with a port, which is then not restricted.";
        HostWithoutPort = "host-without-port",
            "A host without `host:*` does not match a request whose host contains the port.";
        AnyPrincipal = "any-principal", "The principal or trust domain `*` allows every workload, including federated ones.";
        DuplicateRule = "duplicate-rule", "The rule is the same as an earlier one.";
        ShadowedRule = "shadowed-rule",
            "An earlier rule of the same action matches every request that this rule matches.";
        UnreachableAllow = "unreachable-allow", "A DENY rule matches every request that the ALLOW rule matches.";
        NothingAllowed = "nothing-allowed",
            "There is no ALLOW policy, so that every request that no DENY policy matches is allowed.";
        LapsedPolicy = "lapsed-policy", "The policy has expired, and matches nothing.";
        UnknownLint = "unknown-lint", "`ignoreLints` contains an unknown lint.";
    }
}

impl Lint {
    /// The severity of the findings.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::PrefixSplitsTrustDomain | Self::ZtunnelNoEffect | Self::ZtunnelAllowsMore | Self::VoidRestriction => {
                Severity::Error
            }
            Self::PrefixSplitsSegment
            | Self::LiteralAsterisk
            | Self::UnknownTrustDomain
            | Self::OnlyNegative
            | Self::AliasExcluded
            | Self::HttpOnlyAllow
            | Self::ZtunnelDeniesMore
            | Self::ZtunnelAllowsNoOne
            | Self::ImpossibleValue
            | Self::ImprobableValue
            | Self::OutOfPattern
            | Self::SuffixSplitsName
            | Self::AnyTrustDomain
            | Self::AnonymousAllowed
            | Self::SplitRule
            | Self::HostPortBypass
            | Self::DuplicateRule
            | Self::ShadowedRule
            | Self::UnreachableAllow
            | Self::LapsedPolicy
            | Self::UnknownLint => Severity::Warning,
            Self::NamespaceWildcard
            | Self::TrustDomainUnsaid
            | Self::HttpOnlyDeny
            | Self::HostWithoutPort
            | Self::AnyPrincipal
            | Self::AnyCaller
            | Self::NothingAllowed => Severity::Note,
        }
    }

    /// The next step for the author of the document, as a sentence.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::PrefixSplitsTrustDomain => "List the trust domains, or put the wildcard after the slash.",
            Self::PrefixSplitsSegment => "End the prefix with a slash, or write the complete name.",
            Self::LiteralAsterisk => "Put the wildcard first or last. For paths, use `{*}` or `{**}`.",
            Self::NamespaceWildcard => {
                "List the namespaces, or ignore this lint if ztunnel does not enforce the policy."
            }
            Self::UnknownTrustDomain => "Correct the name, or add it to `federatedTrustDomains`.",
            Self::OnlyNegative => "Add a field that names the allowed callers.",
            Self::TrustDomainUnsaid => "Add `trustDomains`.",
            Self::AliasExcluded => "Remove the alias from the document if its workloads are not local.",
            Self::HttpOnlyDeny => "Add the port for which the rule is intended.",
            Self::HttpOnlyAllow => "Use fields that a TCP connection has, such as `principals` and `ports`.",
            Self::ZtunnelNoEffect | Self::ZtunnelDeniesMore => "Enforce the rule in a waypoint or a sidecar.",
            Self::ZtunnelAllowsMore => "Use `principals`, which name the trust domain.",
            Self::ZtunnelAllowsNoOne => {
                "Use fields that ztunnel evaluates, or enforce the rule in a waypoint or a sidecar."
            }
            Self::VoidRestriction | Self::ImpossibleValue | Self::ImprobableValue => {
                "Write the form that the message names."
            }
            Self::OutOfPattern => "Correct the principal, or change `identity.pattern`.",
            Self::SuffixSplitsName => {
                "Start the suffix with the separator: `*/` in principals, and `*.` in trust domains and hosts."
            }
            Self::AnyTrustDomain => "Name the trust domain.",
            Self::AnyCaller => "Add a field that names the allowed callers, such as `trustDomains`.",
            Self::AnonymousAllowed => "Add a field that names the allowed callers, or set `identity.peer: required`.",
            Self::SplitRule => {
                "Remove the dash before the second part to join the rules, or ignore this lint if both are intended."
            }
            Self::HostPortBypass => "List the host with `:*`, or a suffix with each port.",
            Self::HostWithoutPort => "List the host with `:*`, too.",
            Self::AnyPrincipal => "Name the callers, or their trust domains.",
            Self::DuplicateRule => "Remove one of the rules.",
            Self::ShadowedRule => "Remove this rule, or narrow the earlier one.",
            Self::UnreachableAllow => "Remove this rule, or narrow the DENY rule.",
            Self::NothingAllowed => "Add an ALLOW policy.",
            Self::LapsedPolicy => {
                "Set a later `expires`, or remove the policy. Keep the last ALLOW policy: without one, every request is allowed."
            }
            Self::UnknownLint => "Correct the name, or remove it.",
        }
    }
}

/// A finding of a lint.
///
/// `Display` writes a line: `<pointer>: <severity>: <lint>: <message>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The lint.
    pub lint: Lint,
    /// The JSON pointer to the place in the document.
    pub pointer: String,
    /// The finding.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.pointer, self.lint.severity().slug(), self.lint.slug(), self.message)
    }
}

/// Returns the findings in a document that compiles, in its order, without those that it ignores. `now` decides which policies have
/// expired.
#[must_use]
pub fn lint(root: &Node, target: Target, now: Timestamp) -> Vec<Finding> {
    let settings = Settings::new(root);
    let policies = outline::policies(root);
    let coverage = Coverage::new(&policies);
    let mut findings = Findings { list: Vec::new(), ignored: Vec::new() };
    findings.ignoring(root, "", |findings| {
        for policy in &policies {
            findings.ignoring(policy.node, &policy.pointer, |findings| {
                lapsed(findings, policy, now);
                reach::extra_dash(findings, policy);
                for rule in &policy.rules {
                    rule.fields().for_each(|used| value::lint(findings, policy, used, &settings));
                    reach::lint(findings, policy, rule, &settings, target);
                    coverage.lint(findings, policy, rule);
                }
            });
        }
        if !policies.iter().any(|policy| policy.action == Action::Allow && policy.mode == Mode::Enforce) {
            findings.add(Lint::NothingAllowed, &format!("/{POLICIES}"), "no ALLOW policy is enforced".to_owned());
        }
    });
    findings.list
}

/// Returns the findings about single values, in a document with errors. The other lints need a document that compiles.
#[must_use]
pub fn lint_values(root: &Node) -> Vec<Finding> {
    let settings = Settings::new(root);
    let mut findings = Findings { list: Vec::new(), ignored: Vec::new() };
    findings.ignoring(root, "", |findings| {
        for policy in &outline::policies(root) {
            findings.ignoring(policy.node, &policy.pointer, |findings| {
                let fields = policy.rules.iter().flat_map(|rule| rule.fields());
                fields.for_each(|used| value::lint(findings, policy, used, &settings));
            });
        }
    });
    findings.list
}

fn lapsed(findings: &mut Findings, policy: &Policy<'_>, now: Timestamp) {
    if let Some(expires) = policy.expires.filter(|expires| *expires <= now) {
        let at = format!("{}/{EXPIRES}", policy.pointer);
        findings.add(Lint::LapsedPolicy, &at, format!("the policy expired at {expires}"));
    }
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

    /// Runs `look` without the lints that `node` ignores.
    fn ignoring(&mut self, node: &Node, pointer: &str, look: impl FnOnce(&mut Self)) {
        let before = self.ignored.len();
        for (position, name) in node.list(IGNORE_LINTS).iter().filter_map(Node::text).enumerate() {
            if !Lint::all().any(|lint| lint.slug() == name) {
                let at = format!("{pointer}/{IGNORE_LINTS}/{position}");
                self.add(Lint::UnknownLint, &at, format!("unknown lint `{name}`"));
            }
            self.ignored.push(name.to_owned());
        }
        look(self);
        self.ignored.truncate(before);
    }
}
