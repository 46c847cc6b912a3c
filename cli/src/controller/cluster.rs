//! The kinds of objects that the controller reads and writes, and their changes.

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, select_all};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;

use super::Settings;
use crate::deploy::object::MANAGED_BY;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resource {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

pub(super) const POLICY: Resource = Resource {
    group: "security.istio.io",
    version: "v1",
    kind: "AuthorizationPolicy",
    plural: "authorizationpolicies",
};
pub(super) const DEPLOYMENT: Resource =
    Resource { group: "spiffe-authz.io", version: "v1alpha1", kind: "PolicyDeployment", plural: "policydeployments" };
pub(super) const FEDERATION: Resource = Resource {
    group: "spire.spiffe.io",
    version: "v1alpha1",
    kind: "ClusterFederatedTrustDomain",
    plural: "clusterfederatedtrustdomains",
};
pub(super) const CONFIG_MAP: Resource = Resource { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps" };
/// The kinds that the controller can write.
const WRITTEN: [Resource; 3] = [
    Resource { group: "extensions.istio.io", version: "v1alpha1", kind: "WasmPlugin", plural: "wasmplugins" },
    Resource {
        group: "extensions.istio.io",
        version: "v1alpha1",
        kind: "TrafficExtension",
        plural: "trafficextensions",
    },
    Resource { group: "networking.istio.io", version: "v1alpha3", kind: "EnvoyFilter", plural: "envoyfilters" },
];

impl Resource {
    /// Returns the resource of a kind that the controller can write.
    pub(super) fn written(kind: &str) -> Option<Self> {
        WRITTEN.into_iter().find(|resource| resource.kind == kind)
    }

    pub(super) fn api_resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }

    /// Returns the objects of every namespace.
    pub(super) fn everywhere(self, client: &Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.api_resource())
    }

    /// Returns the objects of a namespace.
    pub(super) fn in_namespace(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.api_resource())
    }

    /// Lists objects. A kind that the cluster does not know has none.
    ///
    /// # Errors
    /// Returns an error if the API server does not answer.
    pub(super) async fn list(self, client: &Client, labels: Option<&str>) -> kube::Result<Vec<DynamicObject>> {
        let parameters = labels.map_or_else(ListParams::default, |labels| ListParams::default().labels(labels));
        match self.everywhere(client).list(&parameters).await {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Returns the label selector of the objects that this project writes.
pub(super) fn managed() -> String {
    let (label, manager) = MANAGED_BY;
    format!("{label}={manager}")
}

/// Reports every change, and never ends. Kinds that the cluster does not know are tried again.
pub(super) async fn watch(client: &Client, settings: &Settings, changed: &Notify) {
    let mesh = watcher::Config::default().fields(&format!("metadata.name={}", settings.mesh_config));
    let any = watcher::Config::default;
    let mut watched = vec![
        changes(POLICY.everywhere(client), any()),
        changes(DEPLOYMENT.everywhere(client), any()),
        changes(FEDERATION.everywhere(client), any()),
        changes(CONFIG_MAP.in_namespace(client, &settings.istio_namespace), mesh),
    ];
    watched.extend(WRITTEN.map(|resource| changes(resource.everywhere(client), any().labels(&managed()))));
    let mut all = select_all(watched);
    while all.next().await.is_some() {
        changed.notify_one();
    }
}

/// Returns an item for each change. Errors only delay the stream.
fn changes(api: Api<DynamicObject>, config: watcher::Config) -> BoxStream<'static, ()> {
    watcher(api, config).default_backoff().filter_map(|event| async { event.ok().map(drop) }).boxed()
}
