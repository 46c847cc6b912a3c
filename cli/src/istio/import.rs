//! Imports AuthorizationPolicies into a document.

use std::collections::{BTreeSet, HashMap};

use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::policy::{PolicySet, Proxy};

use super::authorization_policy::{DryRun, Metadata, Selector, Spec, is_custom};
use super::fields::Fields;
use super::remark::{Origin, Remark};
use super::resource::Resources;
use super::rules::{RuleImport, names_caller};
use super::scope::{Applies, Scope, Span};
use super::target::{Home, Kind, Target};
use super::trust_domain_bundle::TrustDomainBundle;
use crate::located::positions::Positions;
use crate::located::written::{NOWHERE, field};
use crate::located::{Field, Located, Value, place};
use crate::suggestion;

/// The number of names that a remark lists.
const SHOWN: usize = 5;

/// Collects policies and remarks.
pub(crate) struct Importer<'a> {
    bundle: TrustDomainBundle,
    root_namespace: &'a str,
    scope: Scope,
    policies: Vec<Imported<'a>>,
    /// The name and the place of each of them.
    names: HashMap<String, String>,
    span: Span,
    not_applicable: Vec<String>,
    remarks: Vec<Remark>,
    read: usize,
    lost: usize,
}

/// A policy of the document.
pub(crate) struct Imported<'a> {
    pub(crate) origin: Origin,
    /// The resource.
    pub(crate) resource: &'a Located,
    policy: Located,
}

/// The result of an import.
pub(crate) struct Import<'a> {
    /// The document with the policies that can be imported.
    pub(crate) document: Located,
    /// The policies of the document, in its order.
    pub(crate) policies: Vec<Imported<'a>>,
    pub(crate) remarks: Vec<Remark>,
    /// The number of policies in the input.
    pub(crate) read: usize,
    /// The number of policies, and of resources that could be policies, that cannot be imported.
    pub(crate) lost: usize,
    /// A description of the policies that do not apply to the workload, if there are any.
    pub(crate) not_applicable: Option<String>,
    /// The reason if no workload can have all policies.
    pub(crate) conflict: Option<String>,
}

impl<'a> Importer<'a> {
    pub(crate) fn new(bundle: TrustDomainBundle, root_namespace: &'a str, scope: Scope) -> Self {
        Self {
            bundle,
            root_namespace,
            scope,
            policies: Vec::new(),
            names: HashMap::new(),
            span: Span::default(),
            not_applicable: Vec::new(),
            remarks: Vec::new(),
            read: 0,
            lost: 0,
        }
    }

    /// Imports the policies of files.
    pub(crate) fn add(&mut self, resources: Resources<'a>) {
        self.remarks.extend(resources.unrelated().map(|counts| Remark::on_import(format!("skipped {counts}"))));
        self.lost += resources.lost.len();
        self.read += resources.lost.len();
        self.remarks.extend(resources.lost);
        for (policy, origin) in resources.policies {
            self.read += 1;
            if let Err(errors) = self.add_policy(policy, origin) {
                self.lost += 1;
                self.remarks.extend(errors);
            }
        }
    }

    /// Imports a policy if it applies to the workload.
    fn add_policy(&mut self, resource: &'a Located, mut origin: Origin) -> Result<(), Vec<Remark>> {
        let (metadata, errors) = read(&origin, |fields| Metadata::read(resource, fields));
        let Some(metadata) = metadata else { return Err(errors) };
        let namespace = match (metadata.namespace, &self.scope) {
            (Some(namespace), _) => namespace.to_owned(),
            (None, Scope::Workload(workload)) => {
                let namespace = workload.namespace.clone();
                origin.place = format!("{namespace}/{}", metadata.name);
                let message = format!("the policy has no namespace, and gets `{namespace}` from `--namespace`");
                self.remarks.push(origin.remark(metadata.name_position, "metadata.namespace", message));
                namespace
            }
            (None, _) => {
                let message = "the policy has no namespace (add it, or use `--namespace`)";
                return Err(vec![
                    origin.remark(metadata.name_position, "metadata.namespace", message).lost(Code::MissingField),
                ]);
            }
        };
        if let Scope::Workload(workload) = &self.scope
            && !workload.is_in(&namespace, self.root_namespace)
        {
            self.not_applicable.push(origin.place);
            return Ok(());
        }
        let home = Home { namespace: &namespace, root_namespace: self.root_namespace };
        let (spec, errors) = read(&origin, |fields| Spec::read(resource, home, fields));
        let Some(spec) = spec else { return Err(errors) };
        if !self.applies(&spec, &namespace, &origin)? {
            self.not_applicable.push(origin.place);
            return Ok(());
        }
        if is_custom(spec.action) {
            let position = spec.action.map_or(resource.position, |action| action.position);
            let message = "`action: CUSTOM` is not supported: it calls an external authorization service";
            return Err(vec![origin.remark(position, "spec.action", message).lost(Code::Unsupported)]);
        }
        let name = format!("{namespace}/{}", metadata.name);
        let at = place(&origin.file, Some(metadata.name_position));
        if let Some(first) = self.names.get(&name) {
            let message = format!("duplicate policy `{name}` (remove one of the two; the first one is at {first})");
            return Err(vec![
                origin.remark(metadata.name_position, "metadata.name", message).lost(Code::DuplicatePolicy),
            ]);
        }
        self.names.insert(name, at);
        self.span.add(&namespace, self.root_namespace, &spec);
        self.remark_selector(&spec, &origin);
        self.remarks.extend(metadata.remarks(&origin));
        let policy = self.convert(resource, &metadata, namespace, &spec, &origin);
        self.policies.push(Imported { origin, resource, policy });
        Ok(())
    }

