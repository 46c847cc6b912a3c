//! Compares the policies that a proxy keeps of a mesh's policies with those that Istio's own code applies to its workload.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use fastrand::Rng;
use serde_json::{Value, json};
use spiffe_authz::policy::{PolicySet, Proxy, Workload};
use spiffe_authz_integration::istio::{Mesh, applied, import_all};

const MESHES: usize = 60;
const POLICIES: usize = 40;
const WORKLOADS: usize = 50;

const NAMESPACES: [&str; 4] = ["istio-system", "shop", "bank", "edge"];
const GATEWAYS: [&str; 3] = ["public", "internal", "waypoint"];
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Returns one of the labels of workloads and selectors.
fn random_label(rng: &mut Rng) -> (&'static str, &'static str) {
    let name = ["app", "version", "team/owner", GATEWAY_NAME][rng.usize(..4)];
    let value = if name == GATEWAY_NAME { GATEWAYS[rng.usize(..3)] } else { ["a", "b", ""][rng.usize(..3)] };
    (name, value)
}

fn random_policy(rng: &mut Rng, number: usize, root_namespace: &str) -> Value {
    let namespace = NAMESPACES[rng.usize(..4)];
    let action = ["ALLOW", "DENY"][rng.usize(..2)];
    let mut spec = json!({"action": action, "rules": [{}]});
    match rng.u8(..6) {
        0 => {}
        1..=3 => {
            let labels: serde_json::Map<_, _> = (0..rng.usize(1..3))
                .map(|_| random_label(rng))
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect();
            spec["selector"] = json!({"matchLabels": labels});
        }
        _ => {
            let targets: Vec<Value> = (0..rng.usize(1..3))
                .map(|_| {
                    let (kind, name) = match rng.u8(..3) {
                        // Istio allows a GatewayClass in the root namespace only.
                        0 if namespace == root_namespace => {
                            ("GatewayClass", ["istio-waypoint", "istio"][rng.usize(..2)])
                        }
                        _ => ("Gateway", GATEWAYS[rng.usize(..3)]),
                    };
                    json!({"group": "gateway.networking.k8s.io", "kind": kind, "name": name})
                })
                .collect();
            spec["targetRefs"] = json!(targets);
        }
    }
    json!({"name": format!("p{number}"), "namespace": namespace, "spec": spec})
}

fn random_workload(rng: &mut Rng) -> Workload {
    let mut labels: Vec<(String, String)> = Vec::new();
    for _ in 0..rng.usize(..4) {
        let (name, value) = random_label(rng);
        if labels.iter().all(|(other, _)| other != name) {
            labels.push((name.to_owned(), value.to_owned()));
        }
    }
    Workload { namespace: NAMESPACES[rng.usize(..4)].to_owned(), labels: Some(labels), is_waypoint: rng.u8(..3) == 0 }
}

/// Returns the workload for Istio's code.
fn as_json(Workload { namespace, labels, is_waypoint }: &Workload) -> Value {
    let labels: serde_json::Map<_, _> =
        labels.iter().flatten().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({"namespace": namespace, "labels": labels, "waypoint": is_waypoint})
}

#[test]
fn a_proxy_keeps_the_policies_that_istio_applies() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut kept, mut dropped) = (0, 0);
    for _ in 0..MESHES {
        let root_namespace = ["istio-system", "shop"][rng.usize(..2)];
        let policies: Vec<Value> =
            (0..POLICIES).map(|number| random_policy(&mut rng, number, root_namespace)).collect();
        let document = import_all(&policies, root_namespace)?;
        let workloads: Vec<Workload> = (0..WORKLOADS).map(|_| random_workload(&mut rng)).collect();
        let meshes: Vec<Mesh> = workloads
            .iter()
            .map(|workload| Mesh {
                policies: policies.clone(),
                root_namespace: root_namespace.to_owned(),
                workload: as_json(workload),
            })
            .collect();
        for (workload, expected) in workloads.iter().zip(applied(&meshes)?) {
            let set = PolicySet::from_json_for(document.to_string().as_bytes(), Proxy::Of(workload))
                .unwrap_or_else(|errors| panic!("{errors:#?}"));
            let name = |position: usize| {
                let policy = &policies[position];
                format!("{}/{}", policy["namespace"].as_str().unwrap_or(""), policy["name"].as_str().unwrap_or(""))
            };
            let found: BTreeSet<String> = set.positions().map(name).collect();
            assert_eq!(found, expected, "seed {seed}: {workload:?}\n{document:#}");
            kept += found.len();
            dropped += POLICIES - found.len();
        }
    }
    // If almost all or almost none were kept, the comparison would be weak.
    let all = MESHES * WORKLOADS * POLICIES;
    assert_eq!(kept + dropped, all);
    assert!(kept > all / 20 && dropped > all / 20, "{kept} kept, {dropped} dropped");
    Ok(())
}
