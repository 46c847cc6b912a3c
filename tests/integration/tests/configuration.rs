//! Configurations at start and in updates: an invalid one is rejected with every error, and the previous one still
//! applies.

use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONFIGURATION};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::{tools, wait};

spiffe_authz_integration::test_with_each_adapter![
    an_invalid_configuration_is_rejected_at_start_with_every_error,
    an_invalid_listener_update_is_rejected_and_the_previous_one_applies,
    a_policy_update_drops_no_connection,
    every_supported_envoy_enforces_the_example,
];

const LIMIT: Duration = Duration::from_secs(20);

/// Allows GET requests for these paths.
fn document(paths: &[&str]) -> Value {
    json!({
        "trustDomain": "example.org",
        "policies": [{"name": "some", "rules": [{"to": [{"operation": {"methods": ["GET"], "paths": paths}}]}]}]
    })
}

/// A document with three errors in three places.
fn bad_document() -> Value {
    let mut document = document(&["/a"]);
    document["trustDomain"] = json!("EXAMPLE.org");
    document["policies"][0]["rules"][0]["to"][0]["operation"]["method"] = json!(["GET"]);
    document["policies"][0]["rules"][0]["when"] = json!([]);
    document
}

const MISTAKES: [&str; 3] = [
    "spiffe-authz: /trustDomain: invalid-value: ",
    "spiffe-authz: /policies/0/rules/0/to/0/operation/method: unknown-field: ",
    "spiffe-authz: /policies/0/rules/0/when: empty: ",
];

fn an_invalid_configuration_is_rejected_at_start_with_every_error(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let refused = |text: &str| {
        let bootstrap = fixture.bootstrap()?.configuration(text)?;
        Envoy::rejected(&Start::tested("server")?, &bootstrap, fixture.scratch.path())
    };
    let log = refused(&bad_document().to_string())?;
    for mistake in MISTAKES {
        assert!(log.contains(mistake), "expected `{mistake}` in:\n{log}");
    }
    for (text, mistake) in [
        ("", "spiffe-authz: /: syntax: the configuration is empty"),
        ("{", "spiffe-authz: /: syntax: "),
        ("[]", "spiffe-authz: /: wrong-type: "),
        ("{}", "spiffe-authz: /trustDomain: missing-field: "),
    ] {
        let log = refused(text)?;
        assert!(log.contains(mistake), "expected `{mistake}` in:\n{log}");
    }
    Ok(())
}

fn an_invalid_listener_update_is_rejected_and_the_previous_one_applies(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let file = fixture.scratch.join("listeners.json");
    let good = fixture.bootstrap()?.configuration(&document(&["/a"]).to_string())?;
    let (bootstrap, content) = good.clone().watched_listeners(&file)?;
    fixture.scratch.write("listeners.json", &content)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let address = envoy.address()?;
    let mut client = fixture.leaf("default", "sleep")?.connect(address)?;
    assert_eq!(client.get("/a")?.status, 200);

    let bad = good.clone().configuration(&bad_document().to_string())?;
    fixture.scratch.write("listeners.json", &bad.listeners_file()?)?;
    wait_for(&envoy, "listener_manager.lds.update_rejected", 1)?;
    let log = envoy.log()?;
    assert!(MISTAKES.iter().all(|mistake| log.contains(mistake)), "{log}");
    assert_eq!(client.get("/a")?.status, 200, "on the old connection");
    let mut fresh = fixture.leaf("default", "sleep")?.connect(address)?;
    assert_eq!((fresh.get("/a")?.status, fresh.get("/b")?.status), (200, 403), "on a new connection");

    // Envoy accepts a later valid update. The port must stay the same, because the update replaces the listener.
    let better = good.configuration(&document(&["/b"]).to_string())?;
    fixture.scratch.write("listeners.json", &better.listeners_file()?)?;
    wait_for(&envoy, "listener_manager.lds.update_success", 2)?;
    wait::until("the new policy applies", LIMIT, || {
        let mut fresh = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        Ok((fresh.get("/b")?.status == 200 && fresh.get("/a")?.status == 403).then_some(()))
    })
}