    /// Returns `true` if a policy applies to the workload.
    fn applies(&mut self, spec: &Spec<'_>, namespace: &str, origin: &Origin) -> Result<bool, Vec<Remark>> {
        let applies = match &self.scope {
            Scope::Workload(workload) => workload.applies(spec, namespace),
            Scope::All if spec.targets.iter().any(|target| target.kind.is_service()) => Applies::ToService,
            Scope::All => Applies::Yes,
            Scope::Unspecified if spec.targets.is_empty() => Applies::Yes,
            Scope::Unspecified => Applies::Unknown,
        };
        let remark = |target: &Target<'_>, message: String| origin.remark(target.position, "spec.targetRefs", message);
        let services = spec.targets.iter().filter(|target| target.kind.is_service());
        let elsewhere =
            |target| remark(target, format!("`{target}` is not a resource of the proxy, and is not carried over"));
        let unknown = |target: &Target<'_>| {
            let options = match target.kind {
                Kind::GatewayClass => format!("`--namespace` of the waypoint, and `--target-ref {target}`"),
                _ => format!("`--namespace {namespace} --target-ref {target}`"),
            };
            let message =
                format!("the policy is attached to a resource (use {options} to import the policies of its proxy)");
            remark(target, message).lost(Code::Unsupported)
        };
        let to_service = |target| {
            let message = format!(
                "the policy is enforced for requests to `{target}`, and is not carried over to a document for other requests \
                 (use `--target-ref {target}` without other services, or remove the policy from the input if the proxy is \
                 not a waypoint)"
            );
            remark(target, message).lost(Code::Unsupported)
        };
        match applies {
            Applies::Yes => Ok(true),
            Applies::No => {
                self.remarks.extend(services.map(elsewhere));
                Ok(false)
            }
            Applies::Unknown => Err(spec.targets.iter().map(unknown).collect()),
            Applies::ToService => Err(services.map(to_service).collect()),
        }
    }

    fn remark_selector(&mut self, spec: &Spec<'_>, origin: &Origin) {
        let Some(selector) = &spec.selector else { return };
        let message = if selector.labels.is_empty() {
            "the selector has no labels, and applies to the whole namespace"
        } else if !matches!(self.scope, Scope::Unspecified) {
            return;
        } else {
            "the selector is not imported (use `--namespace` and `--label` to import the policies of one workload)"
        };
        self.remarks.push(origin.remark(selector.position, "spec.selector", message));
    }

    fn convert(
        &mut self,
        resource: &Located,
        metadata: &Metadata<'_>,
        namespace: String,
        spec: &Spec<'_>,
        origin: &Origin,
    ) -> Located {
        let at = metadata.name_position;
        let mut fields =
            vec![field("name", Located::string(at, metadata.name)), field("namespace", Located::string(at, namespace))];
        if matches!(self.scope, Scope::All) {
            fields.extend(attachment(spec));
        }
        fields.extend(spec.action.map(|action| field("action", action.clone())));
        if metadata.dry_run == DryRun::Yes {
            fields.push(field("mode", Located::string(at, "shadow")));
        }
        if let Some(rules) = spec.rules {
            let allows = spec.action.is_none_or(|action| action.text() == Some("ALLOW"));
            let Self { bundle, remarks, .. } = self;
            fields.push(field("rules", RuleImport { origin, allows, bundle, remarks }.rules(rules)));
        }
        Located::new(resource.position, Value::Object(fields))
    }

    /// Returns the document that starts with these fields, without the policies that do not compile. With `requires_peer`,
    /// callers without a certificate are denied.
    ///
    /// # Errors
    /// Returns the errors in the fields.
    pub(crate) fn finish(mut self, head: &[Field], requires_peer: bool) -> Result<Import<'a>, Vec<Diagnostic>> {
        let document = loop {
            let list = Value::List(self.policies.iter().map(|imported| imported.policy.clone()).collect());
            let mut fields = head.to_vec();
            if matches!(self.scope, Scope::All) {
                let root_namespace = option("rootNamespace", Value::String(self.root_namespace.to_owned()));
                fields.push(option("scope", Value::Object(vec![root_namespace])));
            }
            fields.push(field("policies", Located::new(NOWHERE, list)));
            let document = Located::new(NOWHERE, Value::Object(fields));
            let Err(errors) = PolicySet::from_node(&document.to_node(), Proxy::Every) else { break document };
            if !self.remove_invalid(&document, &errors) {
                return Err(errors);
            }
        };
        let not_applicable = self.not_applicable();
        self.remarks.extend(not_applicable.clone().map(Remark::on_import));
        let policies = || self.policies.iter().map(|imported| &imported.policy);
        let rules = || policies().filter_map(|policy| policy.field("rules")).flat_map(Located::items);
        if requires_peer && rules().next().is_some() && !rules().any(names_caller) {
            let message = "no rule names a workload, and callers without a certificate are denied by `identity.peer: \
                           required` (use `--peer optional` if the clients have no certificate)";
            self.remarks.push(Remark::on_import(message));
        }
        let conflict = if matches!(self.scope, Scope::Unspecified) { self.span.conflict() } else { None };
        let Self { policies, remarks, read, lost, .. } = self;
        Ok(Import { document, policies, remarks, read, lost, not_applicable, conflict })
    }

    /// Describes the policies that do not apply to the workload.
    fn not_applicable(&self) -> Option<String> {
        let count = self.not_applicable.len();
        let shown: Vec<&str> = self.not_applicable.iter().take(SHOWN).map(String::as_str).collect();
        let more = if count > SHOWN { ", …" } else { "" };
        let subject = if count == 1 { "policy does" } else { "policies do" };
        (count > 0).then(|| format!("{count} {subject} not apply to the workload: {}{more}", shown.join(", ")))
    }

    /// Removes the policies with errors, and adds remarks on them. Returns `false` if no error is in a policy.
    fn remove_invalid(&mut self, document: &Located, errors: &[Diagnostic]) -> bool {
        let mut invalid = BTreeSet::new();
        let positions = Positions::of(document);
        for error in errors {
            let in_policy = || {
                let rest = error.pointer.strip_prefix("/policies/")?;
                let (position, field) = rest.split_once('/').unwrap_or((rest, ""));
                let position = position.parse::<usize>().ok()?;
                let Imported { origin, .. } = self.policies.get(position)?;
                Some((position, origin, path_of(field)))
            };
            let Some((position, origin, path)) = in_policy() else { continue };
            let place = positions.at(&error.pointer, suggestion::is_about_name(error));
            let next = suggestion::of_diagnostic(error);
            let message = format!("{}: {} ({next})", error.code.slug(), error.message);
            self.remarks.push(origin.remark(place, &path, message).lost(error.code));
            invalid.insert(position);
        }
        self.lost += invalid.len();
        let mut position = 0..;
        self.policies.retain(|_| position.next().is_none_or(|position| !invalid.contains(&position)));
        !invalid.is_empty()
    }
}

