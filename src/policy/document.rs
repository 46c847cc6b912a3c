//! The configuration document as it is written: its fields, in their raw form.
//!
//! Reading it reports every mistake of form at once: wrong types, unknown, repeated, missing and empty fields. What the
//! values mean is the business of `compile`.

use super::node::Node;
use super::pointer::Pointer;
use super::reader::Reader;
use crate::diagnostic::{Code, Diagnostic};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The trust domain of the workload that is protected.
    pub trust_domain: String,
    /// Other trust domains whose workloads may be let in at all.
    pub federated_trust_domains: Vec<String>,
    /// Former names of `trust_domain`.
    pub trust_domain_aliases: Vec<String>,
    /// How a caller's identity is taken and which form it must have.
    pub identity: Identity,
    /// The policies, in the order of the text.
    pub policies: Vec<PolicyEntry>,
}

/// How a caller's identity is taken and which form it must have.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// `istio`, `any`, or a path template.
    pub pattern: String,
    /// Whether a caller must have a certificate at all.
    pub peer: PeerRequirement,
    /// Whether Envoy must have validated the certificate on this very handshake.
    pub require_validated: bool,
}

/// What happens to a caller that shows no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRequirement {
    /// It is denied.
    Required,
    /// It reaches the policies as a request without identity.
    Optional,
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyEntry {
    /// The policy's name.
    pub name: String,
    /// Where the policy lives; a bare name in `serviceAccounts` means this namespace.
    pub namespace: Option<String>,
    /// What a match means.
    pub action: Action,
    /// Whether a match is acted on.
    pub mode: Mode,
    /// Any of these matches. None at all never match.
    pub rules: Vec<Rule>,
}

/// What a policy does with the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Lets them pass, unless a DENY policy matches.
    Allow,
    /// Refuses them.
    Deny,
    /// Counts and logs them.
    Audit,
}

/// Whether a policy's verdict is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is.
    Enforce,
    /// It is only counted and logged.
    Shadow,
}

/// One rule: any source AND any operation; an empty list of them is no restriction.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Who calls.
    pub from: Vec<Selector>,
    /// What is asked for.
    pub to: Vec<Selector>,
}

/// A `source` or an `operation`: all of its fields must match.
pub type Selector = Vec<Field>;

/// One field of a selector with its values, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// What is looked at.
    pub attribute: Attribute,
    /// `notX` instead of `x`: matches when no value does.
    pub negated: bool,
    /// The values as written.
    pub values: Vec<String>,
}

/// What a field of a selector looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// The caller's SPIFFE ID without `spiffe://`.
    Principal,
    /// The namespace in the caller's SPIFFE ID.
    Namespace,
    /// The service account in the caller's SPIFFE ID.
    ServiceAccount,
    /// The trust domain of the caller's SPIFFE ID.
    TrustDomain,
    /// The `:authority`, port included.
    Host,
    /// The port that the connection came in on.
    Port,
    /// The HTTP method.
    Method,
    /// The path without its query.
    Path,
}

impl Attribute {
    /// The fields of a `source`.
    pub const SOURCE: [Self; 4] = [Self::Principal, Self::Namespace, Self::ServiceAccount, Self::TrustDomain];
    /// The fields of an `operation`.
    pub const OPERATION: [Self; 4] = [Self::Host, Self::Port, Self::Method, Self::Path];

    /// The field's name, and the name of its negated twin.
    #[must_use]
    pub const fn keys(self) -> [&'static str; 2] {
        match self {
            Self::Principal => ["principals", "notPrincipals"],
            Self::Namespace => ["namespaces", "notNamespaces"],
            Self::ServiceAccount => ["serviceAccounts", "notServiceAccounts"],
            Self::TrustDomain => ["trustDomains", "notTrustDomains"],
            Self::Host => ["hosts", "notHosts"],
            Self::Port => ["ports", "notPorts"],
            Self::Method => ["methods", "notMethods"],
            Self::Path => ["paths", "notPaths"],
        }
    }
}

/// Fields of Istio's AuthorizationPolicy, and of this document, that are refused by name.
const UNSUPPORTED: [&str; 9] = [
    "requestPrincipals",
    "notRequestPrincipals",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "when",
    "selector",
    "targetRefs",
];

/// Reads a document's form.
///
/// # Errors
/// Every mistake of form, in the order of the text.
pub fn read(root: &Node) -> Result<Document, Vec<Diagnostic>> {
    let mut reader = Reader::new(&UNSUPPORTED);
    let document = read_document(&mut reader, root);
    reader.finish(document)
}

