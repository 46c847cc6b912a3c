//! Findings about handshakes, requests and filters, whose cause is a listener.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONFIGURATION, CONNECTION_MANAGER, TLS, WASM};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::token::TokenKey;
use spiffe_authz_integration::tools;

use crate::support::{LISTENER, Listeners, PATIENCE, any_path, at, document, filter, healthy, run, set, wait_for};

#[test]
fn listeners_are_distinguished() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let bootstrap = healthy(&fixture)?;
    let mut listeners = Listeners::of(&bootstrap)?;
    listeners.add("healthy", &[])?;
    add_handshake(&mut listeners)?;
    add_request(&mut listeners)?;
    add_tokens(&mut listeners, &bootstrap)?;
    add_bypasses(&mut listeners, &bootstrap)?;
    add_identity(&mut listeners)?;
    add_filter(&mut listeners, &bootstrap)?;
    add_discovered(&mut listeners, &fixture.scratch)?;
    let bootstrap = listeners.into(bootstrap)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let wanted: &[(&str, &[&str])] = &[
        ("plain", &["plain-text"]),
        ("optional", &["client-certificate-optional"]),
        ("resumption", &["session-resumption"]),
        ("paths", &["path-not-normalized", "slashes-not-merged", "escaped-slashes-kept"]),
        ("address", &["source-address-missing"]),
        ("sni", &["server-name-missing"]),
        ("token", &["token-missing"]),
        ("token-late", &["token-missing"]),
        ("upgrade", &["upgrade-unguarded"]),
        ("upgrade-order", &["acts-before-filter"]),
        ("remote-address", &["remote-address-untrusted"]),
        ("path-parameters", &["path-parameters-ignored"]),
        ("principal", &["peer-principal-not-hashable"]),
        ("xfcc-kept", &["xfcc-forwarded"]),
        ("xfcc-of-some", &["xfcc-forwarded"]),
        ("xfcc-removed", &["xfcc-not-forwarded"]),
        ("no-hbone", &["peer-principal-missing"]),
        ("not-fetched", &["filter-not-loaded"]),
        ("not-fetched-open", &["filter-not-loaded", "filter-fail-open"]),
        ("fail-open", &["filter-fail-open"]),
        ("stays-down", &["filter-stays-down"]),
        ("skipped", &["filter-optional"]),
        ("disabled", &["filter-disabled"]),
        ("route", &["filter-disabled"]),
        ("order", &["acts-before-filter"]),
        ("unguarded", &["listener-unguarded"]),
        ("tcp", &["tcp-unguarded"]),
        // The example has no federated trust domains.
        ("tcp-guarded", &["bundle-unnamed"]),
        ("awaited", &["filter-not-loaded"]),
        ("allow", &["filter-not-loaded", "filter-fail-open"]),
        ("deny", &["filter-not-loaded"]),
        // Envoy rejects a response from a file if it does not contain the filter.
        ("-", &["updates-rejected"]),
    ];
    let answer = wait_for(&envoy, fixture.scratch.path(), wanted)?;
    assert_eq!(answer.status, Some(3));
    let admin = envoy.admin_address().to_string();
    assert_eq!(run(&[&admin, "--fail-level", "never"])?.0, Some(0));
    let (_, text) = run(&[&admin])?;
    assert!(text.contains("warning  session-resumption: stateless resumption is on [listener resumption, "), "{text}");
    Ok(())
}

#[test]
fn a_module_needs_the_certificate_and_its_routes_are_read() -> Result<()> {
    let fixture = Fixture::new(Adapter::Module, Validation::Spiffe)?;
    let bootstrap = healthy(&fixture)?;
    let mut listeners = Listeners::of(&bootstrap)?;
    listeners.add("healthy", &[])?;
    listeners
        .add("kept-back", &[(&at(&network_filter(0), "typed_config/on_downstream_tls_handshake"), json!(null))])?;
    let module = bootstrap.at(&filter("/typed_config/dynamic_module_config"))?.clone();
    for (name, own) in [
        ("route-enforced", json!({"mode": "enforce"})),
        ("route-shadow", json!({"mode": "shadow"})),
        ("route-document", json!({"configuration": document(&[], &any_path())})),
    ] {
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
            "dynamic_module_config": module, "filter_name": "spiffe_authz",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": own.to_string()},
        });
        let route = manager("route_config/virtual_hosts/0/routes/0/typed_per_filter_config");
        listeners.add(name, &[(&route, json!({"spiffe-authz": config}))])?;
    }
    let bootstrap = listeners.into(bootstrap)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let wanted: &[(&str, &[&str])] = &[
        ("kept-back", &["peer-certificate-missing"]),
        ("route-shadow", &["route-shadow"]),
        // The document of the route does not name `example.io`.
        ("route-document", &["bundle-unnamed"]),
    ];
    let answer = wait_for(&envoy, fixture.scratch.path(), wanted)?;
    assert_eq!(answer.status, Some(3));
    Ok(())
}

