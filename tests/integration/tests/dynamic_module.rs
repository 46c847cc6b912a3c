//! Features of the dynamic module only, in a real Envoy: configurations of routes, outputs for Envoy's own filters,
//! caught panics, and new code without a restart.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::memory;
use spiffe_authz_integration::{tools, wait};

const LIMIT: Duration = Duration::from_secs(20);
const ROUTES: &str = "/route_config/virtual_hosts/0/routes";
const FILTER: &str = "/http_filters/0";

/// Allows GET requests of `sleep`.
fn document() -> Value {
    json!({"trustDomain": "example.org", "policies": [{
        "name": "sleep-reads", "namespace": "default", "rules": [{
            "from": [{"source": {"serviceAccounts": ["sleep"]}}], "to": [{"operation": {"methods": ["GET"]}}]
        }]
    }]})
}

fn fixture() -> Result<(Fixture, Bootstrap)> {
    let fixture = Fixture::new(Adapter::Module, Validation::Spiffe)?;
    let bootstrap = fixture.bootstrap()?.configuration(&document().to_string())?;
    Ok((fixture, bootstrap))
}

/// The module of the filter.
fn of_filter(bootstrap: &Bootstrap) -> Result<Value> {
    bootstrap.at(&format!("{CONNECTION_MANAGER}{FILTER}/typed_config/dynamic_module_config")).cloned()
}

/// Adds a route for each path, with its configuration.
fn with_routes(
    bootstrap: &Bootstrap,
    module: &Value,
    name_field: &str,
    routes: &[(&str, &Value)],
) -> Result<Bootstrap> {
    let route = |path: &str, own: &Value| {
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
            "dynamic_module_config": module,
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": own.to_string()},
        });
        config[name_field] = json!("spiffe_authz");
        json!({"match": {"prefix": path}, "route": {"cluster": "httpbin"}, "typed_per_filter_config": {"spiffe-authz": config}})
    };
    let mut list: Vec<Value> = routes.iter().map(|(path, own)| route(path, own)).collect();
    list.push(json!({"match": {"prefix": "/"}, "route": {"cluster": "httpbin"}}));
    bootstrap.clone().set(&format!("{CONNECTION_MANAGER}{ROUTES}"), json!(list))
}

#[test]
fn a_route_can_have_a_document_or_shadow_mode() -> Result<()> {
    let own = json!({"configuration": {"trustDomain": "example.org", "policies": [{
        "name": "curl-only", "rules": [{"from": [{"source": {"principals": ["*/sa/curl"]}}]}]
    }]}});
    let shadow = json!({"mode": "shadow"});
    let both = json!({"mode": "shadow", "configuration": own["configuration"]});
    for (release, field) in [
        (tools::ENVOY, "filter_name"),
        (tools::PREVIOUS_ENVOY, "per_route_config_name"),
        (tools::OLDEST_ENVOY, "per_route_config_name"),
    ] {
        let (fixture, bootstrap) = fixture()?;
        // In older releases, routes name a module, which Envoy looks up in a directory. Envoy recognizes the same file.
        symlink(tools::path(tools::MODULE)?, fixture.scratch.join("libspiffe_authz.so"))?;
        let module = if release == tools::ENVOY { of_filter(&bootstrap)? } else { json!({"name": "spiffe_authz"}) };
        let bootstrap =
            with_routes(&bootstrap, &module, field, &[("/own", &own), ("/shadow", &shadow), ("/both", &both)])?;
        let start = Start { program: tools::path(release)?, ..Start::tested("routes")? };
        let envoy = Envoy::start(&start, &bootstrap, fixture.scratch.path())?;
        let leaf = |id: &str| fixture.local.sign(&spiffe_authz_integration::authority::Shape::svid(id));
        let mut sleep = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        let mut curl = fixture.leaf("default", "curl")?.connect(envoy.address()?)?;
        // A caller without an accepted identity is denied on every route.
        let mut malformed = leaf("spiffe://example.org/workload")?.connect(envoy.address()?)?;
        let expected =
            [("/", 200, 403, 403), ("/own", 403, 200, 403), ("/shadow", 200, 200, 403), ("/both", 200, 200, 403)];
        for (path, of_sleep, of_curl, of_malformed) in expected {
            let found = (sleep.get(path)?.status, curl.get(path)?.status, malformed.get(path)?.status);
            assert_eq!(found, (of_sleep, of_curl, of_malformed), "{release} {path}");
        }
        let log = envoy.access_log_of(12)?;
        assert_eq!(log[4]["decision"], "allow curl-only 0", "{}", log[4]);
        assert_eq!(log[7]["decision"], "allow", "no policy is enforced in shadow mode");
        assert_eq!(log[8]["decision"], "deny wrong-pattern");
        let shadow =
            |verdict, reason, policy| envoy.stat(&Adapter::Module.counter(["shadow", verdict, reason, policy]));
        assert_eq!(shadow("deny", "no-policy-allows", "none")?, Some(2), "curl on /shadow, sleep on /both");
        assert_eq!(shadow("allow", "none", "curl-only")?, Some(1), "curl on /both");
    }
    Ok(())
}

