//! Policies of services, which waypoints enforce for the requests to these services only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use spiffe_authz::policy::{PolicySet, Proxy};

use crate::document::Document;
use crate::exit::Failure;
use crate::istio::remark::Origin;
use crate::istio::resource::Resources;
use crate::istio::scope::{Scope, Workload};
use crate::istio::target::TargetRef;
use crate::located::Located;
use crate::mesh::{Mesh, MeshSettings};

/// The GatewayClass of waypoints.
const WAYPOINT_CLASS: &str = "GatewayClass/istio-waypoint";

/// A service at a waypoint.
pub(super) struct Service {
    pub(super) namespace: String,
    /// The kind and the name, such as `Service/web`.
    pub(super) service: String,
    /// The Gateway of the waypoint, or `None` for one that no policy names.
    pub(super) gateway: Option<String>,
    pub(super) policy: PolicySet,
}

/// The services and the Gateways that the policies of a namespace name.
#[derive(Default)]
struct Named {
    services: BTreeSet<String>,
    gateways: BTreeSet<String>,
}

/// Removes the policies of services from the resources, and returns the services with the policies of their waypoints.
///
/// # Errors
/// Returns an error if a policy would be lost.
pub(super) fn take_services(resources: &mut Resources<'_>, settings: &MeshSettings) -> io::Result<Vec<Service>> {
    let mut namespaces: BTreeMap<&str, Named> = BTreeMap::new();
    let mut with_targets = Vec::new();
    for (policy, origin) in &resources.policies {
        let targets = targets(policy);
        let namespace =
            policy.field("metadata").and_then(|metadata| metadata.field("namespace")).and_then(Located::text);
        let Some(namespace) = namespace.filter(|_| !targets.is_empty()) else { continue };
        let named = namespaces.entry(namespace).or_default();
        for (kind, name) in targets {
            match kind {
                "Gateway" => named.gateways.insert(name.to_owned()),
                _ if is_service(kind) => named.services.insert(format!("{kind}/{name}")),
                _ => false,
            };
        }
        with_targets.push((namespace, *policy, origin.clone()));
    }
    let mut found = Vec::new();
    for (namespace, Named { services, gateways }) in &namespaces {
        let is_near = |other: &str| other == *namespace || other == settings.root_namespace;
        for service in services {
            for gateway in gateways.iter().map(Some).chain([None]) {
                let policies = with_targets.iter().filter(|(other, ..)| is_near(other));
                let policies = policies.map(|(_, policy, origin)| (*policy, origin.clone())).collect();
                let names = [service.clone(), WAYPOINT_CLASS.to_owned()];
                let names = names.into_iter().chain(gateway.map(|gateway| format!("Gateway/{gateway}")));
                let targets = names.map(|name| TargetRef::parse(&name)).collect::<Result<_, _>>();
                let workload = Workload {
                    namespace: (*namespace).to_owned(),
                    labels: BTreeMap::new(),
                    targets: targets.map_err(io::Error::other)?,
                    is_sidecar: false,
                };
                let mesh = Mesh { settings: settings.clone(), workload: Some(workload) };
                found.push(Service {
                    namespace: (*namespace).to_owned(),
                    service: service.clone(),
                    gateway: gateway.cloned(),
                    policy: of_waypoint(&mesh, policies, service)?,
                });
            }
        }
    }
    resources.policies.retain(|(policy, _)| {
        let targets = targets(policy);
        targets.is_empty() || !targets.iter().all(|(kind, _)| is_service(kind))
    });
    Ok(found)
}

/// Returns the policies that a waypoint enforces for the requests to its service.
fn of_waypoint(mesh: &Mesh, policies: Vec<(&Located, Origin)>, service: &str) -> io::Result<PolicySet> {
    let resources = Resources { policies, ..Resources::default() };
    let import = mesh.import(resources, Scope::Unspecified, Vec::new(), true)?;
    if import.lost > 0 {
        return Err(io::Error::other(Failure::of_policies("the input", &import.remarks)));
    }
    let document = Document::compile(&import.document, Proxy::Unknown);
    Ok(document.map_err(|errors| io::Error::other(Failure::of_document(service, &errors)))?.policy)
}

fn is_service(kind: &str) -> bool {
    ["Service", "ServiceEntry"].contains(&kind)
}

/// Returns the kinds and names of the resources that a policy is attached to. The import reports what is wrong with them.
fn targets(policy: &Located) -> Vec<(&str, &str)> {
    let spec = policy.field("spec");
    let field = |name: &str| spec.and_then(|spec| spec.field(name));
    let list = field("targetRefs").map_or(&[][..], Located::items);
    let targets = field("targetRef").into_iter().chain(list);
    targets.filter_map(|target| Some((target.field("kind")?.text()?, target.field("name")?.text()?))).collect()
}