fn manager(name: &str) -> String {
    at(CONNECTION_MANAGER, name)
}

/// The JSON pointer of the network filter at this position.
fn network_filter(position: usize) -> String {
    at(LISTENER, &format!("filter_chains/0/filters/{position}"))
}

/// Returns a document with this rule, as a string.
fn rule(rule: &Value) -> Value {
    json!(document(&["example.io"], rule).to_string())
}

fn add_handshake(listeners: &mut Listeners) -> Result<()> {
    let require = at(TLS, "require_client_certificate");
    listeners.add("plain", &[(&at(LISTENER, "filter_chains/0/transport_socket"), json!(null))])?;
    listeners.add("optional", &[(&require, json!(false))])?;
    let mut document = document(&["example.io"], &any_path());
    document["identity"] = json!({"peer": "optional"});
    let meant_so = (CONFIGURATION, json!(document.to_string()));
    listeners.add("meant-so", &[(&require, json!(false)), meant_so])?;
    listeners.add("resumption", &[(&at(TLS, "disable_stateless_session_resumption"), json!(null))])
}

fn add_request(listeners: &mut Listeners) -> Result<()> {
    let paths = ["normalize_path", "merge_slashes", "path_with_escaped_slashes_action"].map(manager);
    let mut paths: Vec<_> = paths.iter().map(|pointer| (pointer.as_str(), json!(null))).collect();
    listeners.add("paths", &paths)?;
    paths.push((CONFIGURATION, rule(&json!({"to": [{"operation": {"methods": ["GET"]}}]}))));
    listeners.add("no-paths", &paths)?;
    let addresses = (CONFIGURATION, rule(&json!({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]})));
    listeners.add("address-kept", std::slice::from_ref(&addresses))?;
    listeners.add("address", &[addresses, (&network_filter(0), json!(null))])?;
    let server_name = (CONFIGURATION, rule(&json!({"when": [{"key": "connection.sni", "values": ["a.example"]}]})));
    listeners.add("sni-read", std::slice::from_ref(&server_name))?;
    listeners.add("sni", &[server_name, (&at(LISTENER, "listener_filters"), json!(null))])
}

/// Listeners whose policies use tokens.
fn add_tokens(listeners: &mut Listeners, bootstrap: &Bootstrap) -> Result<()> {
    let rule = rule(&json!({"from": [{"source": {"requestPrincipals": ["*"]}}]}));
    let filters = bootstrap.at(&manager("http_filters"))?.as_array().cloned().context("a list")?;
    let [own, router] = filters.as_slice() else { anyhow::bail!("expected two filters") };
    let mut own = own.clone();
    set(&mut own, CONFIGURATION.strip_prefix(&filter("")).context("in the filter")?, rule)?;
    let verifier = TokenKey::new()?.filter(&["https://issuer.example"]);
    for (name, filters) in [
        ("token", json!([own, router])),
        ("token-late", json!([own, verifier, router])),
        ("token-verified", json!([verifier, own, router])),
    ] {
        listeners.add(name, &[(&manager("http_filters"), filters)])?;
    }
    Ok(())
}

