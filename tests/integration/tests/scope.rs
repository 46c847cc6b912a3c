//! The policies that each Envoy keeps of a document with `scope`.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONFIGURATION};
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

/// The mesh's document delegates the namespace `shop`, whose document is in another filter.
#[test]
fn a_delegated_namespace_needs_its_own_filter() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let of = |namespaces: &[&str]| {
        let mut document = document(None);
        let policies = document["policies"].as_array_mut().expect("a list");
        policies.retain(|policy| namespaces.contains(&policy["namespace"].as_str().unwrap_or_default()));
        document
    };
    let mut of_mesh = of(&["istio-system", "bank"]);
    of_mesh["scope"]["delegatedNamespaces"] = json!(["shop"]);
    let of_shop = of(&["istio-system", "shop"]);
    let cart = json!({"NAMESPACE": "shop", "LABELS": {"app": "cart"}});
    let bank = json!({"NAMESPACE": "bank", "LABELS": {}});
    let missing = "spiffe_authz_denied[delegate-missing]";
    for (decision, metadata, documents, expected) in [
        ("summary", &cart, vec![&of_shop, &of_mesh], [200, 200, 403, 403]),
        ("facts", &cart, vec![&of_shop, &of_mesh], [200, 200, 403, 403]),
        // Without the filter of the namespace, or with that filter after the other one, nothing is allowed.
        ("summary", &cart, vec![&of_mesh], [403, 403, 403, 403]),
        ("summary", &cart, vec![&of_mesh, &of_shop], [403, 403, 403, 403]),
        ("summary", &bank, vec![&of_mesh], [200, 403, 200, 403]),
    ] {
        let documents: Vec<Value> = documents
            .into_iter()
            .map(|document| {
                let mut document = document.clone();
                document["outputs"] = json!({"decision": decision});
                document
            })
            .collect();
        let bootstrap = with_filters(fixture.bootstrap()?, &documents)?;
        let bootstrap = with_node(bootstrap, "sidecar~10.0.0.1~a.shop~shop.svc", metadata.clone())?;
        let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
        let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        let found = PATHS.iter().map(|path| Ok(client.get(path)?.status)).collect::<Result<Vec<u16>>>()?;
        assert_eq!(found, expected, "{metadata} {documents:?}");
        let details = envoy.access_log_of(PATHS.len())?;
        let is_missing = details.iter().all(|line| line["details"] == missing);
        assert_eq!(is_missing, expected == [403; 4], "{details:?}");
    }
    Ok(())
}

/// Replaces the filter with one for each document, in this order.
fn with_filters(bootstrap: Bootstrap, documents: &[Value]) -> Result<Bootstrap> {
    let (filters, _) = CONFIGURATION.split_once("/0/typed_config/config/").context("no filter")?;
    let (filter, rest) = bootstrap.at(filters)?.as_array().and_then(|all| all.split_first()).context("no filter")?;
    let with = |document: &Value| {
        let mut filter = filter.clone();
        filter["typed_config"]["config"]["configuration"]["value"] = json!(document.to_string());
        filter
    };
    let all: Vec<Value> = documents.iter().map(with).chain(rest.iter().cloned()).collect();
    bootstrap.set(filters, json!(all))
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