fn a_policy_update_drops_no_connection(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let file = fixture.scratch.join("filter.json");
    let before = fixture.bootstrap()?.configuration(&document(&["/a"]).to_string())?;
    let (bootstrap, content) = before.clone().watched_filter(&file)?;
    fixture.scratch.write("filter.json", &content)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    assert_eq!((client.get("/a")?.status, client.get("/b")?.status), (200, 403));

    let update = |document: &Value| -> Result<()> {
        let bootstrap = before.clone().configuration(&document.to_string())?;
        fixture.scratch.write("filter.json", &bootstrap.filter_file()?).map(|_| ())
    };
    update(&document(&["/b"]))?;
    wait::until("the new policy applies to the old connection", LIMIT, || {
        let (a, b) = (client.get("/a")?.status, client.get("/b")?.status);
        assert!(matches!((a, b), (200 | 403, 200 | 403)), "{a} {b}");
        Ok(((a, b) == (403, 200)).then_some(()))
    })?;

    update(&bad_document())?;
    wait::until("the invalid policy is rejected", LIMIT, || {
        assert_eq!(client.get("/b")?.status, 200);
        let log = envoy.log()?;
        Ok(MISTAKES.iter().all(|mistake| log.contains(mistake)).then_some(()))
    })?;
    for _ in 0..50 {
        assert_eq!((client.get("/a")?.status, client.get("/b")?.status), (403, 200));
    }
    let log = envoy.access_log_of(4)?;
    assert!(log.iter().all(|line| line["peer"] == "spiffe://example.org/ns/default/sa/sleep"), "{log:?}");
    assert_eq!(envoy.stat("http.inbound.downstream_cx_total")?, Some(1));
    Ok(())
}

fn every_supported_envoy_enforces_the_example(adapter: Adapter) -> Result<()> {
    for release in [tools::ENVOY, tools::PREVIOUS_ENVOY, tools::OLDEST_ENVOY] {
        let fixture = Fixture::new(adapter, Validation::Spiffe)?;
        let start = Start { program: tools::path(release)?, ..Start::tested("server")? };
        let envoy = Envoy::start(&start, &fixture.bootstrap()?, fixture.scratch.path())?;
        let mut sleep = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
        let mut stranger = fixture.leaf("other", "stranger")?.connect(envoy.address()?)?;
        assert_eq!((sleep.get("/public/news")?.status, stranger.get("/public/news")?.status), (200, 403), "{release}");
        let log = envoy.access_log_of(2)?;
        assert_eq!(log[0]["peer"], "spiffe://example.org/ns/default/sa/sleep", "{release}");
        assert_eq!(log[0]["decision"], "allow default/sleep-reads 0", "{release}");
        assert_eq!(log[1]["decision"], "deny no-policy-allows", "{release}");
        assert_eq!(log[1]["details"], "spiffe_authz_denied[no-policy-allows]", "{release}");
        let name = adapter.counter(["enforce", "deny", "no-policy-allows", "none"]);
        assert_eq!(envoy.stat(&name)?, Some(1), "{release}");
    }
    Ok(())
}

/// A DENY policy for one caller, and an ALLOW policy for every caller.
fn all_but_stranger(fixture: &Fixture) -> Result<Bootstrap> {
    let document = json!({
        "trustDomain": "example.org", "identity": {"peer": "optional"},
        "policies": [
            {"name": "stranger", "action": "DENY", "rules": [
                {"from": [{"source": {"principals": ["example.org/ns/other/sa/stranger"]}}]}
            ]},
            {"name": "everyone", "rules": [{}]}
        ]
    });
    fixture.bootstrap()?.configuration(&document.to_string())
}

