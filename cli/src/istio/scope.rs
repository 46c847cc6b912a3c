//! The workload whose policies are imported, and whether a policy applies to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use spiffe_authz::policy::{self, GATEWAY_NAME};

use super::authorization_policy::Spec;
use super::target::{Kind, Target, TargetRef};

/// The policies to import.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Those of one workload.
    Workload(Workload),
    /// Every policy, also those of different workloads.
    All,
    /// Every policy, if one workload can have all of them.
    Unspecified,
}

/// A workload with the attributes that select policies.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The resources of a gateway or waypoint.
    #[serde(default, rename = "targetRefs")]
    pub(crate) targets: Vec<TargetRef>,
    /// Whether the proxy is known to be a sidecar, which no policy with `targetRefs` applies to.
    #[serde(skip)]
    pub(crate) is_sidecar: bool,
}

/// Whether a policy applies to the workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applies {
    Yes,
    No,
    /// The policy is attached to a resource, and the options do not say whether the workload has it.
    Unknown,
    /// The policy is attached to a service, and the document also applies to requests to other services.
    ToService,
}

impl Workload {
    /// Returns `true` if the proxy is a waypoint.
    fn is_waypoint(&self) -> bool {
        self.targets.iter().any(|target| target.kind() != Kind::Gateway)
    }

    /// Returns the workload for the compiler of documents with `scope`, which recognizes a Gateway by a label. A waypoint
    /// whose Gateway is not known gets the label without a name.
    pub(crate) fn to_proxy(&self) -> policy::Workload {
        let mut labels: Vec<(String, String)> =
            self.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let gateway = self.targets.iter().find(|target| target.kind() == Kind::Gateway).map(TargetRef::name);
        if !self.labels.contains_key(GATEWAY_NAME) && !self.targets.is_empty() {
            labels.push((GATEWAY_NAME.to_owned(), gateway.unwrap_or_default().to_owned()));
        }
        policy::Workload { namespace: self.namespace.clone(), labels: Some(labels), is_waypoint: self.is_waypoint() }
    }

    /// Returns `true` if the policies of a namespace can apply.
    pub(crate) fn is_in(&self, namespace: &str, root_namespace: &str) -> bool {
        namespace == self.namespace || namespace == root_namespace
    }

    /// Returns whether a policy of this namespace, which is the workload's or the root namespace, applies.
    pub(crate) fn applies(&self, spec: &Spec<'_>, namespace: &str) -> Applies {
        if !spec.targets.is_empty() {
            return self.has_one_of(&spec.targets, namespace);
        }
        // A waypoint evaluates only policies with `targetRefs`. A gateway evaluates the others, too.
        let is_selected = spec.selector.as_ref().is_none_or(|selector| {
            selector.labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
        });
        if !self.is_waypoint() && is_selected { Applies::Yes } else { Applies::No }
    }

    /// Returns whether a policy of this namespace applies that is attached to these resources.
    fn has_one_of(&self, targets: &[Target<'_>], namespace: &str) -> Applies {
        if self.targets.is_empty() {
            return if self.is_sidecar { Applies::No } else { Applies::Unknown };
        }
        let is_attached = |own: &TargetRef| targets.iter().any(|target| own.is(target));
        // A GatewayClass has no namespace. Every other resource is in the namespace of the policy.
        let is_here = |own: &TargetRef| own.kind() == Kind::GatewayClass || namespace == self.namespace;
        let (services, gateways): (Vec<_>, Vec<_>) = self.targets.iter().partition(|own| own.kind().is_service());
        if gateways.into_iter().any(|own| is_here(own) && is_attached(own)) {
            return Applies::Yes;
        }
        if namespace != self.namespace || !targets.iter().any(|target| target.kind.is_service()) {
            return Applies::No;
        }
        let attached = services.iter().filter(|own| is_attached(own)).count();
        match (attached, services.len()) {
            (0, 1..) => Applies::No,
            (attached, all) if attached == all && all > 0 => Applies::Yes,
            _ => Applies::ToService,
        }
    }
}

/// The namespaces and selectors of policies, which decide whether one workload can have all of them.
#[derive(Debug, Default)]
pub(crate) struct Span {
    namespaces: BTreeSet<String>,
    selectors: BTreeSet<String>,
}

impl Span {
    /// Adds a policy.
    pub(crate) fn add(&mut self, namespace: &str, root_namespace: &str, spec: &Spec<'_>) {
        if namespace != root_namespace {
            self.namespaces.insert(namespace.to_owned());
        }
        if let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.labels.is_empty()) {
            let mut labels: Vec<String> =
                selector.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            labels.sort();
            self.selectors.insert(labels.join(","));
        }
    }

    /// Returns the problem if one workload cannot have all policies.
    pub(crate) fn conflict(&self) -> Option<String> {
        let several = |values: &BTreeSet<String>, what: &str, options: &str| {
            let shown: Vec<&str> = values.iter().take(5).map(String::as_str).collect();
            let more = if values.len() > shown.len() { ", …" } else { "" };
            let count = values.len();
            (count > 1).then(|| {
                format!(
                    "the policies of {count} {what} ({}{more}) do not apply to the same workload (use {options}, or `--all` \
                     to import every policy)",
                    shown.join("; ")
                )
            })
        };
        several(&self.namespaces, "namespaces", "`--namespace`")
            .or_else(|| several(&self.selectors, "selectors", "`--namespace` and `--label`"))
    }
}
