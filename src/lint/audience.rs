//! The workloads of a policy in a document with `scope`, as far as two policies can be compared.

use crate::policy::Node;
use crate::policy::field::{KIND, MATCH_LABELS, NAME, NAMESPACE, SELECTOR, TARGET_REFS};

/// The workloads of a policy.
#[derive(Debug)]
pub(super) struct Audience<'n> {
    /// The namespace, or `None` for every one: the policy is in the root namespace.
    namespace: Option<&'n str>,
    /// The labels that a workload must have.
    labels: Vec<(&'n str, &'n str)>,
    /// The kind and the name of each resource that the policy is attached to.
    targets: Vec<(&'n str, &'n str)>,
}

impl<'n> Audience<'n> {
    pub(super) fn new(policy: &'n Node<'n>, root_namespace: &str) -> Self {
        let labels = match policy.field(SELECTOR).and_then(|selector| selector.field(MATCH_LABELS)) {
            Some(Node::Object(labels)) => {
                labels.iter().filter_map(|(name, value)| Some((&**name, value.text()?))).collect()
            }
            _ => Vec::new(),
        };
        let target = |target: &'n Node<'n>| {
            let text = |name| target.field(name).and_then(Node::text).unwrap_or_default();
            (text(KIND), text(NAME))
        };
        Self {
            namespace: policy.field(NAMESPACE).and_then(Node::text).filter(|namespace| *namespace != root_namespace),
            labels,
            targets: policy.list(TARGET_REFS).iter().map(target).collect(),
        }
    }

    /// Returns `true` if every workload of another policy is also one of this policy. A policy with `targetRefs` is not
    /// compared with one without.
    pub(super) fn includes(&self, other: &Self) -> bool {
        let in_namespace = self.namespace.is_none() || self.namespace == other.namespace;
        if self.targets.is_empty() != other.targets.is_empty() {
            return false;
        }
        // A Gateway is in the namespace of the policy, so the same name in two namespaces means two Gateways.
        let same_targets = self.targets.is_empty()
            || (self.namespace == other.namespace && other.targets.iter().all(|target| self.targets.contains(target)));
        in_namespace && same_targets && self.labels.iter().all(|label| other.labels.contains(label))
    }
}
