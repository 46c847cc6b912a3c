//! Reads AuthorizationPolicy resources. Everything that Kubernetes or Istio rejects is an error.

use super::fields::Fields;
use super::remark::Origin;
use crate::located::{Located, Position, Value};

/// The annotation of a policy that is evaluated and not enforced.
const DRY_RUN: &str = "istio.io/dry-run";
/// The kinds that `targetRefs` can contain, with their API groups.
pub(crate) const TARGET_KINDS: [(&str, &[&str]); 4] = [
    ("Gateway", &["gateway.networking.k8s.io"]),
    ("GatewayClass", &["gateway.networking.k8s.io"]),
    ("Service", &["", "core"]),
    ("ServiceEntry", &["networking.istio.io"]),
];

/// The metadata of a policy.
#[derive(Debug)]
pub(crate) struct Metadata<'r> {
    pub(crate) name: &'r str,
    pub(crate) name_position: Position,
    pub(crate) namespace: Option<&'r str>,
    pub(crate) dry_run: DryRun<'r>,
}

/// The specification of a policy. The compiler of documents checks the values of `action` and `rules`.
#[derive(Debug, Default)]
pub(crate) struct Spec<'r> {
    pub(crate) action: Option<&'r Located>,
    pub(crate) rules: Option<&'r Located>,
    pub(crate) selector: Option<Selector<'r>>,
    pub(crate) targets: Vec<Target<'r>>,
}

/// The workloads of a policy.
#[derive(Debug)]
pub(crate) struct Selector<'r> {
    pub(crate) position: Position,
    pub(crate) labels: Vec<(&'r str, &'r str)>,
}

/// A resource that a policy is attached to.
#[derive(Debug)]
pub(crate) struct Target<'r> {
    pub(crate) position: Position,
    pub(crate) kind: &'r str,
    pub(crate) name: &'r str,
}

/// The value of the annotation `istio.io/dry-run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRun<'r> {
    No,
    Yes,
    /// Istio enforces the policy.
    Invalid(&'r str, Position),
}

impl<'r> Metadata<'r> {
    /// Reads the metadata of a resource. Returns `None` if there is an error.
    pub(crate) fn read(resource: &'r Located, fields: &mut Fields<'_>) -> Option<Self> {
        let errors = fields.error_count();
        for field in fields.object(resource, "", &["apiVersion", "kind", "metadata", "spec", "status"]) {
            if ["action", "rules", "selector", "targetRef", "targetRefs", "provider"].contains(&&*field.name) {
                let message = format!("`{}` is a field of `spec`", field.name);
                fields.report(field.position, &field.name, message);
            } else if ["name", "namespace", "annotations"].contains(&&*field.name) {
                let message = format!("`{}` is a field of `metadata`", field.name);
                fields.report(field.position, &field.name, message);
            } else {
                fields.report_unknown(field, "");
            }
        }
        let Some(metadata) = resource.field("metadata") else {
            fields.report(resource.position, "metadata", "missing field `metadata`");
            return None;
        };
        if !fields.is_object(metadata, "metadata") {
            return None;
        }
        let name = fields.text(metadata, "name", "metadata");
        if metadata.field("name").is_none() {
            fields.report(metadata.position, "metadata.name", "missing field `name`");
        }
        let namespace = fields.text(metadata, "namespace", "metadata");
        for map in ["labels", "annotations"] {
            if let Some(values) = metadata.field(map) {
                fields.texts(values, &format!("metadata.{map}"));
            }
        }
        let dry_run = metadata.field("annotations").and_then(|annotations| annotations.field(DRY_RUN));
        let dry_run = match dry_run.and_then(|value| Some((value.text()?, value.position))) {
            // Go's strconv.ParseBool, as in Istio.
            Some(("1" | "t" | "T" | "true" | "TRUE" | "True", _)) => DryRun::Yes,
            None | Some(("0" | "f" | "F" | "false" | "FALSE" | "False", _)) => DryRun::No,
            Some((value, position)) => DryRun::Invalid(value, position),
        };
        fields.report_templates(metadata.field("name"), "metadata.name");
        fields.report_templates(metadata.field("namespace"), "metadata.namespace");
        let (name, name_position) = name?;
        (fields.error_count() == errors).then_some(Self {
            name,
            name_position,
            namespace: namespace.map(|(text, _)| text),
            dry_run,
        })
    }
}

