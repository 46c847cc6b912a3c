//! The policies that each Envoy keeps of a document with `scope`.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};

/// A document with policies of three workloads, each of which allows another path.
fn document(workload: Option<Value>) -> Value {
    let policy = |name: &str, namespace: &str, path: &str, fields: Value| {
        let mut policy = json!({
            "name": name, "namespace": namespace, "rules": [{"to": [{"operation": {"paths": [path]}}]}]
        });
        policy.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        policy
    };
    let target =
        |name: &str| json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}]});
    let mut scope = json!({"rootNamespace": "istio-system"});
    if let Some(workload) = workload {
        scope["workload"] = workload;
    }
    json!({
        "trustDomain": "example.org", "scope": scope,
        "policies": [
            policy("mesh", "istio-system", "/mesh", json!({})),
            policy("cart", "shop", "/cart", json!({"selector": {"matchLabels": {"app": "cart"}}})),
            policy("far", "bank", "/far", json!({})),
            policy("public", "shop", "/public", target("public")),
        ]
    })
}

const PATHS: [&str; 4] = ["/mesh", "/cart", "/far", "/public"];

/// Sets the metadata and the ID of the node, as Istio does.
fn with_node(bootstrap: Bootstrap, id: &str, metadata: Value) -> Result<Bootstrap> {
    let mut node = bootstrap.at("/node").cloned().unwrap_or_else(|_| json!({"cluster": "test"}));
    node["id"] = json!(id);
    node["metadata"] = metadata;
    bootstrap.set("/node", node)
}

/// Starts an Envoy and returns the statuses of all paths.
fn statuses(fixture: &Fixture, bootstrap: &Bootstrap) -> Result<Vec<u16>> {
    let envoy = Envoy::start(&Start::tested("server")?, bootstrap, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    PATHS.iter().map(|path| Ok(client.get(path)?.status)).collect()
}

#[test]
fn the_wasm_filter_finds_its_workload_in_the_node() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let scoped = fixture.bootstrap()?.configuration(&document(None).to_string())?;
    let gateway = "gateway.networking.k8s.io/gateway-name";
    for (id, metadata, expected) in [
        (
            "sidecar~10.0.0.1~a.shop~shop.svc",
            json!({"NAMESPACE": "shop", "LABELS": {"app": "cart"}}),
            [200, 200, 403, 403],
        ),
        ("sidecar~10.0.0.1~a.shop~shop.svc", json!({"NAMESPACE": "shop", "LABELS": {}}), [200, 403, 403, 403]),
        (
            "router~10.0.0.1~a.shop~shop.svc",
            json!({"NAMESPACE": "shop", "LABELS": {gateway: "public"}}),
            [200, 403, 403, 200],
        ),
        (
            "waypoint~10.0.0.1~a.shop~shop.svc",
            json!({"NAMESPACE": "shop", "LABELS": {gateway: "public"}}),
            [403, 403, 403, 200],
        ),
    ] {
        let found = statuses(&fixture, &with_node(scoped.clone(), id, metadata.clone())?);
        assert_eq!(found.with_context(|| format!("{id} {metadata}"))?, expected, "{id} {metadata}");
    }
    Ok(())
}

#[test]
fn the_wasm_filter_rejects_a_workload_that_it_does_not_know() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let scoped = fixture.bootstrap()?.configuration(&document(None).to_string())?;
    for (metadata, place) in [
        (json!({}), "/scope: scope-unresolved: "),
        (json!({"LABELS": {"app": "cart"}}), "/scope: scope-unresolved: "),
        (json!({"NAMESPACE": 7, "LABELS": {"app": "cart"}}), "/scope: scope-unresolved: "),
        (json!({"NAMESPACE": "shop"}), "/policies/1/selector: scope-unresolved: "),
    ] {
        let bootstrap = with_node(scoped.clone(), "sidecar~10.0.0.1~a.shop~shop.svc", metadata.clone())?;
        let log = Envoy::rejected(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
        assert!(log.contains(&format!("spiffe-authz: {place}")), "{metadata}: expected `{place}` in:\n{log}");
    }
    Ok(())
}

spiffe_authz_integration::test_with_each_adapter![a_document_can_name_its_workload];

fn a_document_can_name_its_workload(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let workload = json!({"namespace": "shop", "labels": {"app": "cart"}});
    let scoped = fixture.bootstrap()?.configuration(&document(Some(workload)).to_string())?;
    assert_eq!(statuses(&fixture, &scoped)?, [200, 200, 403, 403]);
    let unnamed = fixture.bootstrap()?.configuration(&document(None).to_string())?;
    let log = Envoy::rejected(&Start::tested("server")?, &unnamed, fixture.scratch.path())?;
    assert!(log.contains("spiffe-authz: /scope: scope-unresolved: "), "{log}");
    Ok(())
}
