//! One AuthorizationPolicy to one policy of the document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What Istio calls the trust domain of a mesh whose name it need not know.
const CLUSTER_LOCAL: &str = "cluster.local";
const DRY_RUN: &str = "istio.io/dry-run";

/// A difference between a policy and the document, or a part that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// The policy, or the file.
    pub(crate) place: String,
    /// Whether the document lacks a part of the policy.
    pub(crate) lost: bool,
    /// The description.
    pub(crate) message: String,
}

/// The workload for which policies are taken.
pub(crate) struct Workload<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Collects policies and remarks.
pub(crate) struct Importer<'a> {
    /// The mesh's trust domain and its aliases: Istio's "trust domain bundle".
    bundle: Vec<&'a str>,
    root_namespace: &'a str,
    workload: Option<Workload<'a>>,
    policies: Vec<Value>,
    remarks: Vec<Remark>,
}

impl<'a> Importer<'a> {
    pub(crate) fn new(
        trust_domain: &'a str,
        aliases: &'a [String],
        root_namespace: &'a str,
        workload: Option<Workload<'a>>,
    ) -> Self {
        let bundle = std::iter::once(trust_domain).chain(aliases.iter().map(String::as_str)).collect();
        Self { bundle, root_namespace, workload, policies: Vec::new(), remarks: Vec::new() }
    }

    pub(crate) fn finish(self) -> (Vec<Value>, Vec<Remark>) {
        (self.policies, self.remarks)
    }

    fn note(&mut self, place: &str, message: String) {
        self.remarks.push(Remark { place: place.to_owned(), lost: false, message });
    }

    fn lost(&mut self, place: &str, message: String) {
        self.remarks.push(Remark { place: place.to_owned(), lost: true, message });
    }

    /// Takes a Kubernetes resource: a policy, a list, or another, which is left out.
    pub(crate) fn add(&mut self, resource: &Value) {
        if resource.is_null() {
            return;
        }
        if let Some(items) = resource["items"].as_array() {
            items.iter().for_each(|item| self.add(item));
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, version) = (text(&resource["kind"]), text(&resource["apiVersion"]));
        let name = text(&resource["metadata"]["name"]);
        let namespace = resource["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        let place = format!("{namespace}/{name}");
        if kind != "AuthorizationPolicy" {
            return self.note(&place, format!("`{kind}` is no AuthorizationPolicy, and left out"));
        }
        if !matches!(version.as_str(), "security.istio.io/v1" | "security.istio.io/v1beta1") {
            return self.lost(&place, format!("the version `{version}` is not known"));
        }
        let empty = json!({});
        let spec = if resource["spec"].is_null() { &empty } else { &resource["spec"] };
        if !self.holds(&place, &namespace, spec) {
            return;
        }
        let mut policy = json!({"name": name, "namespace": namespace});
        for (key, value) in spec.as_object().unwrap_or(&Map::new()) {
            match key.as_str() {
                "selector" | "targetRef" | "targetRefs" => {}
                "action" if value == "CUSTOM" => {
                    return self.lost(&place, "the action CUSTOM asks an external service".to_owned());
                }
                "action" => policy["action"] = value.clone(),
                "rules" => policy["rules"] = self.rules(&place, value),
                key => self.lost(&place, format!("`spec.{key}` is not known")),
            }
        }
        if let Some(value) = resource["metadata"]["annotations"][DRY_RUN].as_str() {
            // Go's strconv.ParseBool; what it does not take, Istio enforces.
            match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => policy["mode"] = json!("shadow"),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => {}
                value => self.note(&place, format!("`{DRY_RUN}: {value}` is no boolean; enforced, as in Istio")),
            }
        }
        self.remark_readings(&place, &policy);
        self.policies.push(policy);
    }

    /// Whether a policy holds for the workload.
    fn holds(&mut self, place: &str, namespace: &str, spec: &Value) -> bool {
        if ["targetRef", "targetRefs"].iter().any(|name| !spec[name].is_null()) {
            self.lost(place, "`targetRefs` attaches it to a resource, not to a workload".to_owned());
            return false;
        }
        let labels = spec["selector"]["matchLabels"].as_object();
        let Some(workload) = &self.workload else {
            if labels.is_some() {
                self.note(place, "it has a selector; give --namespace and --label to take one workload's".to_owned());
            }
            return true;
        };
        let in_namespace = namespace == workload.namespace || namespace == self.root_namespace;
        let selected = labels.is_none_or(|labels| {
            labels.iter().all(|(name, value)| workload.labels.get(name).map(String::as_str) == value.as_str())
        });
        if !(in_namespace && selected) {
            self.note(place, "it does not hold for this workload, and is left out".to_owned());
        }
        in_namespace && selected
    }

