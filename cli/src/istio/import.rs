//! Imports AuthorizationPolicies into a document.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spiffe_authz::diagnostic::Diagnostic;

use super::authorization_policy::{AuthorizationPolicy, DryRun};
use super::remark::Remark;
use super::rules::RuleImport;
use super::trust_domain_bundle::TrustDomainBundle;

/// The workload whose policies are imported.
pub(crate) struct Workload<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Collects policies and remarks.
pub(crate) struct Importer<'a> {
    bundle: TrustDomainBundle,
    root_namespace: &'a str,
    /// The workload, or `None` to import every policy.
    workload: Option<Workload<'a>>,
    /// The name of each imported policy, and the policy.
    policies: Vec<(String, Value)>,
    remarks: Vec<Remark>,
}

impl<'a> Importer<'a> {
    pub(crate) fn new(bundle: TrustDomainBundle, root_namespace: &'a str, workload: Option<Workload<'a>>) -> Self {
        Self { bundle, root_namespace, workload, policies: Vec::new(), remarks: Vec::new() }
    }

    /// Imports the policies of a Kubernetes resource in this file.
    pub(crate) fn add(&mut self, resource: &Value, file: &str) {
        let mut policies = Vec::new();
        AuthorizationPolicy::read_all(resource, file, &mut policies, &mut self.remarks);
        policies.iter().for_each(|policy| self.add_policy(policy));
    }

    /// Returns the policies of the document.
    pub(crate) fn policies(&self) -> Vec<&Value> {
        self.policies.iter().map(|(_, policy)| policy).collect()
    }

    /// Returns the remarks, with those on the errors in the document.
    pub(crate) fn remarks(mut self, errors: &[Diagnostic]) -> Vec<Remark> {
        let of_errors = errors.iter().map(|error| self.remark_error(error)).collect::<Vec<_>>();
        self.remarks.extend(of_errors);
        self.remarks
    }

    fn remark_error(&self, Diagnostic { pointer, code, message, help }: &Diagnostic) -> Remark {
        let message = format!("{}: {message} ({help})", code.slug());
        let in_policy = || {
            let (position, field) = pointer.strip_prefix("/policies/")?.split_once('/')?;
            let (place, _) = self.policies.get(position.parse::<usize>().ok()?)?;
            Some((place, field))
        };
        match in_policy() {
            Some((place, field)) => Remark::lost(place, message).at(path_of(field)),
            None => Remark::lost(if pointer.is_empty() { "/" } else { pointer }, message),
        }
    }

    fn add_policy(&mut self, source: &AuthorizationPolicy<'_>) {
        let place = source.place();
        if !self.applies(source) {
            return;
        }
        if source.action.is_some_and(|action| action == "CUSTOM") {
            let message = "`action: CUSTOM` is not supported: it calls an external authorization service";
            self.remarks.push(Remark::lost(&place, message));
            return;
        }
        for name in &source.unknown {
            self.remarks.push(Remark::lost(&place, format!("unknown field `spec.{name}`")));
        }
        let mut policy = json!({"name": source.name, "namespace": source.namespace});
        if let Some(action) = source.action {
            policy["action"] = action.clone();
        }
        if source.dry_run == DryRun::Yes {
            policy["mode"] = json!("shadow");
        }
        self.remarks.extend(source.dry_run.remark(&place));
        if let Some(rules) = source.rules {
            let allows = source.action.is_none_or(|action| action == "ALLOW");
            let Self { bundle, remarks, .. } = self;
            policy["rules"] = RuleImport { place: &place, allows, bundle, remarks }.rules(rules);
        }
        self.policies.push((place, policy));
    }

    /// Returns `true` if a policy applies to the workload.
    fn applies(&mut self, policy: &AuthorizationPolicy<'_>) -> bool {
        let place = policy.place();
        if policy.has_target {
            let message = "`targetRefs` is not supported: it attaches the policy to a resource, not to a workload";
            self.remarks.push(Remark::lost(&place, message));
            return false;
        }
        let Some(workload) = &self.workload else {
            if policy.labels.is_some() {
                let message = "the selector is not imported (use `--namespace` and `--label` to import the policies of one workload)";
                self.remarks.push(Remark::note(&place, message));
            }
            return true;
        };
        let in_namespace = policy.namespace == workload.namespace || policy.namespace == self.root_namespace;
        let is_selected = policy.labels.is_none_or(|labels| {
            labels.iter().all(|(name, value)| workload.labels.get(name).map(String::as_str) == value.as_str())
        });
        if !(in_namespace && is_selected) {
            self.remarks.push(Remark::note(&place, "skipped: the policy does not apply to this workload"));
        }
        in_namespace && is_selected
    }
}

/// Returns a JSON pointer without its first slash as a path, such as `rules[0].from`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/') {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}
