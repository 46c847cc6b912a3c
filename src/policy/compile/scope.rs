//! The fields that choose the workloads of a policy: `scope` of a document, and `selector` and `targetRefs` of a policy.

use super::pointer::Pointer;
use super::read_kubernetes_name;
use super::reader::{Object, Reader};
use crate::diagnostic::Code;
use crate::policy::field::{
    DELEGATED_NAMESPACES, GROUP, KIND, LABELS, MATCH_LABELS, NAME, NAMESPACE, ROOT_NAMESPACE, SELECTOR, TARGET_REFS,
    WAYPOINT, WORKLOAD,
};
use crate::policy::node::Node;
use crate::policy::workload::{Attachment, Proxy, Target, TargetKind, Workload};

/// The API group of Gateways.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The scope of a document: the workload whose policies are kept.
#[derive(Default)]
pub(super) struct Scope<'w> {
    root_namespace: Box<str>,
    /// The namespaces whose policies are in other documents.
    delegated: Vec<Box<str>>,
    kept: Kept<'w>,
}

/// The policies that are kept.
#[derive(Default)]
enum Kept<'w> {
    #[default]
    Every,
    Of(&'w Workload),
    OfNamed(Workload),
    /// No policy: those of the workload are in another document.
    None,
}

impl Scope<'_> {
    /// Returns whether a policy applies to the workload. Reports it if that is not known.
    pub(super) fn has(&self, r: &mut Reader, fields: &Object<'_, '_>, namespace: &str, policy: &Attachment) -> bool {
        if self.delegated.iter().any(|delegated| **delegated == *namespace) {
            let message = format!("`scope.{DELEGATED_NAMESPACES}` has the namespace of this policy");
            let help = "move the policy to the document of its namespace";
            r.report(&fields.place().key(NAMESPACE), Code::ConflictingFields, message, help);
        }
        let workload = match &self.kept {
            Kept::Every => return true,
            Kept::None => return false,
            Kept::Of(workload) => workload,
            Kept::OfNamed(workload) => workload,
        };
        workload.has(namespace, policy, &self.root_namespace).unwrap_or_else(|| {
            let message = "the policy depends on the labels of the workload, which are not known".to_owned();
            let field = [SELECTOR, TARGET_REFS].into_iter().find(|field| fields.has(field)).unwrap_or(NAME);
            r.report(&fields.place().key(field), Code::ScopeUnresolved, message, "set `labels` in `scope.workload`");
            true
        })
    }

    /// Returns `true` if the policies of the workload are in another document.
    pub(super) const fn is_delegated(&self) -> bool {
        matches!(self.kept, Kept::None)
    }
}

/// Reads the field `scope` for a proxy. If it is wrong, which is reported, policies can still have the fields that need it.
pub(super) fn read_scope<'w>(r: &mut Reader, node: &Node, at: &Pointer<'_>, proxy: Proxy<'w>) -> Scope<'w> {
    read_correct_scope(r, node, at, proxy).unwrap_or_default()
}

fn read_correct_scope<'w>(r: &mut Reader, node: &Node, at: &Pointer<'_>, proxy: Proxy<'w>) -> Option<Scope<'w>> {
    let fields = r.object(node, at, &[ROOT_NAMESPACE, DELEGATED_NAMESPACES, WORKLOAD])?;
    let root_namespace = fields.required(r, ROOT_NAMESPACE, read_kubernetes_name);
    let root = root_namespace.as_deref();
    let delegated = fields.optional(r, DELEGATED_NAMESPACES, |r, node, at| {
        r.some(node, at, |r, node, at| read_delegated_namespace(r, node, at, root))
    });
    let delegated = delegated.unwrap_or_default();
    let is_delegated = |workload: &Workload| delegated.iter().any(|namespace| **namespace == workload.namespace);
    let named = fields.optional(r, WORKLOAD, read_workload);
    if fields.has(DELEGATED_NAMESPACES) && fields.has(WORKLOAD) {
        let message = format!("`{DELEGATED_NAMESPACES}` and `{WORKLOAD}` cannot be combined");
        r.report(&at.key(DELEGATED_NAMESPACES), Code::ConflictingFields, message, "remove one of the two");
    }
    let kept = match (named, proxy) {
        (_, Proxy::Every) => Kept::Every,
        (Some(named), Proxy::Of(workload)) => {
            if !named.can_be(workload) {
                let Workload { namespace, .. } = workload;
                let message = format!("the proxy belongs to another workload, in the namespace `{namespace}`");
                let help = "correct it, or remove it: this proxy reports its workload";
                r.report(&at.key(WORKLOAD), Code::InvalidValue, message, help);
            }
            Kept::OfNamed(named)
        }
        (Some(named), Proxy::Unknown) => Kept::OfNamed(named),
        (None, Proxy::Of(workload)) if is_delegated(workload) => Kept::None,
        (None, Proxy::Of(workload)) => Kept::Of(workload),
        (None, Proxy::Unknown) => {
            if !fields.has(WORKLOAD) {
                let message = "the workload of the proxy is not known".to_owned();
                r.report(at, Code::ScopeUnresolved, message, "set `workload` to its `namespace` and `labels`");
            }
            Kept::Every
        }
    };
    Some(Scope { root_namespace: root_namespace?, delegated, kept })
}