fn read_document(r: &mut Reader, root: &Node) -> Option<Document> {
    let at = Pointer::ROOT;
    let fields =
        r.object(root, &at, &["trustDomain", "federatedTrustDomains", "trustDomainAliases", "identity", "policies"])?;
    let trust_domain = fields.required(r, "trustDomain", Reader::string);
    let federated_trust_domains = fields.optional(r, "federatedTrustDomains", Reader::strings);
    let trust_domain_aliases = fields.optional(r, "trustDomainAliases", Reader::strings);
    let identity = fields.optional(r, "identity", read_identity);
    let policies = fields.required(r, "policies", |r, node, at| r.list(node, at, read_policy));
    Some(Document {
        trust_domain: trust_domain?,
        federated_trust_domains: federated_trust_domains.unwrap_or_else(Vec::new),
        trust_domain_aliases: trust_domain_aliases.unwrap_or_else(Vec::new),
        identity: identity.unwrap_or_else(default_identity),
        policies: policies?,
    })
}

fn default_identity() -> Identity {
    Identity { pattern: "istio".to_owned(), peer: PeerRequirement::Required, require_validated: false }
}

fn read_identity(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Identity> {
    let fields = r.object(node, at, &["pattern", "from", "peer", "requireValidated"])?;
    let default = default_identity();
    let pattern = fields.optional(r, "pattern", Reader::string);
    fields.optional(r, "from", |r, node, at| match r.string(node, at)?.as_str() {
        "tls" => Some(()),
        source @ ("peerPrincipal" | "xfcc") => {
            r.report(at, Code::Unsupported, format!("`{source}` is not supported"), "`tls`");
            None
        }
        other => {
            r.report(at, Code::InvalidValue, format!("`{other}` is no source of identities"), "`tls`");
            None
        }
    });
    let peer = fields.optional(r, "peer", |r, node, at| {
        r.one_of(node, at, &[("required", PeerRequirement::Required), ("optional", PeerRequirement::Optional)])
    });
    let require_validated = fields.optional(r, "requireValidated", Reader::boolean);
    Some(Identity {
        pattern: pattern.unwrap_or(default.pattern),
        peer: peer.unwrap_or(default.peer),
        require_validated: require_validated.unwrap_or(default.require_validated),
    })
}

fn read_policy(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<PolicyEntry> {
    let fields = r.object(node, at, &["name", "namespace", "action", "mode", "rules"])?;
    let name = fields.required(r, "name", Reader::string);
    let namespace = fields.optional(r, "namespace", Reader::string);
    let action = fields.optional(r, "action", |r, node, at| {
        if matches!(node, Node::String(action) if &**action == "CUSTOM") {
            r.report(at, Code::Unsupported, "CUSTOM asks an external service".to_owned(), ACTIONS_HELP);
            return None;
        }
        r.one_of(node, at, &[("ALLOW", Action::Allow), ("DENY", Action::Deny), ("AUDIT", Action::Audit)])
    });
    let mode = fields
        .optional(r, "mode", |r, node, at| r.one_of(node, at, &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)]));
    let rules = fields.optional(r, "rules", |r, node, at| r.list(node, at, read_rule));
    Some(PolicyEntry {
        name: name?,
        namespace,
        action: action.unwrap_or(Action::Allow),
        mode: mode.unwrap_or(Mode::Enforce),
        rules: rules.unwrap_or_else(Vec::new),
    })
}

const ACTIONS_HELP: &str = "one of `ALLOW`, `DENY`, `AUDIT`";

fn read_rule(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Rule> {
    let fields = r.object(node, at, &["from", "to"])?;
    let from = fields.optional(r, "from", |r, node, at| {
        r.some(node, at, |r, node, at| read_wrapped(r, node, at, "source", &Attribute::SOURCE))
    });
    let to = fields.optional(r, "to", |r, node, at| {
        r.some(node, at, |r, node, at| read_wrapped(r, node, at, "operation", &Attribute::OPERATION))
    });
    Some(Rule { from: from.unwrap_or_else(Vec::new), to: to.unwrap_or_else(Vec::new) })
}

/// `{source: {…}}` or `{operation: {…}}`.
fn read_wrapped(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    wrapper: &'static str,
    attributes: &[Attribute],
) -> Option<Selector> {
    let fields = r.object(node, at, &[wrapper])?;
    fields.required(r, wrapper, |r, node, at| read_selector(r, node, at, attributes))
}

fn read_selector(r: &mut Reader, node: &Node, at: &Pointer<'_>, attributes: &[Attribute]) -> Option<Selector> {
    let names: Vec<&'static str> = attributes.iter().flat_map(|attribute| attribute.keys()).collect();
    let object = r.object(node, at, &names)?;
    if object.is_empty() {
        r.report(at, Code::Empty, "nothing is selected".to_owned(), &format!("at least one of {}", r.quoted(&names)));
        return None;
    }
    let mut selector = Selector::new();
    for &attribute in attributes {
        for (key, negated) in attribute.keys().into_iter().zip([false, true]) {
            if let Some(values) = object.optional(r, key, |r, node, at| r.some(node, at, Reader::string)) {
                selector.push(Field { attribute, negated, values });
            }
        }
    }
    Some(selector)
}
