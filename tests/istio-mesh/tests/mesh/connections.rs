//! The connections of the sidecar and the gateway, with the mesh configuration and 5-authorization/connections.yaml.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::mesh::Mesh;

use crate::LIMIT;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Returns the filter chains of an Envoy that require a client certificate and have a connection manager.
fn chains(envoy: &Envoy) -> Result<Vec<Value>> {
    let dump: Value = serde_json::from_slice(&envoy.admin("/config_dump?resource=dynamic_listeners")?.body)?;
    let listeners = dump["configs"].as_array().into_iter().flatten();
    let chains = listeners.flat_map(|one| {
        let listener = &one["active_state"]["listener"];
        listener["filter_chains"].as_array().into_iter().flatten().chain(listener.get("default_filter_chain"))
    });
    let guarded = |chain: &&Value| {
        let tls = &chain["transport_socket"]["typed_config"];
        tls["@type"] == TLS && tls["require_client_certificate"] == true && manager(chain).is_some()
    };
    Ok(chains.filter(guarded).cloned().collect())
}

fn manager(chain: &Value) -> Option<&Value> {
    let mut filters = chain["filters"].as_array()?.iter().map(|filter| &filter["typed_config"]);
    filters.find(|config| config["@type"] == CONNECTION_MANAGER)
}

pub(crate) fn sessions_are_not_resumed_and_paths_are_normalized(mesh: &Mesh) -> Result<()> {
    for (name, envoy) in [("sidecar", &mesh.sidecar), ("gateway", &mesh.gateway)] {
        wait::until("no connection is resumed", LIMIT, || {
            let resumed = |chain: &Value| {
                let tls = &chain["transport_socket"]["typed_config"];
                ["disable_stateless_session_resumption", "disable_stateful_session_resumption"]
                    .iter()
                    .any(|field| tls[field] != true)
            };
            let chains = chains(envoy)?;
            Ok((!chains.is_empty() && !chains.iter().any(resumed)).then_some(()))
        })
        .with_context(|| name)?;
        for chain in chains(envoy)? {
            let manager = manager(&chain).context("no connection manager")?;
            let slashes = &manager["path_with_escaped_slashes_action"];
            ensure!(
                manager["normalize_path"] == true
                    && manager["merge_slashes"] == true
                    && slashes == "UNESCAPE_AND_FORWARD",
                "{name}: the paths are not normalized: {manager}"
            );
        }
    }
    Ok(())
}
