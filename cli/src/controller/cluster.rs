//! The kinds of objects that the controller reads and writes, and their changes.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, select_all};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;

use super::{Settings, log};
use crate::deploy::object::MANAGED_BY;

/// The shortest and the longest time until a watch that failed is repeated. Few clients watch, so the API server does not
/// need the 30 seconds that are usual.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

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

    /// Lists the objects with these labels.
    ///
    /// # Errors
    /// Returns an error if the API server does not answer, or does not know the kind.
    pub(super) async fn list(self, client: &Client, labels: Option<&str>) -> io::Result<Vec<DynamicObject>> {
        let parameters = labels.map_or_else(ListParams::default, |labels| ListParams::default().labels(labels));
        let list = self.everywhere(client).list(&parameters).await;
        list.map(|list| list.items).map_err(|error| io::Error::other(format!("{}: {error}", self.plural)))
    }

    /// Lists the objects. A kind that the cluster does not know has none.
    ///
    /// # Errors
    /// Returns an error if the API server does not answer.
    pub(super) async fn list_if_known(self, client: &Client) -> io::Result<Vec<DynamicObject>> {
        match self.everywhere(client).list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(io::Error::other(format!("{}: {error}", self.plural))),
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
        changes(POLICY, POLICY.everywhere(client), any()),
        changes(DEPLOYMENT, DEPLOYMENT.everywhere(client), any()),
        changes(FEDERATION, FEDERATION.everywhere(client), any()),
        changes(CONFIG_MAP, CONFIG_MAP.in_namespace(client, &settings.istio_namespace), mesh),
    ];
    watched.extend(WRITTEN.map(|resource| changes(resource, resource.everywhere(client), any().labels(&managed()))));
    let mut all = select_all(watched);
    while all.next().await.is_some() {
        changed.notify_one();
    }
}

/// Returns an item for each change. Errors only delay the stream.
fn changes(resource: Resource, api: Api<DynamicObject>, config: watcher::Config) -> BoxStream<'static, ()> {
    let changes = watcher(api, config).backoff(Retry::default());
    changes
        .filter_map(move |event| async move {
            match event {
                Ok(_) => Some(()),
                // A cluster need not know every kind, and the controller needs rights for the kinds that it writes only. If
                // it lacks them, the comparison fails.
                Err(error) if is_answer(&error, 404) || WRITTEN.contains(&resource) && is_answer(&error, 403) => None,
                // The watcher lists everything again.
                Err(error) if is_answer(&error, 410) => None,
                Err(error) => {
                    log::error("changes cannot be watched", &[("kind", resource.kind), ("error", &error.to_string())]);
                    None
                }
            }
        })
        .boxed()
}

/// The time until a watch that failed is repeated, after the previous one.
#[derive(Default)]
struct Retry(Option<Duration>);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let [shortest, longest] = RETRY;
        self.0 = Some(self.0.map_or(shortest, |last| (last * 2).min(longest)));
        self.0
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = None;
    }
}

/// Returns `true` if the API server answered with this status.
fn is_answer(error: &watcher::Error, code: u16) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == code,
        watcher::Error::WatchError(status) => status.code == code,
        _ => false,
    }
}
