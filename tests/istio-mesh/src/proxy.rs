//! The Envoys of the mesh, started in the way of istio-agent: everything but the bootstrap comes from istiod and SPIRE.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Bootstrap;
use spiffe_authz_integration::envoy::{Envoy, Start};

use crate::kubectl::Kubectl;

/// A proxy of the mesh, as istiod identifies it.
#[derive(Debug, Clone, Copy)]
pub struct Proxy<'a> {
    /// `sidecar`, or `router` for a gateway.
    pub kind: &'a str,
    /// The name of the pod.
    pub pod: &'a str,
    /// The address of the pod. Istio regards every workload at this address as one that this proxy belongs to.
    pub address: Ipv4Addr,
    /// The namespace of the pod.
    pub namespace: &'a str,
    /// The service account of the pod.
    pub service_account: &'a str,
    /// The labels of the pod.
    pub labels: &'a Value,
    /// The labels that counters have in their names: `extraStatTags` of the mesh.
    pub stat_tags: &'a [String],
}

/// Returns the settings of proxies in the mesh's configuration, from which istio-agent makes its bootstrap.
///
/// # Errors
/// Returns an error if the configuration cannot be read.
pub fn proxy_settings(kubectl: &Kubectl) -> Result<Value> {
    let map = kubectl.get(&["configmap", "istio", "-n", "istio-system"])?;
    let mut mesh: Value = serde_saphyr::from_str(map["data"]["mesh"].as_str().context("no mesh configuration")?)?;
    Ok(mesh["defaultConfig"].take())
}

impl Proxy<'_> {
    /// Starts the proxy as the workload of this program.
    ///
    /// # Errors
    /// Returns an error if the proxy is not ready in time.
    pub fn start(&self, program: PathBuf, xds: u16, agent: &Path, directory: &Path) -> Result<Envoy> {
        let bootstrap = Bootstrap::from(self.bootstrap(xds, agent));
        Envoy::start(&Start { program, name: self.pod, arguments: &[] }, &bootstrap, directory)
    }

    fn bootstrap(&self, xds: u16, agent: &Path) -> Value {
        let Self { kind, pod, address, namespace, service_account, labels, stat_tags } = self;
        // Source: Istio, `tools/packaging/common/envoy_bootstrap.json`.
        let tag = |name: &String| json!({"tag_name": name, "regex": format!(r"({name}=\.=(.*?);\.;)")});
        let stats_tags: Vec<Value> = stat_tags.iter().map(tag).collect();
        let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
        let istiod = json!({"socket_address": {"address": "127.0.0.1", "port_value": xds}});
        json!({
            "node": {
                "id": format!("{kind}~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
                "cluster": format!("{service_account}.{namespace}"),
                "metadata": {
                    "NAME": pod,
                    "NAMESPACE": namespace,
                    "SERVICE_ACCOUNT": service_account,
                    "LABELS": labels,
                    "CLUSTER_ID": "Kubernetes",
                    "ISTIO_VERSION": "1.31.0",
                    "INTERCEPTION_MODE": "NONE",
                    "UNPRIVILEGED_POD": "true",
                },
            },
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "stats_config": {"use_all_default_tags": false, "stats_tags": stats_tags},
            "dynamic_resources": {
                "lds_config": ads,
                "cds_config": ads,
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            // istiod uses these names: `xds-grpc` is istiod, and `sds-grpc` is the source of certificates. istio-agent
            // points it to the socket of the SPIRE agent if that exists.
            "static_resources": {"clusters": [
                http2_cluster("xds-grpc", &istiod),
                http2_cluster("sds-grpc", &json!({"pipe": {"path": agent}})),
            ]},
        })
    }
}

fn http2_cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    })
}