/// Filter state of the connection would keep showing the caller of the first request.
#[test]
fn a_route_with_another_source_of_identities_shows_its_own_callers() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let own = json!({"configuration": {
        "trustDomain": "example.org", "identity": {"from": "xfcc", "trustedProxies": ["example.org/ns/edge/sa/gateway"]},
        "policies": [],
    }});
    let bootstrap = with_routes(&bootstrap, &of_filter(&bootstrap)?, "filter_name", &[("/own", &own)])?
        .set(&format!("{CONNECTION_MANAGER}/forward_client_cert_details"), json!("FORWARD_ONLY"))?;
    let envoy = Envoy::start(&Start::tested("sources")?, &bootstrap, fixture.scratch.path())?;
    let mut gateway = fixture.leaf("edge", "gateway")?.connect(envoy.address()?)?;
    let [proxy, sleep] = ["edge/sa/gateway", "default/sa/sleep"].map(|name| format!("spiffe://example.org/ns/{name}"));
    let forwarded = format!("x-forwarded-client-cert: URI={sleep}");
    for path in ["/", "/own", "/"] {
        gateway.request("GET", path, &[forwarded.as_bytes()])?;
    }
    let peers: Vec<Value> = envoy.access_log_of(3)?.into_iter().map(|line| line["peer"].clone()).collect();
    assert_eq!(peers, [json!(proxy), json!(sleep), json!(proxy)]);
    Ok(())
}

#[test]
fn a_route_with_errors_is_rejected_with_every_error() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let policies = json!([{"name": "a", "rules": [{"when": []}]}]);
    for (own, mistakes) in [
        (json!({"mode": "off"}), vec!["/mode: invalid-value: "]),
        (json!({"disabled": true}), vec!["/disabled: unknown-field: "]),
        (json!({}), vec!["/: empty: "]),
        (
            json!({"mode": "shadow", "identity": "none", "configuration": {"trustDomain": "X", "policies": policies}}),
            vec![
                "/identity: unknown-field: ",
                "/configuration/trustDomain: invalid-value: ",
                "/configuration/policies/0/rules/0/when: empty: ",
            ],
        ),
    ] {
        let bootstrap = with_routes(&bootstrap, &of_filter(&bootstrap)?, "filter_name", &[("/own", &own)])?;
        let log = Envoy::rejected(&Start::tested("routes")?, &bootstrap, fixture.scratch.path())?;
        for mistake in mistakes {
            assert!(log.contains(&format!("spiffe-authz: {mistake}")), "expected `{mistake}` in:\n{log}");
        }
    }
    Ok(())
}

#[test]
fn a_route_of_another_module_is_denied() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let copy = fixture.scratch.join("copy.so");
    fs::copy(tools::path(tools::MODULE)?, &copy)?;
    let module = json!({"module": {"local": {"filename": copy}}});
    let bootstrap = with_routes(&bootstrap, &module, "filter_name", &[("/own", &json!({"mode": "shadow"}))])?;
    let envoy = Envoy::start(&Start::tested("copy")?, &bootstrap, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    assert_eq!((client.get("/")?.status, client.get("/own")?.status), (200, 403));
    assert_eq!(envoy.access_log_of(2)?[1]["details"], "spiffe_authz_denied[not-configured]");
    Ok(())
}

