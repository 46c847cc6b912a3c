//! The filters of Envoy that the filter is compared with, as HTTP filters of a connection manager.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::policies::{Allowed, allowed};

/// The name of the cluster of the ext_authz server.
const AUTHORIZATION_CLUSTER: &str = "authorization";

/// Returns an RBAC filter with a matcher tree of these policies: from the URI SAN to the method to the prefix of the
/// path.
///
/// A tree finds one branch for each value, and does not try another branch if that one denies. So a tree like this
/// requires that no two policies have the same caller, and that each policy names its callers.
pub(crate) fn matcher_tree(count: u32) -> Value {
    let callers: Map<String, Value> = allowed(count)
        .map(|Allowed { account, path }| {
            let action = json!({"action": {"name": "allow", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": &account, "action": "ALLOW"
            }}});
            let path = tree(header(":path"), "prefix_match_map", json!({path: action}));
            let method = tree(header(":method"), "exact_match_map", json!({"GET": {"matcher": path}}));
            (format!("spiffe://example.org/ns/default/sa/{account}"), json!({"matcher": method}))
        })
        .collect();
    let uri_san = json!({"name": "caller", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput"
    }});
    json!({"name": "envoy.filters.http.rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "matcher": tree(uri_san, "exact_match_map", Value::Object(callers))
    }})
}

fn tree(input: Value, kind: &str, map: Value) -> Value {
    json!({"matcher_tree": {"input": input, kind: {"map": map}}})
}

fn header(name: &str) -> Value {
    json!({"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name
    }})
}

/// Returns a Lua filter that compares the caller, the method and the path with one policy.
pub(crate) fn lua() -> Value {
    let code = r#"
        function envoy_on_request(handle)
          local tls = handle:streamInfo():downstreamSslConnection()
          local headers = handle:headers()
          if tls == nil or tls:uriSanPeerCertificate()[1] ~= "spiffe://example.org/ns/default/sa/sleep"
            or headers:get(":method") ~= "GET" or string.sub(headers:get(":path"), 1, 8) ~= "/status/" then
            handle:respond({[":status"] = "403"}, "access denied")
          end
        end
    "#;
    json!({"name": "envoy.filters.http.lua", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": code}
    }})
}

/// Returns the ext_authz filter, which calls the cluster of a gRPC server for each request.
pub(crate) fn ext_authz() -> Value {
    json!({"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": AUTHORIZATION_CLUSTER}, "timeout": "10s"}
    }})
}

/// Returns the cluster of the gRPC server at this address.
pub(crate) fn authorization_cluster(address: SocketAddr) -> Value {
    let endpoint = json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    json!({
        "name": AUTHORIZATION_CLUSTER,
        "load_assignment": {
            "cluster_name": AUTHORIZATION_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}]
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}
        }}
    })
}
