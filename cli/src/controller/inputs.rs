//! The objects of a cluster that a deployment depends on, and the result of rendering them.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::Resource as _;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Settings;
use super::cluster::{CONFIG_MAP, FEDERATION, POLICY};
use super::status::Problem;
use crate::deploy::Part;
use crate::deploy::policies::{Documents, Policies};
use crate::deploy::values::Values;
use crate::istio::remark::Remark;
use crate::mesh::MeshSettings;
use crate::source::Source;
use crate::yaml;

/// The name in remarks, instead of a file.
const CLUSTER: &str = "cluster";

/// The objects of a cluster that a deployment depends on.
pub(super) struct Inputs {
    pub(super) policies: Vec<DynamicObject>,
    mesh: MeshSettings,
}

/// The part of Istio's mesh configuration that policies depend on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    trust_domain: String,
    trust_domain_aliases: Vec<String>,
    root_namespace: Option<String>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        // Istio's default.
        Self { trust_domain: "cluster.local".to_owned(), trust_domain_aliases: Vec::new(), root_namespace: None }
    }
}

/// The result of rendering a deployment.
pub(super) struct Rendered {
    pub(super) parts: Vec<Part>,
    pub(super) remarks: Vec<Remark>,
}

impl Inputs {
    /// Lists the policies with these labels, and reads the settings of the mesh.
    ///
    /// # Errors
    /// Returns an error if the API server does not answer, or if the mesh configuration cannot be read.
    pub(super) async fn read(client: &Client, settings: &Settings, labels: Option<&str>) -> io::Result<Self> {
        // A cluster that does not know the kind is not a cluster without policies, which allow every caller.
        let policies = POLICY.list(client, labels).await?;
        Ok(Self { policies, mesh: mesh_settings(client, settings).await? })
    }

    /// Renders the policies with these values, in the same way as `spiffe-authz render`.
    ///
    /// # Errors
    /// Returns an error if the values are wrong, or if a policy cannot be deployed.
    pub(super) fn render(&self, values: &Values, allows_partial: bool) -> io::Result<Rendered> {
        let form = values.form()?;
        let settings = values.settings(self.mesh.clone(), &form, allows_partial)?;
        let items: Vec<Value> = self.policies.iter().map(resource).collect();
        let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let source = Source::parse(Path::new(CLUSTER), text)
            .map_err(|_| io::Error::other("the API server's list of policies is not JSON"))?;
        let policies = Policies::Resources(vec![source]);
        let Documents { documents, remarks } = policies.documents(&settings, &values.proxies(false)?)?;
        let parts = form.parts(values.name(), &settings.mesh.root_namespace, documents)?;
        Ok(Rendered { parts, remarks })
    }

    /// Returns the problem that a remark describes.
    pub(super) fn problem(&self, remark: &Remark) -> Problem {
        let policy = self.policies.iter().find(|policy| {
            let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            remark.place.split_once('/') == Some((namespace, name))
        });
        // The position is one in the API server's response.
        let text = Remark { origin: None, ..remark.clone() }.to_string();
        Problem { policy: policy.map(reference), text }
    }
}

/// Reads the settings of the mesh: Istio's mesh configuration, and the trust domains that SPIRE federates with, sorted.
///
/// # Errors
/// Returns an error if the API server does not answer, or if the mesh configuration cannot be read.
pub(super) async fn mesh_settings(client: &Client, settings: &Settings) -> io::Result<MeshSettings> {
    let mut federated: Vec<String> = FEDERATION
        .list_if_known(client)
        .await?
        .iter()
        .filter_map(|domain| domain.data["spec"]["trustDomain"].as_str().map(str::to_owned))
        .collect();
    federated.sort_unstable();
    federated.dedup();
    let namespace = &settings.istio_namespace;
    let config_map = CONFIG_MAP
        .in_namespace(client, namespace)
        .get(&settings.mesh_config)
        .await
        .map_err(|error| io::Error::other(format!("{namespace}/{}: {error}", settings.mesh_config)))?;
    let mesh = config_map.data["data"]["mesh"].as_str().unwrap_or_default();
    let mesh: MeshConfig = if mesh.trim().is_empty() { Ok(MeshConfig::default()) } else { yaml::from_str(mesh) }
        .map_err(|error| {
            let message = yaml::message(&error);
            io::Error::other(format!("{namespace}/{}: mesh: {message}", settings.mesh_config))
        })?;
    let MeshConfig { trust_domain, trust_domain_aliases, root_namespace } = mesh;
    Ok(MeshSettings {
        trust_domain: Some(trust_domain),
        trust_domain_aliases,
        federated_trust_domains: federated,
        root_namespace: root_namespace.unwrap_or_else(|| namespace.clone()),
    })
}

fn reference(policy: &DynamicObject) -> ObjectReference {
    policy.object_ref(&POLICY.api_resource())
}

/// Returns a policy as `kubectl get` prints it, without what the API server adds.
fn resource(policy: &DynamicObject) -> Value {
    let metadata = &policy.metadata;
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": metadata.name, "namespace": metadata.namespace,
            "annotations": metadata.annotations.clone().unwrap_or_default(),
        },
        "spec": policy.data.get("spec").cloned().unwrap_or_else(|| json!({})),
    })
}
