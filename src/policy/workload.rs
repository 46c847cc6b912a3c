//! The workload of a proxy, and the policies of a document with `scope` that apply to it.
//!
//! Source: Istio, `WorkloadPolicyMatcher.ShouldAttachPolicy` in `pilot/pkg/model/policyattachment.go`.

/// The label of a proxy that implements a Gateway of the Gateway API, with the name of the Gateway.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The beginning of the node ID of a waypoint, whose form is `<type>~<address>~<name>~<domain>`.
const WAYPOINT_ID: &[u8] = b"waypoint~";
/// The GatewayClass of Istio's waypoints.
const WAYPOINT_CLASS: &str = "istio-waypoint";

/// The workload of a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// The namespace.
    pub namespace: String,
    /// The names and values of the pod's labels, or `None` if they are not known.
    pub labels: Option<Vec<(String, String)>>,
    /// Whether the proxy is a waypoint of Istio's ambient mode.
    pub is_waypoint: bool,
}

/// The proxy for which a document with `scope` is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy<'w> {
    /// The host does not know the workload. A document with `scope` must name it, or is rejected.
    Unknown,
    /// The proxy of this workload, unless the document names another one.
    Of(&'w Workload),
    /// No particular proxy: every policy is kept, as tools need it to check policies of several workloads.
    Every,
}

/// The workloads of a policy.
#[derive(Debug, Default)]
pub(super) struct Attachment {
    /// The labels that a workload must have.
    pub(super) selector: Vec<(String, String)>,
    /// The resources of which the proxy must implement one. Empty if the policy has no `targetRefs`.
    pub(super) targets: Vec<Target>,
}

/// A resource that a policy is attached to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: TargetKind,
    pub(super) name: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetKind {
    Gateway,
    GatewayClass,
}

impl Workload {
    /// Returns `true` if Istio gives this ID to the node of a waypoint.
    #[must_use]
    pub fn is_waypoint_id(node_id: &[u8]) -> bool {
        node_id.starts_with(WAYPOINT_ID)
    }

    /// Returns `true` if a workload with some of its labels can be this one.
    pub(super) fn can_be(&self, other: &Self) -> bool {
        let labels_agree = match (&self.labels, &other.labels) {
            (Some(labels), Some(others)) => labels.iter().all(|label| others.contains(label)),
            _ => true,
        };
        self.namespace == other.namespace && self.is_waypoint == other.is_waypoint && labels_agree
    }

    /// Returns whether a policy of this namespace applies, or `None` if that depends on labels which are not known.
    pub(super) fn has(&self, namespace: &str, attachment: &Attachment, root_namespace: &str) -> Option<bool> {
        if namespace != self.namespace && namespace != root_namespace {
            return Some(false);
        }
        let Attachment { selector, targets } = attachment;
        let Some(labels) = &self.labels else {
            let applies_to_all = selector.is_empty() && targets.is_empty() && !self.is_waypoint;
            return applies_to_all.then_some(true);
        };
        let is_selected = || selector.iter().all(|label| labels.contains(label));
        let gateway = labels.iter().find(|(name, _)| name == GATEWAY_NAME);
        Some(match gateway {
            None => targets.is_empty() && is_selected(),
            Some(_) if targets.is_empty() => !self.is_waypoint && is_selected(),
            Some((_, gateway)) => targets.iter().any(|target| match target.kind {
                TargetKind::Gateway => namespace == self.namespace && *target.name == **gateway,
                TargetKind::GatewayClass => {
                    self.is_waypoint && namespace == root_namespace && &*target.name == WAYPOINT_CLASS
                }
            }),
        })
    }
}
