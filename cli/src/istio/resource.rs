//! Kubernetes resources in files: lists, policies, and resources of other kinds.

use std::collections::BTreeMap;

use spiffe_authz::diagnostic::Code;

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
    /// The resources that can be policies, and cannot be read.
    pub(crate) lost: Vec<Remark>,
}

/// The fields that a typed list, such as an AuthorizationPolicyList, implies for its items.
#[derive(Debug, Clone, Copy)]
struct Implied<'r> {
    kind: Option<&'r str>,
    version: Option<&'r str>,
}

impl<'r> Resources<'r> {
    /// Adds a resource, or the resources of a list.
    pub(crate) fn add(&mut self, resource: &'r Located, file: &str) {
        self.add_item(resource, file, None);
    }

    /// Adds a resource, which can be an item of a list.
    fn add_item(&mut self, resource: &'r Located, file: &str, list: Option<Implied<'r>>) {
        let origin = origin_of(resource, file);
        if !matches!(resource.value, Value::Object(_)) {
            // A directory can also have other lists, such as patches of Kustomize.
            if matches!(resource.value, Value::List(_)) && !resource.items().iter().any(is_policy) {
                self.add_unrelated(WITHOUT_KIND);
                return;
            }
            let message = format!("expected a Kubernetes resource, found {}", resource.kind());
            self.lose(resource, &origin, "", Code::WrongType, message);
            return;
        }
        // Programs differ in which of them they take.
        let is_repeated = |name: &&str| resource.fields().iter().filter(|field| field.name == **name).count() > 1;
        if let Some(field) = ["kind", "apiVersion", "items"].into_iter().find(is_repeated) {
            self.lose(resource, &origin, field, Code::DuplicateField, format!("duplicate field `{field}`"));
            return;
        }
        for field in ["kind", "apiVersion"] {
            if let Some(value) = resource.field(field).filter(|value| value.text().is_none()) {
                let message = format!("expected a string, found {}", value.kind());
                self.lose(resource, &origin, field, Code::WrongType, message);
                return;
            }
        }
        let text = |field: &str| resource.field(field).and_then(Located::text);
        let version = text("apiVersion").or(list.and_then(|list| list.version));
        match text("kind").or(list.and_then(|list| list.kind)) {
            None => self.add_without_kind(resource, &origin, version, list.is_some()),
            Some(kind) if kind.ends_with("List") => self.add_list(resource, &origin, kind, version),
            Some(kind) => self.add_resource(resource, origin, kind, version),
        }
    }

    fn add_without_kind(&mut self, resource: &Located, origin: &Origin, version: Option<&str>, is_item: bool) {
        // Values of charts and patches have no kind. Only what can be a policy is lost.
        let has_policy_field = |spec: &Located| ["action", "rules"].iter().any(|name| spec.field(name).is_some());
        let is_in_group = version.is_some_and(|version| version.split('/').next() == Some(GROUP));
        let can_be_policy = resource.field("spec").is_some_and(has_policy_field) || has_policy_field(resource);
        if has_policies(resource) {
            let message = "missing field `kind` (expected `List`)".to_owned();
            self.lose(resource, origin, "kind", Code::MissingField, message);
        } else if is_item || is_in_group || can_be_policy {
            let message = format!("missing field `kind` (expected `{KIND}`)");
            self.lose(resource, origin, "kind", Code::MissingField, message);
        } else {
            self.add_unrelated(WITHOUT_KIND);
        }
    }

    fn add_list(&mut self, list: &'r Located, origin: &Origin, kind: &'r str, version: Option<&'r str>) {
        let of = kind.strip_suffix("List").filter(|of| !of.is_empty());
        let implied = Implied { kind: of, version: of.and(version) };
        match list.field("items") {
            Some(items) if matches!(items.value, Value::List(_)) => {
                items.items().iter().for_each(|item| self.add_item(item, &origin.file, Some(implied)));
            }
            Some(items) => {
                let message = format!("expected a list, found {}", items.kind());
                self.lose(list, origin, "items", Code::WrongType, message);
            }
            // An empty list of Kubernetes can be null.
            None if list.fields().iter().any(|field| field.name == "items") => {}
            None if of.is_none_or(|of| of == KIND) => {
                self.lose(list, origin, "items", Code::MissingField, "missing field `items`".to_owned());
            }
            None => self.add_unrelated(kind),
        }
    }

    fn add_resource(&mut self, resource: &'r Located, origin: Origin, kind: &str, version: Option<&str>) {
        let group = version.and_then(|version| version.split('/').next()).unwrap_or_default();
        let is_other_group = version.is_some_and(|version| version.starts_with(OTHER_POLICY_GROUP));
        let is_misspelt = (group == GROUP && !OTHER_KINDS.contains(&kind)) || is_almost(kind, KIND);
        let [current, old] = VERSIONS;
        let (field, code, message) = match version {
            _ if kind == KIND && is_other_group => return self.add_unrelated(&format!("{kind} of {group}")),
            Some(version) if kind == KIND && VERSIONS.contains(&version) => {
                self.policies.push((resource, origin));
                return;
            }
            Some(version) if kind == KIND => {
                let message = format!("unknown `apiVersion: {version}` of a policy (expected `{current}` or `{old}`)");
                ("apiVersion", Code::InvalidValue, message)
            }
            None if kind == KIND => {
                ("apiVersion", Code::MissingField, format!("missing field `apiVersion` (expected `{current}`)"))
            }
            _ if is_misspelt && !is_other_group => {
                let hint = similar(kind, [KIND, OTHER_KINDS[0], OTHER_KINDS[1]]).unwrap_or(KIND);
                ("kind", Code::InvalidValue, format!("unknown kind `{kind}` (did you mean `{hint}`?)"))
            }
            _ if has_policies(resource) => {
                ("kind", Code::InvalidValue, format!("unknown kind `{kind}` of a list (expected `List`)"))
            }
            _ => return self.add_unrelated(kind),
        };
        self.lose(resource, &origin, field, code, message);
    }

    /// Adds the remark that a resource cannot be read.
    fn lose(&mut self, resource: &Located, origin: &Origin, field: &str, code: Code, message: String) {
        let position = resource.field(field).unwrap_or(resource).position;
        self.lost.push(origin.remark(position, field, message).lost(code));
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

fn origin_of(resource: &Located, file: &str) -> Origin {
    let metadata = |name: &str| resource.field("metadata")?.field(name)?.text();
    let place = match (metadata("namespace"), metadata("name")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        (_, None) => file.to_owned(),
    };
    Origin { file: file.to_owned(), place }
}

/// Returns `true` for the kind of a policy or of a list of policies, also with a small mistake.
pub(crate) fn can_be_policy(kind: &str) -> bool {
    is_almost(kind.strip_suffix("List").unwrap_or(kind), KIND)
}

/// Returns `true` for a resource with the kind of a policy.
fn is_policy(resource: &Located) -> bool {
    resource.field("kind").and_then(Located::text).is_some_and(|kind| is_almost(kind, KIND))
}

/// Returns `true` for a resource with a list of policies.
fn has_policies(resource: &Located) -> bool {
    resource.field("items").is_some_and(|items| items.items().iter().any(is_policy))
}

/// Returns `true` if a word differs from another one in case, or in two characters.
fn is_almost(word: &str, other: &str) -> bool {
    strsim::osa_distance(&word.to_lowercase(), &other.to_lowercase()) <= 2
}