/// Listeners where callers bypass the filter or choose what it evaluates, each with its safe form.
fn add_bypasses(listeners: &mut Listeners, bootstrap: &Bootstrap) -> Result<()> {
    let filters = bootstrap.at(&manager("http_filters"))?.as_array().cloned().context("a list")?;
    let (own, router) = (filters.first().context("the filter")?, filters.last().context("the router")?);
    let upgrades = manager("upgrade_configs");
    for (name, filters) in [
        ("upgrade-through", json!([])),
        ("upgrade-guarded", json!([own, router])),
        ("upgrade-order", json!([lua(), own, router])),
        ("upgrade", json!([router])),
    ] {
        listeners.add(name, &[(&upgrades, json!([{"upgrade_type": "websocket", "filters": filters}]))])?;
    }

    let remote = rule(&json!({"from": [{"source": {"notRemoteIpBlocks": ["10.0.0.0/8"]}}]}));
    for (name, known) in [("remote-address", false), ("remote-address-known", true)] {
        listeners.add(name, &[(CONFIGURATION, remote.clone()), (&manager("use_remote_address"), json!(known))])?;
    }
    let parameters = manager("route_config/ignore_path_parameters_in_path_matching");
    listeners.add("path-parameters", &[(&parameters, json!(true))])?;

    let handshake = at(&network_filter(0), "typed_config/on_downstream_tls_handshake");
    for (name, factory) in [("principal", "envoy.string"), ("principal-hashable", "envoy.hashable_string")] {
        let state = json!([{
            "object_key": "io.istio.peer_principal", "factory_key": factory, "shared_with_upstream": "ONCE",
            "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_PEER_URI_SAN%"}}
        }]);
        listeners.add(name, &[(&handshake, state)])?;
    }
    Ok(())
}

/// Listeners with different sources of the caller's identity, each with its correct form.
fn add_identity(listeners: &mut Listeners) -> Result<()> {
    let details = manager("forward_client_cert_details");
    listeners.add("xfcc-kept", &[(&details, json!("ALWAYS_FORWARD_ONLY"))])?;
    let mut from_xfcc = document(&["example.io"], &any_path());
    from_xfcc["identity"] = json!({"from": "xfcc", "trustedProxies": ["example.org/ns/edge/sa/gateway"]});
    let from_xfcc = (CONFIGURATION, json!(from_xfcc.to_string()));
    listeners.add("xfcc-removed", &[from_xfcc.clone(), (&details, json!("SANITIZE"))])?;
    listeners.add("xfcc-forwarded", &[from_xfcc.clone(), (&details, json!("FORWARD_ONLY"))])?;
    // The requests of a proxy, by the SPIFFE ID in its certificate.
    let matcher = json!({"matcher_list": {"matchers": [{
        "predicate": {"single_predicate": {
            "input": {"name": "uri", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput"
            }},
            "value_match": {"exact": "spiffe://example.org/ns/edge/sa/gateway"}
        }},
        "on_match": {"action": {"name": "forward", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig",
            "forward_client_cert_details": "FORWARD_ONLY"
        }}}
    }]}});
    let matcher = (&*manager("forward_client_cert_matcher"), matcher);
    listeners.add("xfcc-selected", &[from_xfcc, (&details, json!("SANITIZE")), matcher.clone()])?;
    listeners.add("xfcc-of-some", &[matcher])?;
    let mut from_hbone = document(&["example.io"], &any_path());
    from_hbone["identity"] = json!({"from": "peerPrincipal"});
    listeners.add("no-hbone", &[(CONFIGURATION, json!(from_hbone.to_string()))])
}

fn lua() -> Value {
    json!({"name": "lua", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": "function envoy_on_request(handle) end"}
    }})
}

fn add_filter(listeners: &mut Listeners, bootstrap: &Bootstrap) -> Result<()> {
    let failure = filter("/typed_config/config/failure_policy");
    listeners.add("fail-open", &[(&failure, json!("FAIL_OPEN"))])?;
    listeners.add("stays-down", &[(&failure, json!(null))])?;
    listeners.add("disabled", &[(&filter("/disabled"), json!(true))])?;
    // The workload does not have this file.
    let remote = json!({"remote": {
        "http_uri": {"uri": "http://httpbin/filter.wasm", "cluster": "httpbin", "timeout": "1s"},
        "sha256": "0".repeat(64), "retry_policy": {"num_retries": 0}
    }});
    let code = filter("/typed_config/config/vm_config/code");
    listeners.add("not-fetched", &[(&code, remote.clone())])?;
    listeners.add("not-fetched-open", &[(&code, remote), (&failure, json!("FAIL_OPEN"))])?;
    listeners.add("skipped", &[(&filter("/is_optional"), json!(true))])?;
    let off = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
    let route = manager("route_config/virtual_hosts/0/routes/0/typed_per_filter_config");
    listeners.add("route", &[(&route, json!({"spiffe-authz": off}))])?;
    let mut filters = vec![lua()];
    filters.extend(bootstrap.at(&manager("http_filters"))?.as_array().cloned().context("a list")?);
    listeners.add("order", &[(&manager("http_filters"), json!(filters))])?;
    listeners.add("unguarded", &[(&filter(""), json!(null))])?;
    listeners.add("tcp", &[(&network_filter(1), tcp_proxy())])?;
    // The same on TCP, with the network filter.
    let wasm = tools::path(tools::WASM)?;
    let guarded =
        Bootstrap::example("tcp/envoy.yaml")?.text(WASM, &wasm.to_string_lossy())?.text("database", "httpbin")?;
    let filters = at(LISTENER, "filter_chains/0/filters");
    listeners.add("tcp-guarded", &[(&filters, guarded.at(&filters)?.clone())])
}

