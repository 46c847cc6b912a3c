//! The workloads of the input, each with the answer of the analysis.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::policy::analysis::{self, Permission, Permissions, Question};
use spiffe_authz::policy::{Layer, Node, PolicySet, Proxy};
use spiffe_authz::timestamp::Timestamp;

use super::groups::Groups;
use super::services::{Service, take_services};
use crate::document::{self, Document, rejected};
use crate::exit::Failure;
use crate::istio::scope::Scope;
use crate::located::{Field, Located, place};
use crate::mesh::{Mesh, MeshSettings};
use crate::placed::Placed;
use crate::source::Source;

/// A workload, or all workloads with the same policies.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    /// The document, with its position if the file has several, or `None` for AuthorizationPolicies.
    pub(super) file: Option<String>,
    /// The namespace, or `None` for every namespace without policies of its own.
    pub(super) namespace: Option<String>,
    /// The labels that selectors require.
    pub(super) labels: BTreeMap<String, String>,
    /// The Gateway of the Gateway API that the proxy implements.
    pub(super) gateway: Option<String>,
    /// The service to which a waypoint forwards the requests.
    pub(super) service: Option<String>,
    /// The kind of the proxy.
    pub(super) proxy: ProxyKind,
    /// Whether the document is for one workload, which it does not name.
    pub(super) is_document: bool,
}

/// A kind of proxy, on which depends which policies apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyKind {
    /// A sidecar, or a gateway that no policy names.
    Workload,
    /// The gateway of a Gateway.
    Gateway,
    /// A waypoint.
    Waypoint,
    /// A gateway or a waypoint, which have the same policies.
    GatewayOrWaypoint,
    /// The workloads that several selectors choose. There are too many combinations.
    Combinations,
}

impl ProxyKind {
    /// The name in output.
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Gateway => "gateway",
            Self::Waypoint => "waypoint",
            Self::GatewayOrWaypoint => "gateway or waypoint",
            Self::Combinations => "combinations",
        }
    }
}

impl Workload {
    /// Returns the name.
    pub(super) fn name(&self) -> String {
        let Self { file, namespace, labels, gateway, service, proxy, is_document } = self;
        let file_name = file.as_deref().unwrap_or_default();
        if *is_document {
            return file_name.to_owned();
        }
        let mut parts: Vec<String> = Vec::new();
        if let Some(service) = service {
            parts.push(format!("requests to {service}"));
        }
        if let Some(gateway) = gateway {
            parts.push(format!("Gateway/{gateway} ({})", proxy.slug()));
        }
        parts.extend(labels.iter().map(|(name, value)| format!("{name}={value}")));
        let workloads = match (proxy, parts.is_empty()) {
            (ProxyKind::Combinations, _) => "workloads that several selectors choose".to_owned(),
            (ProxyKind::Waypoint, true) => "other waypoints".to_owned(),
            (_, true) => "other workloads".to_owned(),
            (ProxyKind::Waypoint, false) if gateway.is_none() => format!("{} (waypoint)", parts.join(", ")),
            (_, false) => parts.join(", "),
        };
        let others =
            if *proxy == ProxyKind::Waypoint && parts.is_empty() { "every namespace" } else { "other namespaces" };
        let namespace = namespace.as_deref().unwrap_or(others);
        let separator = if file_name.is_empty() { "" } else { ": " };
        format!("{file_name}{separator}{namespace}: {workloads}")
    }
}

/// The permissions at a workload.
#[derive(Debug)]
pub(super) enum Outcome {
    Decided {
        permissions: Permissions,
        /// Whether no policy applies.
        is_without_policy: bool,
    },
    /// The reason why the permissions are not known.
    NotDecided(String),
}

/// A workload with its permissions.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) workload: Workload,
    /// Workloads with the same policies share it.
    pub(super) outcome: Rc<Outcome>,
}

impl Entry {
    /// Returns the permissions, or `None` if they are not decided.
    pub(super) fn permissions(&self) -> Option<&[Permission]> {
        match &*self.outcome {
            Outcome::Decided { permissions, .. } => Some(&permissions.permissions),
            Outcome::NotDecided(_) => None,
        }
    }

    /// Returns the limits of the answer.
    pub(super) fn limits(&self) -> &[String] {
        match &*self.outcome {
            Outcome::Decided { permissions, .. } => &permissions.limits,
            Outcome::NotDecided(_) => &[],
        }
    }

    /// Returns `true` if the permissions are decided without limits.
    pub(super) fn is_complete(&self) -> bool {
        self.permissions().is_some() && self.limits().is_empty()
    }

    /// Returns notes on the answer: its limits, why it has no permission, or why it is not decided.
    pub(super) fn notes(&self) -> Vec<String> {
        let limits = self.limits().iter().map(|limit| format!("not every value is considered: {limit}"));
        let own = match &*self.outcome {
            Outcome::NotDecided(reason) => Some(format!("not decided: {reason}")),
            Outcome::Decided { is_without_policy: true, .. } => Some("no policy applies".to_owned()),
            Outcome::Decided { permissions, .. } if permissions.permissions.is_empty() => Some("no caller".to_owned()),
            Outcome::Decided { .. } => None,
        };
        own.into_iter().chain(limits).collect()
    }
}

