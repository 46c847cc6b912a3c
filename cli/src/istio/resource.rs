//! Kubernetes resources in files: lists, policies, and resources of other kinds.

use std::collections::BTreeMap;

use super::remark::{Origin, Remark};
use crate::located::{Located, Value};
use crate::suggestion::similar;

pub(crate) const KIND: &str = "AuthorizationPolicy";
const GROUP: &str = "security.istio.io";
const VERSIONS: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];
/// The beginning of the versions of another resource with the same kind.
const OTHER_POLICY_GROUP: &str = "policy.linkerd.io/";
/// The other kinds of the group.
const OTHER_KINDS: [&str; 2] = ["PeerAuthentication", "RequestAuthentication"];

/// The name of documents without a kind in counts.
const WITHOUT_KIND: &str = "without `kind`";

/// The resources of files.
#[derive(Debug, Default)]
pub(crate) struct Resources<'r> {
    /// The policies, each with its file.
    pub(crate) policies: Vec<(&'r Located, Origin)>,
    /// The number of resources of each other kind.
    pub(crate) unrelated: BTreeMap<String, usize>,
    /// The resources that cannot be read.
    pub(crate) lost: Vec<Remark>,
}

impl<'r> Resources<'r> {
    /// Adds a resource, or the resources of a list.
    pub(crate) fn add(&mut self, resource: &'r Located, file: &str) {
        let mut origin = Origin { file: file.to_owned(), place: file.to_owned() };
        if !matches!(resource.value, Value::Object(_)) {
            // A directory can also have other lists, such as patches of Kustomize.
            let is_policy = |item: &Located| item.field("kind").and_then(Located::text) == Some(KIND);
            if matches!(resource.value, Value::List(_)) && !resource.items().iter().any(is_policy) {
                self.add_unrelated(WITHOUT_KIND);
                return;
            }
            let message = format!("expected a Kubernetes resource, found {}", resource.kind());
            self.lost.push(origin.remark(resource.position, "", message).lost());
            return;
        }
        let metadata = |name: &str| resource.field("metadata")?.field(name)?.text();
        if let Some(name) = metadata("name") {
            origin.place = match metadata("namespace") {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            };
        }
        let mut lose = |field: &str, message: String| {
            let position = resource.field(field).unwrap_or(resource).position;
            self.lost.push(origin.remark(position, field, message).lost());
        };
        for field in ["kind", "apiVersion"] {
            if let Some(value) = resource.field(field).filter(|value| value.text().is_none()) {
                lose(field, format!("expected a string, found {}", value.kind()));
                return;
            }
        }
        let text = |field: &str| resource.field(field).and_then(Located::text);
        let (version, kind) = (text("apiVersion"), text("kind"));
        let Some(kind) = kind else {
            // Values of charts and patches have no kind. Only what can be a policy is lost.
            let has_policy_field = |spec: &Located| ["action", "rules"].iter().any(|name| spec.field(name).is_some());
            let is_in_group = version.is_some_and(|version| version.split('/').next() == Some(GROUP));
            let can_be_policy = resource.field("spec").is_some_and(has_policy_field) || has_policy_field(resource);
            if is_in_group || can_be_policy {
                lose("kind", format!("missing field `kind` (expected `{KIND}`)"));
            } else {
                self.add_unrelated(WITHOUT_KIND);
            }
            return;
        };
        if let Some(items) = resource.field("items").filter(|_| kind.ends_with("List")) {
            if !matches!(items.value, Value::List(_)) {
                lose("items", format!("expected a list, found {}", items.kind()));
            }
            items.items().iter().for_each(|item| self.add(item, file));
            return;
        }
        let group = version.and_then(|version| version.split('/').next()).unwrap_or_default();
        let is_other_group = version.is_some_and(|version| version.starts_with(OTHER_POLICY_GROUP));
        let is_misspelt = (group == GROUP && !OTHER_KINDS.contains(&kind)) || is_almost(kind, KIND);
        let [current, old] = VERSIONS;
        match version {
            _ if kind == KIND && is_other_group => self.add_unrelated(&format!("{kind} of {group}")),
            Some(version) if kind == KIND && VERSIONS.contains(&version) => self.policies.push((resource, origin)),
            Some(version) if kind == KIND => {
                let message = format!("unknown `apiVersion: {version}` of a policy (expected `{current}` or `{old}`)");
                lose("apiVersion", message);
            }
            None if kind == KIND => lose("apiVersion", format!("missing field `apiVersion` (expected `{current}`)")),
            _ if is_misspelt && !is_other_group => {
                let hint = similar(kind, [KIND, OTHER_KINDS[0], OTHER_KINDS[1]]).unwrap_or(KIND);
                lose("kind", format!("unknown kind `{kind}` (did you mean `{hint}`?)"));
            }
            _ => self.add_unrelated(kind),
        }
    }

    fn add_unrelated(&mut self, kind: &str) {
        *self.unrelated.entry(kind.to_owned()).or_default() += 1;
    }

    /// Returns the numbers of resources of other kinds, such as `2 other resources: 1 ConfigMap, 1 Service`.
    pub(crate) fn unrelated(&self) -> Option<String> {
        let count: usize = self.unrelated.values().sum();
        let kinds: Vec<String> = self.unrelated.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let noun = if count == 1 { "resource" } else { "resources" };
        (count > 0).then(|| format!("{count} other {noun}: {}", kinds.join(", ")))
    }
}

/// Returns `true` if a word differs from another one in case, or in two characters.
fn is_almost(word: &str, other: &str) -> bool {
    strsim::osa_distance(&word.to_lowercase(), &other.to_lowercase()) <= 2
}