/// Envoy 1.37 does not expose the certificate to Wasm filters. With `peer: optional`, the filter must not treat such a
/// caller as anonymous, because then no DENY policy for its identity would match.
#[test]
fn an_envoy_that_does_not_expose_certificates_allows_no_one() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let unreadable = ("403", "deny peer-certificate-unreadable");
    for (release, stranger, sleep) in [
        (tools::UNSUPPORTED_ENVOY, unreadable, unreadable),
        // The control: a release that exposes the certificate.
        (tools::OLDEST_ENVOY, ("403", "deny denied-by-policy stranger 0"), ("200", "allow everyone 0")),
    ] {
        let start = Start { program: tools::path(release)?, ..Start::tested(release)? };
        let envoy = Envoy::start(&start, &all_but_stranger(&fixture)?, fixture.scratch.path())?;
        for (count, (namespace, account, expected)) in
            (1..).zip([("other", "stranger", stranger), ("default", "sleep", sleep)])
        {
            let status = fixture.leaf(namespace, account)?.connect(envoy.address()?)?.get("/x")?.status.to_string();
            let line = envoy.access_log_of(count)?.pop().context("no line")?;
            assert_eq!((&*status, line["decision"].as_str().unwrap_or_default()), expected, "{release}: {account}");
        }
    }
    Ok(())
}

#[test]
fn an_unsupported_envoy_rejects_the_module() -> Result<()> {
    const MODULE: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/dynamic_module_config";
    let fixture = Fixture::new(Adapter::Module, Validation::Spiffe)?;
    symlink(tools::path(tools::MODULE)?, fixture.scratch.join("libspiffe_authz.so"))?;
    // Releases before 1.38 have no field for a file.
    let bootstrap = all_but_stranger(&fixture)?.set(MODULE, json!({"name": "spiffe_authz"}))?;
    let start = |release| Ok::<_, anyhow::Error>(Start { program: tools::path(release)?, ..Start::tested(release)? });
    let log = Envoy::rejected(&start(tools::UNSUPPORTED_ENVOY)?, &bootstrap, fixture.scratch.path())?;
    assert!(log.contains("Failed to load dynamic module"), "{log}");
    // The control: a supported release finds it by the same name.
    Envoy::start(&start(tools::OLDEST_ENVOY)?, &bootstrap, fixture.scratch.path()).map(|_| ())
}

#[test]
fn the_federated_example_differs_only_in_its_configuration() -> Result<()> {
    let federated = Bootstrap::example("federation/server/envoy.yaml")?;
    let text = federated.at(CONFIGURATION)?.as_str().unwrap_or_default().to_owned();
    let same = Bootstrap::example("server/envoy.yaml")?.configuration(&text)?;
    assert_eq!(federated.to_json(), same.to_json());
    Ok(())
}

#[test]
fn the_module_example_differs_only_in_its_filter() -> Result<()> {
    let value = |bootstrap: &Bootstrap| serde_json::from_str::<Value>(&bootstrap.to_json());
    let adapted = Bootstrap::example(Adapter::Wasm.example())?.with(Adapter::Module)?;
    assert_eq!(value(&adapted)?, value(&Bootstrap::example(Adapter::Module.example())?)?);
    Ok(())
}

#[test]
fn the_command_accepts_the_examples() -> Result<()> {
    const GATEWAY: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";
    const MODULE: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/filter_config/value";
    const TCP: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/filter_config/value";
    let scratch = spiffe_authz_integration::scratch::Scratch::new()?;
    for (name, pointer) in [
        ("server/envoy.yaml", CONFIGURATION),
        ("dynamic-module/envoy.yaml", MODULE),
        ("dynamic-module/tcp.yaml", TCP),
        ("federation/server/envoy.yaml", CONFIGURATION),
        ("federation/gateway/envoy.yaml", GATEWAY),
    ] {
        let example = Bootstrap::example(name)?;
        let file = scratch.write("policy.json", example.at(pointer)?.as_str().unwrap_or_default())?;
        let output = std::process::Command::new(tools::path(tools::COMMAND)?).arg("check").arg(file).output()?;
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

fn wait_for(envoy: &Envoy, stat: &str, at_least: u64) -> Result<()> {
    wait::until(stat, LIMIT, || Ok((envoy.stat(stat)? >= Some(at_least)).then_some(())))
}