impl<'r> Spec<'r> {
    /// Reads the specification of a resource. Returns `None` if there is an error.
    pub(crate) fn read(resource: &'r Located, fields: &mut Fields<'_>) -> Option<Self> {
        let Some(spec) = resource.field("spec") else { return Some(Self::default()) };
        if !fields.is_object(spec, "spec") {
            return None;
        }
        let errors = fields.error_count();
        let allowed = ["selector", "targetRef", "targetRefs", "action", "rules", "provider"];
        for unknown in fields.object(spec, "spec", &allowed) {
            fields.report_unknown_of(unknown, "spec", &allowed);
        }
        fields.report_templates(Some(spec), "spec");
        let selector = spec.field("selector").and_then(|selector| read_selector(selector, fields));
        let mut targets = Vec::new();
        if let Some(target) = spec.field("targetRef") {
            targets.extend(read_target(target, "spec.targetRef", fields));
        }
        if let Some(list) = spec.field("targetRefs") {
            if !matches!(list.value, Value::List(_)) {
                fields.report_type(list, "spec.targetRefs", "a list");
            }
            for (position, target) in list.items().iter().enumerate() {
                targets.extend(read_target(target, &format!("spec.targetRefs[{position}]"), fields));
            }
        }
        if let Some(first) = targets.first().filter(|_| selector.is_some()) {
            fields.report(first.position, "spec.targetRefs", "`selector` and `targetRefs` cannot be combined");
        }
        let action = spec.field("action");
        if let Some(provider) = spec.field("provider").filter(|_| !is_custom(action)) {
            let message = "`provider` is only allowed with `action: CUSTOM`";
            fields.report(provider.position, "spec.provider", message);
        }
        (fields.error_count() == errors).then_some(Self { action, rules: spec.field("rules"), selector, targets })
    }
}

/// Returns `true` if the action calls an external authorization service.
pub(crate) fn is_custom(action: Option<&Located>) -> bool {
    action.and_then(Located::text) == Some("CUSTOM")
}

fn read_selector<'r>(selector: &'r Located, fields: &mut Fields<'_>) -> Option<Selector<'r>> {
    if !fields.is_object(selector, "spec.selector") {
        return None;
    }
    for unknown in fields.object(selector, "spec.selector", &["matchLabels"]) {
        fields.report_unknown_of(unknown, "spec.selector", &["matchLabels"]);
    }
    let at = "spec.selector.matchLabels";
    let labels = selector.field("matchLabels").map(|labels| fields.texts(labels, at)).unwrap_or_default();
    for &(name, value, position) in &labels {
        if name.contains('*') || value.contains('*') {
            let message = format!("`{name}: {value}`: a selector has no wildcards (Istio rejects this policy)");
            fields.report(position, &format!("{at}.{name}"), message);
        }
    }
    let labels = labels.into_iter().map(|(name, value, _)| (name, value)).collect();
    Some(Selector { position: selector.position, labels })
}

fn read_target<'r>(target: &'r Located, at: &str, fields: &mut Fields<'_>) -> Option<Target<'r>> {
    if !fields.is_object(target, at) {
        return None;
    }
    let allowed = ["group", "kind", "name", "namespace"];
    for unknown in fields.object(target, at, &allowed) {
        fields.report_unknown_of(unknown, at, &allowed);
    }
    let mut required = |name: &str| {
        if target.field(name).is_none() {
            fields.report(target.position, &format!("{at}.{name}"), format!("missing field `{name}`"));
        }
        fields.text(target, name, at)
    };
    let (kind, name) = (required("kind"), required("name"));
    let group = fields.text(target, "group", at).map_or("", |(group, _)| group);
    fields.text(target, "namespace", at);
    let ((kind, position), (name, _)) = (kind?, name?);
    match TARGET_KINDS.iter().find(|(known, _)| *known == kind) {
        Some((_, groups)) if groups.contains(&group) => {}
        Some((_, groups)) => {
            let expected = groups.iter().find(|group| !group.is_empty()).unwrap_or(&"");
            let message = format!("unknown group `{group}` of a {kind} (expected `{expected}`)");
            fields.report(position, &format!("{at}.group"), message);
        }
        None => {
            let known = TARGET_KINDS.map(|(kind, _)| kind);
            let message = format!("unknown kind `{kind}` ({})", crate::suggestion::hint(kind, &known));
            fields.report(position, &format!("{at}.kind"), message);
        }
    }
    Some(Target { position, kind, name })
}

impl DryRun<'_> {
    /// Returns a remark on a value that Istio ignores.
    pub(crate) fn remark(self, origin: &Origin) -> Option<super::remark::Remark> {
        let Self::Invalid(value, position) = self else { return None };
        let message = format!("`{DRY_RUN}: {value}` is not a boolean: the policy is enforced, as in Istio");
        Some(origin.remark(position, "metadata.annotations", message))
    }
}