#[test]
fn an_unknown_filter_name_is_rejected() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let bootstrap =
        bootstrap.set(&format!("{CONNECTION_MANAGER}{FILTER}/typed_config/filter_name"), json!("spiffe"))?;
    let log = Envoy::rejected(&Start::tested("name")?, &bootstrap, fixture.scratch.path())?;
    assert!(log.contains("spiffe-authz: unknown filter `spiffe` (use `spiffe_authz`)"), "{log}");
    Ok(())
}

#[test]
fn other_filters_can_match_the_facts() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let mut document = document();
    document["outputs"] = json!({"decision": "facts"});
    let bootstrap = bootstrap.configuration(&document.to_string())?;
    let sleep = "spiffe://example.org/ns/default/sa/sleep";
    let by_state = json!({"filter_state": {"key": "spiffe_authz_peer", "string_match": {"exact": sleep}}});
    let metadata = |key: &str, value: &str| {
        json!({"sourced_metadata": {"metadata_matcher": {
            "filter": "spiffe_authz", "path": [{"key": key}], "value": {"string_match": {"exact": value}}
        }}})
    };
    let rbac = |name: &str, path: &str, principals: Value| {
        let elsewhere = json!({"not_rule": {"url_path": {"path": {"prefix": path}}}});
        let policies = json!({
            "here": {"permissions": [{"any": true}], "principals": principals},
            "elsewhere": {"permissions": [elsewhere], "principals": [{"any": true}]},
        });
        json!({"name": name, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": policies},
        }})
    };
    let all = ["trust_domain", "namespace", "service_account", "verdict", "policy", "rule"]
        .into_iter()
        .zip(["example.org", "default", "sleep", "allow", "default/sleep-reads", "0"])
        .map(|(key, value)| metadata(key, value))
        .collect::<Vec<_>>();
    let filters = format!("{CONNECTION_MANAGER}/http_filters");
    let mut list = bootstrap.at(&filters)?.as_array().context("no filters")?.clone();
    list.splice(
        1..1,
        [
            rbac("state", "/state", json!([by_state])),
            rbac("not-state", "/not-state", json!([{"not_id": by_state}])),
            rbac("metadata", "/metadata", json!([{"and_ids": {"ids": all}}])),
            rbac("other", "/other", json!([metadata("service_account", "curl")])),
        ],
    );
    let envoy =
        Envoy::start(&Start::tested("rbac")?, &bootstrap.clone().set(&filters, json!(list))?, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    for (path, status) in [("/state", 200), ("/not-state", 403), ("/metadata", 200), ("/other", 403)] {
        assert_eq!(client.get(path)?.status, status, "{path}");
    }
    Ok(())
}

#[test]
fn a_missing_certificate_is_denied() -> Result<()> {
    let state = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/on_downstream_tls_handshake";
    for peer in ["required", "optional"] {
        let (fixture, bootstrap) = fixture()?;
        let mut document = document();
        document["identity"] = json!({"peer": peer});
        document["policies"] = json!([{"name": "all", "rules": [{}]}]);
        let bootstrap = bootstrap.configuration(&document.to_string())?.set(state, json!([]))?;
        let envoy = Envoy::start(&Start::tested("state")?, &bootstrap, fixture.scratch.path())?;
        let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        assert_eq!(client.get("/")?.status, 403);
        assert_eq!(envoy.access_log_of(1)?[0]["decision"], "deny peer-certificate-unreadable", "{peer}");
    }
    Ok(())
}

#[test]
fn a_panic_denies_only_its_request() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let [ours, panicking] = [tools::MODULE, tools::PANICKING_MODULE].map(tools::path);
    let bootstrap = bootstrap.text(&ours?.to_string_lossy(), &panicking?.to_string_lossy())?;
    let envoy = Envoy::start(&Start::tested("panic")?, &bootstrap, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    for _ in 0..100 {
        assert_eq!(client.get("/")?.status, 200);
        let response = client.request("GET", "/", &[b"x-spiffe-authz-panic: please"])?;
        assert_eq!((response.status, response.text().as_str()), (403, "spiffe-authz: access denied"));
    }
    let log = envoy.access_log_of(200)?;
    assert_eq!(log[199]["details"], "spiffe_authz_denied[filter-failed]");
    assert!(envoy.log()?.contains("spiffe-authz: the module panicked"), "{}", envoy.log()?);
    Ok(())
}

