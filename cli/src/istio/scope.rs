//! The workload whose policies are imported.

use std::collections::{BTreeMap, BTreeSet};

use super::authorization_policy::{Spec, TARGET_KINDS};
use crate::suggestion::hint;

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
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The resources of a gateway or waypoint: kinds and names.
    pub(crate) targets: Vec<TargetRef>,
}

/// A resource that policies are attached to.
#[derive(Debug, Clone)]
pub(crate) struct TargetRef {
    kind: String,
    name: String,
}

/// Whether a policy applies to the workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applies {
    Yes,
    No,
    /// The policy is attached to a resource, and the options do not say whether the workload has it.
    Unknown,
}

impl TargetRef {
    /// Parses a kind and a name, such as `Gateway/public`.
    ///
    /// # Errors
    /// Returns a description of the expected form.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').ok_or("expected `kind/name`, such as `Gateway/public`")?;
        let known = TARGET_KINDS.map(|(kind, _)| kind);
        if !known.contains(&kind) {
            return Err(format!("unknown kind `{kind}` ({})", hint(kind, &known)));
        }
        if name.is_empty() || name.contains('/') {
            return Err("expected `kind/name`, such as `Gateway/public`".to_owned());
        }
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

impl Workload {
    /// Returns `true` if the policies of a namespace can apply.
    pub(crate) fn is_in(&self, namespace: &str, root_namespace: &str) -> bool {
        namespace == self.namespace || namespace == root_namespace
    }

    /// Returns whether a policy in the workload's namespace or in the root namespace applies.
    pub(crate) fn applies(&self, spec: &Spec<'_>) -> Applies {
        if !spec.targets.is_empty() {
            if self.targets.is_empty() {
                return Applies::Unknown;
            }
            let has =
                |kind: &str, name: &str| self.targets.iter().any(|target| target.kind == kind && target.name == name);
            let applies = spec.targets.iter().any(|target| has(target.kind, target.name));
            return if applies { Applies::Yes } else { Applies::No };
        }
        // A waypoint evaluates only policies with `targetRefs`. A gateway evaluates the others, too.
        let is_waypoint = self.targets.iter().any(|target| target.kind != "Gateway");
        let is_selected = spec.selector.as_ref().is_none_or(|selector| {
            selector.labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
        });
        if !is_waypoint && is_selected { Applies::Yes } else { Applies::No }
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