fn read_delegated_namespace(r: &mut Reader, node: &Node, at: &Pointer<'_>, root: Option<&str>) -> Option<Box<str>> {
    let namespace = read_kubernetes_name(r, node, at)?;
    if root == Some(&*namespace) {
        let message = format!("`{namespace}` is the root namespace, whose policies apply to every namespace");
        r.report(at, Code::InvalidValue, message, "remove it: every document needs these policies");
        return None;
    }
    Some(namespace)
}

fn read_workload(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Workload> {
    let fields = r.object(node, at, &[NAMESPACE, LABELS, WAYPOINT])?;
    let namespace = fields.required(r, NAMESPACE, read_kubernetes_name);
    let labels = fields.required(r, LABELS, read_labels);
    let is_waypoint = fields.optional(r, WAYPOINT, |r, node, at| r.boolean(node, at)).unwrap_or(false);
    Some(Workload { namespace: namespace?.into(), labels: Some(labels?), is_waypoint })
}

/// Reads `selector` and `targetRefs` of a policy.
pub(super) fn read_attachment(r: &mut Reader, fields: &Object<'_, '_>) -> Attachment {
    if fields.has(SELECTOR) && fields.has(TARGET_REFS) {
        let message = format!("`{SELECTOR}` and `{TARGET_REFS}` cannot be combined");
        r.report(&fields.place().key(TARGET_REFS), Code::ConflictingFields, message, "remove one of the two");
    }
    let selector = fields.optional(r, SELECTOR, |r, node, at| {
        r.object(node, at, &[MATCH_LABELS])?.required(r, MATCH_LABELS, |r, node, at| {
            if matches!(node, Node::Object(labels) if labels.is_empty()) {
                let help = "add a label, or remove the selector: the policy then applies to its whole namespace";
                r.report(at, Code::Empty, "the selector has no labels".to_owned(), help);
            }
            read_labels(r, node, at)
        })
    });
    let targets = fields.optional(r, TARGET_REFS, |r, node, at| r.some(node, at, read_target));
    Attachment { selector: selector.unwrap_or_default(), targets: targets.unwrap_or_default() }
}

fn read_target(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Target> {
    let fields = r.object(node, at, &[GROUP, KIND, NAME])?;
    fields.required(r, GROUP, |r, node, at| r.one_of(node, at, &[(GATEWAY_GROUP, ())]));
    let kinds = [("Gateway", TargetKind::Gateway), ("GatewayClass", TargetKind::GatewayClass)];
    let kind = fields.required(r, KIND, |r, node, at| r.one_of(node, at, &kinds));
    let name = fields.required(r, NAME, read_kubernetes_name);
    Some(Target { kind: kind?, name: name? })
}

/// Reads labels of Kubernetes. A value can be empty.
fn read_labels(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Vec<(String, String)>> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    r.entries(node, at, |r, name, node, at| {
        let Some(value) = node.text() else {
            r.string(node, at)?;
            return None;
        };
        let name_is_legal = !name.is_empty() && name.bytes().all(|byte| is_word(byte) || byte == b'/');
        if !name_is_legal || value.len() > 63 || !value.bytes().all(is_word) {
            let help = "use letters, digits, `-`, `_` and `.`, without wildcards";
            r.report(at, Code::InvalidValue, format!("`{name}: {value}` is not a label of Kubernetes"), help);
            return None;
        }
        Some((name.to_owned(), value.to_owned()))
    })
}
