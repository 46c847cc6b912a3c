//! Reads AuthorizationPolicy resources.

use serde_json::{Map, Value};

use super::remark::Remark;

const KIND: &str = "AuthorizationPolicy";
const VERSIONS: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];
/// The annotation of a policy that is evaluated and not enforced.
const DRY_RUN: &str = "istio.io/dry-run";

/// An AuthorizationPolicy. The fields that the document has, too, are values that its compiler checks.
pub(crate) struct AuthorizationPolicy<'r> {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// `metadata.annotations` says that the policy is not enforced.
    pub(crate) dry_run: DryRun<'r>,
    pub(crate) action: Option<&'r Value>,
    pub(crate) rules: Option<&'r Value>,
    /// `spec.selector.matchLabels`, or `None` if the policy selects every workload.
    pub(crate) labels: Option<&'r Map<String, Value>>,
    /// Whether the policy is attached to a resource.
    pub(crate) has_target: bool,
    /// Fields of `spec` that the import does not know.
    pub(crate) unknown: Vec<&'r str>,
}

/// The value of the annotation `istio.io/dry-run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRun<'r> {
    No,
    Yes,
    /// Istio enforces the policy.
    Invalid(&'r str),
}

impl<'r> AuthorizationPolicy<'r> {
    /// Reads a resource: a policy, a list of resources, or an empty document. Adds a remark for each other resource.
    pub(crate) fn read_all(resource: &'r Value, file: &str, policies: &mut Vec<Self>, remarks: &mut Vec<Remark>) {
        if resource.is_null() {
            return;
        }
        if let Some(items) = resource["items"].as_array() {
            items.iter().for_each(|item| Self::read_all(item, file, policies, remarks));
            return;
        }
        let policy = Self::read(resource);
        let text = |field: &str| resource[field].as_str().unwrap_or_default();
        let (kind, version) = (text("kind"), text("apiVersion"));
        if kind.is_empty() {
            let message = format!("skipped: expected an {KIND}, found a document without `kind`");
            remarks.push(Remark::note(file, message));
        } else if kind != KIND {
            let message = format!("skipped: expected an {KIND}, found a {kind}");
            remarks.push(Remark::note(&policy.place(), message));
        } else if !VERSIONS.contains(&version) {
            let [current, old] = VERSIONS;
            let message = format!("unknown version `{version}` (expected `{current}` or `{old}`)");
            remarks.push(Remark::lost(&policy.place(), message));
        } else {
            policies.push(policy);
        }
    }

    fn read(resource: &'r Value) -> Self {
        let (metadata, spec) = (&resource["metadata"], &resource["spec"]);
        let field = |name: &str| spec.get(name);
        let unknown = spec
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .filter(|name| !["selector", "targetRef", "targetRefs", "action", "rules"].contains(name));
        Self {
            name: metadata["name"].as_str().unwrap_or_default().to_owned(),
            namespace: metadata["namespace"].as_str().unwrap_or("default").to_owned(),
            // Go's strconv.ParseBool, as in Istio.
            dry_run: match metadata["annotations"][DRY_RUN].as_str() {
                Some("1" | "t" | "T" | "true" | "TRUE" | "True") => DryRun::Yes,
                None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => DryRun::No,
                Some(value) => DryRun::Invalid(value),
            },
            action: field("action"),
            rules: field("rules"),
            labels: spec["selector"]["matchLabels"].as_object(),
            has_target: ["targetRef", "targetRefs"].iter().any(|name| !spec[name].is_null()),
            unknown: unknown.collect(),
        }
    }

    /// Returns the namespace and the name.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl DryRun<'_> {
    /// Returns a remark on a value that Istio ignores.
    pub(crate) fn remark(self, place: &str) -> Option<Remark> {
        let Self::Invalid(value) = self else { return None };
        let message = format!("`{DRY_RUN}: {value}` is not a boolean: the policy is enforced, as in Istio");
        Some(Remark::note(place, message))
    }
}