/// Returns the workloads of documents and AuthorizationPolicies, each with its permissions at a moment.
///
/// # Errors
/// Returns an error if a file cannot be read, or if a policy would be lost.
pub(super) fn entries(
    paths: &[PathBuf],
    settings: MeshSettings,
    layer: Layer,
    now: Timestamp,
) -> io::Result<Vec<Entry>> {
    let analysis = Analysis { layer, now };
    let mut entries = Vec::new();
    let mut with_policies = Vec::new();
    for path in paths {
        let sources = document::read(path)?;
        let is_named = !path.is_dir();
        let mut is_empty = true;
        for (file, source) in &sources {
            let documents = source.documents(is_named);
            for document in &documents {
                let position = (documents.len() > 1).then_some(document.position);
                entries.extend(analysis.document(document, file, place(file.display(), position))?);
            }
            is_empty &= documents.is_empty() && !source.has_policies();
        }
        if is_empty {
            return Err(document::missing(path, &sources));
        }
        with_policies.extend(sources.into_iter().map(|(_, source)| source).filter(Source::has_policies));
    }
    if !with_policies.is_empty() {
        let mut resources = Source::resources(with_policies.iter());
        let services = take_services(&mut resources, &settings)?;
        entries.extend(services.into_iter().map(|service| analysis.service(service)));
        let mesh = Mesh { settings, workload: None };
        let import = mesh.import(resources, Scope::All, Vec::new(), true)?;
        if import.lost > 0 {
            return Err(io::Error::other(Failure::of_policies("the input", &import.remarks)));
        }
        entries.extend(analysis.scoped(&import.document.to_node(), None)?);
    }
    Ok(entries)
}

/// The question about each workload.
struct Analysis {
    layer: Layer,
    now: Timestamp,
}

impl Analysis {
    /// Returns the workloads of a document.
    fn document(&self, located: &Located, file: &Path, name: String) -> io::Result<Vec<Entry>> {
        let compile = |proxy| Document::compile(located, proxy).map_err(|errors| rejected(file, &errors));
        let named = located.field("scope").map(|scope| scope.field("workload"));
        let mut workload = Workload {
            file: Some(name.clone()),
            namespace: None,
            labels: BTreeMap::new(),
            gateway: None,
            service: None,
            proxy: ProxyKind::Workload,
            is_document: true,
        };
        match named {
            // The document has the policies of several workloads.
            Some(None) => {
                compile(Proxy::Every)?;
                return self.scoped(&located.to_node(), Some(name));
            }
            Some(Some(named)) => {
                workload.namespace = named.field("namespace").and_then(Located::text).map(str::to_owned);
                let labels = named.field("labels").map_or(&[][..], Located::fields);
                let text = |field: &Field| Some((field.name.clone(), field.value.text()?.to_owned()));
                workload.labels = labels.iter().filter_map(text).collect();
            }
            None => {}
        }
        let policy = compile(Proxy::Unknown)?.policy;
        let is_without_policy = policy.policy_count() == 0;
        let outcome = Rc::new(self.outcome(policy, is_without_policy));
        Ok(vec![Entry { workload, outcome }])
    }

    /// Returns the workloads that the policies of a document with `scope` distinguish. The document must compile.
    fn scoped(&self, root: &Node<'_>, file: Option<String>) -> io::Result<Vec<Entry>> {
        let groups = Groups::of(root);
        let mut entries: Vec<Entry> = Vec::new();
        // Workloads with the same policies have the same permissions.
        let mut outcomes: HashMap<Vec<usize>, Rc<Outcome>> = HashMap::new();
        for group in groups.all(file.as_deref()) {
            let Some(proxy) = &group.proxy else {
                let reason = "policies have too many combinations of selectors".to_owned();
                entries.push(Entry { workload: group.workload, outcome: Rc::new(Outcome::NotDecided(reason)) });
                continue;
            };
            let failed = |errors: Vec<Diagnostic>| {
                let errors = errors.into_iter().map(|diagnostic| Placed { position: None, diagnostic });
                io::Error::other(Failure::of_document(&group.workload.name(), &errors.collect::<Vec<_>>()))
            };
            let positions = groups.applicable(proxy).map_err(failed)?;
            let outcome = match outcomes.get(&positions) {
                Some(outcome) => Rc::clone(outcome),
                None => {
                    let policy = groups.compile(&positions, proxy).map_err(failed)?;
                    let outcome = Rc::new(self.outcome(policy, positions.is_empty()));
                    outcomes.insert(positions, Rc::clone(&outcome));
                    outcome
                }
            };
            // A Gateway has a gateway and a waypoint. They are one entry if they have the same policies.
            match entries.last_mut() {
                Some(last) if group.workload.is_waypoint_of(&last.workload) && Rc::ptr_eq(&last.outcome, &outcome) => {
                    last.workload.proxy = ProxyKind::GatewayOrWaypoint;
                }
                _ => entries.push(Entry { workload: group.workload, outcome }),
            }
        }
        Ok(entries)
    }

    /// Returns a service at a waypoint.
    fn service(&self, Service { namespace, service, gateway, policy }: Service) -> Entry {
        let workload = Workload {
            file: None,
            namespace: Some(namespace),
            labels: BTreeMap::new(),
            gateway,
            service: Some(service),
            proxy: ProxyKind::Waypoint,
            is_document: false,
        };
        let is_without_policy = policy.policy_count() == 0;
        Entry { workload, outcome: Rc::new(self.outcome(policy, is_without_policy)) }
    }

    fn outcome(&self, policy: PolicySet, is_without_policy: bool) -> Outcome {
        match analysis::who(&policy.on(self.layer), &Question::default(), self.now) {
            Ok(permissions) => Outcome::Decided { permissions, is_without_policy },
            Err(reason) => Outcome::NotDecided(reason.to_string()),
        }
    }
}

impl Workload {
    /// Returns `true` if this is the waypoint of the Gateway that the other one is the gateway of.
    fn is_waypoint_of(&self, other: &Self) -> bool {
        self.proxy == ProxyKind::Waypoint
            && other.proxy == ProxyKind::Gateway
            && self.gateway.is_some()
            && (&self.gateway, &self.namespace, &self.labels) == (&other.gateway, &other.namespace, &other.labels)
    }
}
