//! The time and memory of the doctor on the dump of a large mesh. This is a measurement, not a test:
//!
//! ```console
//! $ cargo test --release -p spiffe-authz-cli --test doctor_size -- --ignored --nocapture
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The size of the dump.
const SIZE: usize = 54_000_000;

fn sds(name: &str) -> Value {
    json!({"name": name, "sds_config": {
        "api_config_source": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]},
        "initial_fetch_timeout": "0s", "resource_api_version": "V3"
    }})
}

/// A cluster as Istio writes it.
fn cluster(number: usize) -> Value {
    let name = format!("outbound|8080||service-{number}.namespace-{}.svc.cluster.local", number % 50);
    let id = format!("spiffe://example.org/ns/namespace-{}/sa/service-{number}", number % 50);
    json!({"version_info": "1", "last_updated": "2026-03-02T09:00:00Z", "cluster": {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": name, "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}, "service_name": name},
        "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_connections": 4_294_967_295_u32, "max_retries": 4_294_967_295_u32}]},
        "metadata": {"filter_metadata": {"istio": {"services": [{"host": name, "name": "x", "namespace": "y"}]}}},
        "transport_socket_matches": [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {
                "name": "envoy.transport_sockets.tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": name, "common_tls_context": {
                        "alpn_protocols": ["istio-peer-exchange", "istio", "h2"],
                        "tls_certificate_sds_secret_configs": [sds("default")],
                        "combined_validation_context": {
                            "default_validation_context": {
                                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": id}}]
                            },
                            "validation_context_sds_secret_config": sds("ROOTCA")
                        }
                    }
                }
            }},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
                }
            }}
        ]
    }})
}

/// An outbound listener as Istio writes it, without the connection manager's defaults.
fn listener(number: usize, base: &Value) -> Value {
    let mut state = base.clone();
    let name = json!(format!("10.0.{}.{}_8080", number / 256 % 256, number % 256));
    state["name"] = name.clone();
    state["active_state"]["listener"]["name"] = name;
    for chain in state["active_state"]["listener"]["filter_chains"].as_array_mut().unwrap() {
        chain.as_object_mut().unwrap().remove("transport_socket");
    }
    state
}

fn route(number: usize) -> Value {
    let hosts: Vec<Value> = (0..40)
        .map(|host| {
            let name = format!("service-{host}.namespace-{number}.svc.cluster.local");
            json!({"name": format!("{name}:8080"), "domains": [name, format!("{name}:8080")], "routes": [{
                "match": {"prefix": "/"}, "name": "default",
                "route": {"cluster": format!("outbound|8080||{name}"), "timeout": "0s", "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,unavailable", "num_retries": 2
                }},
                "decorator": {"operation": format!("{name}:8080/*")}
            }]})
        })
        .collect();
    json!({"version_info": "1", "last_updated": "2026-03-02T09:00:00Z", "route_config": {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": number.to_string(),
        "virtual_hosts": hosts
    }})
}

/// Returns the dump of the sidecar in a case, with the clusters, listeners and routes of a large mesh.
fn dump() -> String {
    let case =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor_cases/f8-plugin-replaced-deny/config_dump.json");
    let mut dump: Value = serde_json::from_str(&fs::read_to_string(case).unwrap()).unwrap();
    let sections = dump["configs"].as_array_mut().unwrap();
    let take = |sections: &mut Vec<Value>, kind: &str| {
        let found = |section: &Value| section["@type"].as_str().unwrap().ends_with(kind);
        let position = sections.iter().position(found);
        position.map_or_else(
            || json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{kind}")}),
            |at| sections.remove(at),
        )
    };
    let mut clusters = take(sections, "ClustersConfigDump");
    let mut listeners = take(sections, "ListenersConfigDump");
    let mut routes = take(sections, "RoutesConfigDump");
    let inbound = listeners["dynamic_listeners"].as_array().unwrap().last().unwrap().clone();
    let (mut more_clusters, mut more_listeners, mut more_routes) = (Vec::new(), Vec::new(), Vec::new());
    let mut size = 0;
    while size < SIZE {
        let number = more_clusters.len();
        let mut count = |value: Value, items: &mut Vec<Value>| {
            size += value.to_string().len();
            items.push(value);
        };
        count(cluster(number), &mut more_clusters);
        if number % 4 == 0 {
            count(listener(number, &inbound), &mut more_listeners);
        }
        if number % 20 == 0 {
            count(route(number), &mut more_routes);
        }
    }
    clusters["dynamic_active_clusters"] = json!(more_clusters);
    listeners["dynamic_listeners"].as_array_mut().unwrap().extend(more_listeners);
    routes["dynamic_route_configs"] = json!(more_routes);
    sections.extend([clusters, listeners, routes]);
    dump.to_string()
}

/// Returns the peak of the resident memory of a process, in KiB, while it lives.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
#[ignore = "measures time and memory, which depend on the machine"]
fn a_large_dump() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config_dump");
    let text = dump();
    fs::write(&file, &text).unwrap();
    let (report, start) = (directory.path().join("report"), Instant::now());
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .args(["doctor", "--fail-level", "never", "--config-dump"])
        .arg(&file)
        .stdout(fs::File::create(&report).unwrap())
        .spawn()
        .unwrap();
    let mut memory = 0;
    while child.try_wait().unwrap().is_none() {
        memory = peak(child.id()).unwrap_or(0).max(memory);
        std::thread::sleep(Duration::from_millis(1));
    }
    let elapsed = start.elapsed();
    let mut result = fs::read_to_string(&report).unwrap();
    result.push_str(&format!("{} bytes, {elapsed:?}, {memory} KiB\n", text.len()));
    std::io::Write::write_all(&mut std::io::stdout(), result.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