#[test]
fn a_module_with_a_new_path_replaces_the_old_one() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let module = tools::path(tools::MODULE)?;
    let copies = ["first.so", "second.so"].map(|name| fixture.scratch.join(name));
    for copy in &copies {
        fs::copy(&module, copy)?;
    }
    let at = |path: &Path| bootstrap.clone().text(&module.to_string_lossy(), &path.to_string_lossy());
    let (first, content) = at(&copies[0])?.watched_filter(&fixture.scratch.join("filter.json"))?;
    fixture.scratch.write("filter.json", &content)?;
    let mut envoy = Envoy::start(&Start::tested("reload")?, &first, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    assert_eq!(client.get("/")?.status, 200);

    let second = at(&copies[1])?
        .configuration(&json!({"trustDomain": "example.org", "policies": [{"name": "none"}]}).to_string())?;
    fixture.scratch.write("filter.json", &second.filter_file()?)?;
    wait::until("the new module applies to the old connection", LIMIT, || {
        Ok((client.get("/")?.status == 403).then_some(()))
    })?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", envoy.process().id()))?;
    assert!(maps.contains("second.so"), "{maps}");
    Ok(())
}

#[test]
fn validation_by_envoy_can_be_required() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let mut document = document();
    document["identity"] = json!({"requireValidated": true});
    let bootstrap = bootstrap.configuration(&document.to_string())?;
    for (name, bootstrap, status) in [("without", bootstrap.clone(), 403), ("with", bootstrap.with_validity()?, 200)] {
        let envoy = Envoy::start(&Start::tested(name)?, &bootstrap, fixture.scratch.path())?;
        let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        assert_eq!(client.get("/")?.status, status, "{name}");
        let allowed = status == 200;
        let decision = if allowed { "allow default/sleep-reads 0" } else { "deny peer-certificate-not-validated" };
        assert_eq!(envoy.access_log_of(1)?[0]["decision"], decision);
    }
    Ok(())
}

#[test]
fn identities_from_hbone_or_a_trusted_proxy() -> Result<()> {
    let (fixture, bootstrap) = fixture()?;
    let sleep = "spiffe://example.org/ns/default/sa/sleep";
    let with = |identity: Value| {
        let mut document = document();
        document["identity"] = identity;
        bootstrap.clone().configuration(&document.to_string())
    };
    let states = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/on_new_connection";
    let tunnel = |principal: &str| {
        let state = json!({
            "object_key": "io.istio.peer_principal", "factory_key": "envoy.hashable_string",
            "format_string": {"text_format_source": {"inline_string": principal}}
        });
        with(json!({"from": "peerPrincipal"}))?.set(states, json!([state]))
    };
    let xfcc = with(json!({"from": "xfcc", "trustedProxies": ["example.org/ns/edge/sa/gateway"]}))?
        .set(&format!("{CONNECTION_MANAGER}/forward_client_cert_details"), json!("FORWARD_ONLY"))?;
    let header = format!("x-forwarded-client-cert: URI={sleep}");
    let headers: &[&[u8]] = &[header.as_bytes()];
    for (name, bootstrap, headers, decision) in [
        ("tunnel", tunnel(sleep)?, &[][..], "allow default/sleep-reads 0"),
        ("stranger", tunnel("spiffe://example.org/ns/other/sa/stranger")?, &[], "deny no-policy-allows"),
        ("no-tunnel", with(json!({"from": "peerPrincipal"}))?, &[], "deny peer-principal-missing"),
        ("proxy", xfcc, headers, "allow default/sleep-reads 0"),
    ] {
        let envoy = Envoy::start(&Start::tested(name)?, &bootstrap, fixture.scratch.path())?;
        let mut gateway = fixture.leaf("edge", "gateway")?.connect(envoy.address()?)?;
        let status = gateway.request("GET", "/", headers)?.status;
        let line = &envoy.access_log_of(1)?[0];
        let expected = if decision.starts_with("allow") { 200 } else { 403 };
        assert_eq!((status, line["decision"].as_str()), (expected, Some(decision)), "{name}: {line}");
    }
    Ok(())
}

#[test]
fn memory_stays_flat() -> Result<()> {
    memory::measure(memory::Amounts { connections: 1500, reloads: 60 })?.check()
}