    fn rules(&mut self, place: &str, rules: &Value) -> Value {
        let mut rules = rules.clone();
        for rule in rules.as_array_mut().into_iter().flatten() {
            for source in items(rule, "from").filter_map(|item| item.get_mut("source")) {
                for name in ["principals", "notPrincipals"] {
                    self.rewrite(place, source, name, Self::principal);
                }
                for name in ["trustDomains", "notTrustDomains"] {
                    self.rewrite(place, source, name, Self::trust_domain);
                }
            }
            for condition in items(rule, "when") {
                let rewritten = match condition["key"].as_str() {
                    Some("source.principal") => Self::principal,
                    Some("source.trustDomain") => Self::trust_domain,
                    _ => continue,
                };
                for name in ["values", "notValues"] {
                    self.rewrite(place, condition, name, rewritten);
                }
            }
        }
        rules
    }

    /// Replaces each value by what Istio makes of it.
    fn rewrite(&mut self, place: &str, object: &mut Value, name: &str, rewritten: fn(&Self, &str) -> Vec<String>) {
        let Some(values) = object.get(name).and_then(Value::as_array) else { return };
        let before: Vec<String> = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if before.len() != values.len() {
            return;
        }
        let mut after = Vec::new();
        for value in before.iter().flat_map(|value| rewritten(self, value)) {
            if !after.contains(&value) {
                after.push(value);
            }
        }
        if after != before {
            self.note(
                place,
                format!("`{name}` rewritten as Istio does: {} to {}", before.join(", "), after.join(", ")),
            );
            object[name] = json!(after);
        }
    }

    /// Istio's rewriting of a principal of five parts whose trust domain is of the mesh, or `cluster.local`.
    fn principal(&self, value: &str) -> Vec<String> {
        let parts: Vec<&str> = value.split('/').collect();
        let &[trust_domain, .., _] = parts.as_slice() else { return vec![value.to_owned()] };
        if parts.len() != 5 || trust_domain == "*" {
            return vec![value.to_owned()];
        }
        let of_mesh = trust_domain == CLUSTER_LOCAL || self.bundle.iter().any(|own| alike(own, trust_domain));
        if !of_mesh {
            return vec![value.to_owned()];
        }
        let rest = &value[trust_domain.len()..];
        let suffix = trust_domain.strip_prefix('*').filter(|suffix| !suffix.is_empty());
        let rewritten = self.bundle.iter().map(|own| match suffix {
            // A suffix is kept where it matches.
            Some(suffix) if own.ends_with(suffix) => value.to_owned(),
            _ => format!("{own}{rest}"),
        });
        rewritten.collect()
    }

    /// Istio's rewriting of a trust domain: one of the mesh is every one of the mesh.
    fn trust_domain(&self, value: &str) -> Vec<String> {
        if self.bundle.contains(&value) {
            return self.bundle.iter().map(|own| (*own).to_owned()).collect();
        }
        vec![value.to_owned()]
    }

    /// Says where the document grants less than Istio does.
    fn remark_readings(&mut self, place: &str, policy: &Value) {
        let text = policy["rules"].to_string();
        let names = [
            "\"namespaces\"",
            "\"notNamespaces\"",
            "erviceAccounts\"",
            "\"source.namespace\"",
            "\"source.serviceAccount\"",
        ];
        if names.iter().any(|name| text.contains(name)) && !text.contains("rustDomain") {
            let message =
                "namespaces and service accounts leave the trust domain unsaid: the reading that grants less is taken";
            self.note(place, message.to_owned());
        }
        if text.contains("\"request.headers[") {
            let message = "a header with several lines: the reading that grants less is taken";
            self.note(place, message.to_owned());
        }
    }
}

/// Istio compares two names of which either may hold a wildcard at one end.
fn alike(one: &str, other: &str) -> bool {
    let covers = |pattern: &str, name: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => true,
        (Some(suffix), _) => name.ends_with(suffix),
        (None, Some(prefix)) => name.starts_with(prefix),
        (None, None) => pattern == name,
    };
    covers(one, other) || covers(other, one)
}

fn items<'v>(rule: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    rule.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}