/// Reads a part of a resource. Returns it without errors, or the errors.
fn read<T>(origin: &Origin, part: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> (Option<T>, Vec<Remark>) {
    let mut fields = Fields { origin, errors: Vec::new() };
    let part = part(&mut fields);
    (part.filter(|_| fields.errors.is_empty()), fields.errors)
}

/// Returns the fields of the document for the workloads of a policy.
fn attachment(spec: &Spec<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    if let Some(Selector { position, labels }) = spec.selector.as_ref().filter(|selector| !selector.labels.is_empty()) {
        let labels = labels.iter().map(|(name, value)| field(name, Located::string(*position, *value))).collect();
        let labels = field("matchLabels", Located::new(*position, Value::Object(labels)));
        fields.push(field("selector", Located::new(*position, Value::Object(vec![labels]))));
    }
    let target = |Target { position, kind, name }: &Target<'_>| {
        let text = |name, value: &str| field(name, Located::string(*position, value));
        let group = kind.groups().first().copied().unwrap_or_default();
        Located::new(
            *position,
            Value::Object(vec![text("group", group), text("kind", kind.name()), text("name", name)]),
        )
    };
    if let Some(first) = spec.targets.first() {
        let targets = spec.targets.iter().map(target).collect();
        fields.push(field("targetRefs", Located::new(first.position, Value::List(targets))));
    }
    fields
}

/// Returns a field whose value comes from an option.
pub(crate) fn option(name: &str, value: Value) -> Field {
    field(name, Located::new(NOWHERE, value))
}

/// Returns a list of strings that come from options.
pub(crate) fn texts(values: &[String]) -> Value {
    Value::List(values.iter().map(|value| Located::string(NOWHERE, value)).collect())
}

/// Returns the field of a resource for a JSON pointer in the policy, without its first slash, such as
/// `spec.rules[0].from`.
pub(crate) fn path_of(pointer: &str) -> String {
    let mut path = if ["name", "namespace"].contains(&pointer) { "metadata" } else { "spec" }.to_owned();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push('.');
            path.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}