fn add_discovered(listeners: &mut Listeners, scratch: &Scratch) -> Result<()> {
    listeners.add("awaited", &[(&filter(""), discovered(scratch, "awaited", &json!([]))?)])?;
    for policy in ["allow", "deny"] {
        let replacement = json!([{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": format!("{policy}.spiffe-authz"),
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules_stat_prefix": format!("wasm-default-{policy}")
            }
        }]);
        listeners.add(policy, &[(&filter(""), discovered(scratch, policy, &replacement)?)])?;
    }
    Ok(())
}

fn tcp_proxy() -> Value {
    json!({"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "httpbin"
    }})
}

/// One listener with many filter chains, some of them in plain text, and a filter with an arbitrary name through ECDS.
#[test]
fn a_listener_generated_by_istio_is_understood() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let bootstrap = healthy(&fixture)?;
    let name = "extensions.istio.io/trafficextension/mesh.policies";
    let mut plugin = bootstrap.at(&filter(""))?.clone();
    plugin["name"] = json!(name);
    plugin["typed_config"]["config"]["name"] = json!("mesh.policies");
    plugin["@type"] = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
    let mut place = discovered(&fixture.scratch, "plugin", &json!([plugin]))?;
    place["name"] = json!(name);

    let mut http = bootstrap.at(&at(LISTENER, "filter_chains/0"))?.clone();
    set(&mut http, "/filters/1/typed_config/http_filters/0", place)?;
    let tcp = json!([tcp_proxy()]);
    let chain = |name: &str, port: u16, kind: &str, filters: &Value| {
        let mut chain = http.clone();
        chain["name"] = json!(name);
        chain["filter_chain_match"] = json!({"destination_port": port, "transport_protocol": kind});
        chain["filters"] = filters.clone();
        if kind != "tls" {
            chain.as_object_mut().map(|fields| fields.remove("transport_socket"));
        }
        chain
    };
    let chains = json!([
        chain("0.0.0.0_80", 80, "tls", &http["filters"]),
        chain("0.0.0.0_80-plain", 80, "raw_buffer", &http["filters"]),
        chain("catchall", 81, "tls", &tcp),
        chain("blackhole", 81, "raw_buffer", &tcp),
    ]);
    let bootstrap =
        bootstrap.set(&at(LISTENER, "name"), json!("virtualInbound"))?.set(&at(LISTENER, "filter_chains"), chains)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let wanted: &[&str] = &["plain-text", "tcp-unguarded"];
    let answer = wait_for(&envoy, fixture.scratch.path(), &[("virtualInbound", wanted)])?;
    for finding in answer.report["findings"].as_array().context("a list")? {
        let chain = if finding["code"] == "plain-text" { "0.0.0.0_80-plain" } else { "catchall" };
        let place = json!({
            "listener": "virtualInbound", "filterChain": chain, "upgrade": null, "route": null, "cluster": null,
            "secret": null
        });
        assert_eq!(finding["places"], json!([place]), "{finding}");
    }
    assert!(answer.report["fine"].to_string().contains(name), "{}", answer.report["fine"]);
    Ok(())
}

/// Returns a filter that comes from a file with these resources through ECDS.
fn discovered(scratch: &Scratch, name: &str, resources: &Value) -> Result<Value> {
    let file = scratch.write(&format!("{name}.json"), &json!({"resources": resources}).to_string())?;
    let kinds = ["wasm.v3.Wasm", "rbac.v3.RBAC"]
        .map(|kind| format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
    let source =
        json!({"path_config_source": {"path": file}, "resource_api_version": "V3", "initial_fetch_timeout": PATIENCE});
    Ok(
        json!({"name": format!("{name}.spiffe-authz"), "config_discovery": {"config_source": source, "type_urls": kinds}}),
    )
}
