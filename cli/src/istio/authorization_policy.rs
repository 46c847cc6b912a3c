//! Reads AuthorizationPolicy resources.
//!
//! An unknown, repeated or mistyped field is an error: without it, the policy could apply to other workloads or requests.

use spiffe_authz::diagnostic::Code;

use super::fields::Fields;
use super::remark::{Origin, Remark};
use super::target::{Home, Target};
use crate::located::{Located, Position};

/// The annotation of a policy that is evaluated and not enforced.
const DRY_RUN: &str = "istio.io/dry-run";
/// The label of a resource that one revision of the control plane reads.
const REVISION: &str = "istio.io/rev";
/// The fields of Kubernetes' ObjectMeta.
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

/// The metadata of a policy.
#[derive(Debug)]
pub(crate) struct Metadata<'r> {
    pub(crate) name: &'r str,
    pub(crate) name_position: Position,
    pub(crate) namespace: Option<&'r str>,
    pub(crate) dry_run: DryRun<'r>,
    /// The revision of the control plane that enforces the policy, if it is not every one.
    revision: Option<&'r Located>,
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
                fields.report(Code::UnknownField, field.position, &field.name, message);
            } else if ["name", "namespace", "annotations"].contains(&&*field.name) {
                let message = format!("`{}` is a field of `metadata`", field.name);
                fields.report(Code::UnknownField, field.position, &field.name, message);
            } else {
                fields.report_unknown(field, "");
            }
        }
        let Some(metadata) = resource.field("metadata") else {
            fields.report(Code::MissingField, resource.position, "metadata", "missing field `metadata`");
            return None;
        };
        if !fields.is_object(metadata, "metadata") {
            return None;
        }
        for unknown in fields.object(metadata, "metadata", &METADATA) {
            fields.report_unknown_of(unknown, "metadata", &METADATA);
        }
        let name = fields.text(metadata, "name", "metadata");
        if metadata.field("name").is_none() {
            fields.report(Code::MissingField, metadata.position, "metadata.name", "missing field `name`");
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
            revision: metadata.field("labels").and_then(|labels| labels.field(REVISION)),
        })
    }

    /// Returns the remarks on differences from Istio.
    pub(crate) fn remarks(&self, origin: &Origin) -> impl Iterator<Item = Remark> {
        let revision = self.revision.map(|revision| {
            let message = format!(
                "`{REVISION}: {}`: in Istio, the policy is enforced only by the control plane of this revision (remove the \
                 policy from the input if the workload has another one)",
                revision.text().unwrap_or_default()
            );
            origin.remark(revision.position, "metadata.labels", message)
        });
        self.dry_run.remark(origin).into_iter().chain(revision)
    }
}

impl<'r> Spec<'r> {
    /// Reads the specification of a policy in this namespace. Returns `None` if there is an error.
    pub(crate) fn read(resource: &'r Located, home: Home<'_>, fields: &mut Fields<'_>) -> Option<Self> {
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
        let targets = Target::read_all(spec, home, fields);
        let action = spec.field("action");
        if let Some(provider) = spec.field("provider").filter(|_| !is_custom(action)) {
            let message = "`provider` is only allowed with `action: CUSTOM`";
            fields.report(Code::ConflictingFields, provider.position, "spec.provider", message);
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
            fields.report(Code::InvalidValue, position, &format!("{at}.{name}"), message);
        }
    }
    let labels = labels.into_iter().map(|(name, value, _)| (name, value)).collect();
    Some(Selector { position: selector.position, labels })
}

impl DryRun<'_> {
    /// Returns a remark on a value that Istio ignores.
    fn remark(self, origin: &Origin) -> Option<Remark> {
        let Self::Invalid(value, position) = self else { return None };
        let message = format!("`{DRY_RUN}: {value}` is not a boolean: the policy is enforced, as in Istio");
        Some(origin.remark(position, "metadata.annotations", message))
    }
}
