//! The network filter in a real Envoy: which callers can connect, and that no data passes before the decision.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Leaf, Shape, client_config};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER, TCP_PROXY, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::tcp::{Database, First, GREETING, Session, echoes, plain};
use spiffe_authz_integration::{tools, wait};

spiffe_authz_integration::test_with_each_adapter![
    the_example_allows_by_identity_and_server_name,
    callers_of_every_kind,
    a_denied_caller_never_sees_the_greeting,
    an_anonymous_caller_gets_the_greeting_if_policies_allow_it,
    a_policy_update_applies_to_new_connections,
];

const LIMIT: Duration = Duration::from_secs(20);

/// Allows these principals. `peer` is the field of the document.
fn document(principals: &[&str], peer: &str) -> Value {
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "identity": {"peer": peer},
        "policies": [
            {"name": "some", "namespace": "default", "rules": [{"from": [{"source": {"principals": principals}}]}]}
        ],
    })
}

const SLEEP: &str = "example.org/ns/default/sa/sleep";

fn leaf(fixture: &Fixture, principal: &str) -> Result<Leaf> {
    let authority = if principal.starts_with("example.io/") { &fixture.federated } else { &fixture.local };
    authority.sign(&Shape::svid(format!("spiffe://{principal}")))
}

fn connect(fixture: &Fixture, address: SocketAddr, principal: Option<&str>) -> Result<Client> {
    let leaf = principal.map(|principal| leaf(fixture, principal)).transpose()?;
    Client::tls(address, client_config(leaf.as_ref())?)
}

/// The example with this database and document. It does not require a client certificate, so that every caller reaches
/// the filter.
fn lenient(fixture: &Fixture, database: &Database, document: &Value) -> Result<Bootstrap> {
    fixture
        .tcp_bootstrap(database)?
        .tcp_configuration(&document.to_string())?
        .set(&format!("{TLS}/require_client_certificate"), json!(false))
}

fn start(fixture: &Fixture, bootstrap: &Bootstrap) -> Result<Envoy> {
    Envoy::start(&Start::tested("tcp")?, bootstrap, fixture.scratch.path())
}

fn the_example_allows_by_identity_and_server_name(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    for program in [tools::ENVOY, tools::PREVIOUS_ENVOY, tools::OLDEST_ENVOY] {
        let database = Database::start(First::Client)?;
        let start = Start { program: tools::path(program)?, ..Start::tested("example")? };
        let mut bootstrap = fixture.tcp_bootstrap(&database)?;
        if program != tools::ENVOY && adapter == Adapter::Module {
            bootstrap = bootstrap.named_module(fixture.scratch.path())?;
        }
        let envoy = Envoy::start(&start, &bootstrap, fixture.scratch.path())?;
        let address = envoy.address()?;
        let named = |principal: &str, name| -> Result<bool> {
            let config = client_config(Some(&leaf(&fixture, principal)?))?;
            echoes(Client::tls_from([127, 0, 0, 1].into(), address, config, Some(name))?)
        };
        // A connection is logged at its end. Wait for each.
        assert!(named(SLEEP, "db.example.org")?);
        envoy.access_log_of(1)?;
        assert!(!named(SLEEP, "admin.example.org")?);
        envoy.access_log_of(2)?;
        assert!(!named("example.org/ns/other/sa/stranger", "db.example.org")?);
        assert_eq!(database.lines(), 1, "only one of three connections is allowed");
        let log = envoy.access_log_of(3)?;
        assert_eq!(log[0]["decision"], "allow default/sleep-queries 0");
        assert_eq!(log[0]["peer"], json!(format!("spiffe://{SLEEP}")));
        assert_eq!(log[1]["decision"], "deny no-policy-allows");
        assert_eq!(
            (&log[2]["peer"], &log[2]["sent"]),
            (&json!("spiffe://example.org/ns/other/sa/stranger"), &json!(0))
        );
        let count = |values| envoy.stat(&adapter.tcp_counter(values));
        assert_eq!(envoy.stat(adapter.allowed_counter())?, Some(1));
        assert_eq!(count(["enforce", "deny", "no-policy-allows", "none"])?, Some(2));
        assert!(envoy.log()?.contains(r#""event":"deny","mode":"enforce","reason":"no-policy-allows""#));
    }
    Ok(())
}

fn callers_of_every_kind(adapter: Adapter) -> Result<()> {
    // The default validator, because the SPIFFE validator rejects some of the certificates.
    let fixture = Fixture::new(adapter, Validation::Pooled)?;
    let database = Database::start(First::Client)?;
    let mut document = document(&[SLEEP, "example.io/ns/default/sa/sleep"], "required");
    let callers = [
        (Some(SLEEP), true, "allow default/some 0"),
        (Some("example.org/ns/default/sa/curl"), false, "deny no-policy-allows"),
        (Some("example.io/ns/default/sa/sleep"), true, "allow default/some 0"),
        (Some("example.io/ns/default/sa/curl"), false, "deny no-policy-allows"),
        (Some("example.com/ns/default/sa/sleep"), false, "deny foreign-trust-domain"),
        (Some("example.org/workload"), false, "deny wrong-pattern"),
        (None, false, "deny no-peer-certificate"),
    ];
    let envoy = start(&fixture, &lenient(&fixture, &database, &document)?)?;
    for (position, (principal, allowed, decision)) in callers.into_iter().enumerate() {
        assert_eq!(echoes(connect(&fixture, envoy.address()?, principal)?)?, allowed, "{principal:?}");
        // A connection is logged at its end. Wait for each.
        let line = &envoy.access_log_of(position + 1)?[position];
        assert_eq!(line["decision"], decision, "{principal:?}: {line}");
    }
    assert_eq!(database.lines(), 2);

    // Without TLS, every caller is anonymous and denied, unless the document allows anonymous callers.
    let without_tls = |document: &Value| -> Result<Envoy> {
        let bootstrap = lenient(&fixture, &database, document)?;
        start(&fixture, &bootstrap.without("/static_resources/listeners/0/filter_chains/0", "transport_socket")?)
    };
    let envoy = without_tls(&document)?;
    assert!(!plain(envoy.address()?)?.echoes("select 1")?);
    assert_eq!(envoy.access_log_of(1)?[0]["decision"], "deny no-peer-certificate");
    document["identity"]["peer"] = json!("optional");
    document["policies"][0]["rules"] = json!([{}]);
    let envoy = without_tls(&document)?;
    assert!(plain(envoy.address()?)?.echoes("select 1")?);
    assert_eq!(envoy.access_log_of(1)?[0]["decision"], "allow default/some 0");
    Ok(())
}

fn a_denied_caller_never_sees_the_greeting(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Pooled)?;
    let database = Database::start(First::Server)?;
    let example = lenient(&fixture, &database, &document(&[SLEEP], "required"))?;
    let envoy = start(&fixture, &example)?;
    for _ in 0..25 {
        let mut allowed = Session::from(connect(&fixture, envoy.address()?, Some(SLEEP))?);
        assert_eq!(allowed.line()?.as_deref(), Some(GREETING));
        assert!(allowed.echoes("select 1")?);
        for stranger in [Some("example.org/ns/default/sa/curl"), Some("example.io/ns/default/sa/sleep"), None] {
            let mut denied = Session::from(connect(&fixture, envoy.address()?, stranger)?);
            assert_eq!(denied.line()?, None, "{stranger:?}");
        }
    }
    let log = envoy.access_log_of(100)?;
    let sent = |line: &Value| line["sent"].as_u64().unwrap_or(u64::MAX);
    let of = |verdict| {
        log.iter().filter(move |line| line["decision"].as_str().is_some_and(|decision| decision.starts_with(verdict)))
    };
    assert_eq!((of("allow").count(), of("deny").count()), (25, 75), "{log:?}");
    assert!(of("allow").all(|line| sent(line) > 0), "{log:?}");

    if adapter == Adapter::Module {
        assert_eq!(database.connections(), 25, "a denied connection reached the database");
        return Ok(());
    }
    // If Envoy connects to the database immediately, the greeting can arrive before the caller is known. The filter
    // holds it.
    let at_once = example.set(&format!("{TCP_PROXY}/upstream_connect_mode"), json!("IMMEDIATE"))?;
    let envoy = start(&fixture, &at_once)?;
    for _ in 0..25 {
        for stranger in [Some("example.org/ns/default/sa/curl"), None] {
            let mut denied = Session::from(connect(&fixture, envoy.address()?, stranger)?);
            assert!(!denied.echoes("select 1")?, "{stranger:?}");
        }
    }
    // The held data arrives with the response to the client's first line.
    let mut allowed = Session::from(connect(&fixture, envoy.address()?, Some(SLEEP))?);
    allowed.send("select 1")?;
    assert_eq!((allowed.line()?.as_deref(), allowed.line()?.as_deref()), (Some(GREETING), Some("select 1")));
    Ok(())
}

fn an_anonymous_caller_gets_the_greeting_if_policies_allow_it(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Pooled)?;
    let database = Database::start(First::Server)?;
    let mut document = document(&[SLEEP], "optional");
    document["policies"][0]["rules"] = json!([{}]);
    let envoy = start(&fixture, &lenient(&fixture, &database, &document)?)?;
    let mut nobody = Session::from(connect(&fixture, envoy.address()?, None)?);
    assert_eq!(nobody.line()?.as_deref(), Some(GREETING));
    Ok(())
}

#[test]
fn an_unfinished_handshake_gets_no_data_and_is_closed() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Pooled)?;
    let database = Database::start(First::Server)?;
    // If Envoy has no timeout, the filter's timeout ends the connection.
    let at_once = lenient(&fixture, &database, &document(&[SLEEP], "optional"))?
        .without("/static_resources/listeners/0/filter_chains/0", "transport_socket_connect_timeout")?
        .set(&format!("{TCP_PROXY}/upstream_connect_mode"), json!("IMMEDIATE"))?;
    let envoy = start(&fixture, &at_once)?;
    // Twice, because the timer for held connections stops with the last of them, and starts again with the next.
    for lines in 1..=2 {
        let mut hello = Vec::new();
        let name = ServerName::try_from("db.example.org")?;
        rustls::ClientConnection::new(Arc::new(client_config(None)?), name)?.write_tls(&mut hello)?;
        let mut stream = TcpStream::connect(envoy.address()?)?;
        stream.write_all(&hello)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_to_end(&mut Vec::new()).context("cannot read to the end")?;
        let log = envoy.access_log_of(lines)?;
        assert_eq!(log[lines - 1]["decision"], "deny peer-certificate-unreadable", "{log:?}");
    }
    Ok(())
}

fn a_policy_update_applies_to_new_connections(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let database = Database::start(First::Client)?;
    let before = fixture.tcp_bootstrap(&database)?.tcp_configuration(&document(&[SLEEP], "required").to_string())?;
    let file = fixture.scratch.join("filter.json");
    let (bootstrap, content) = before.clone().watched_tcp_filter(&file)?;
    fixture.scratch.write("filter.json", &content)?;
    let envoy = start(&fixture, &bootstrap)?;
    let address = envoy.address()?;
    let curl = "example.org/ns/default/sa/curl";
    let mut old = Session::from(connect(&fixture, address, Some(SLEEP))?);
    assert!(old.echoes("select 1")?);
    assert!(!echoes(connect(&fixture, address, Some(curl))?)?);

    let update = |document: &Value| -> Result<()> {
        let bootstrap = before.clone().tcp_configuration(&document.to_string())?;
        fixture.scratch.write("filter.json", &bootstrap.tcp_filter_file()?).map(|_| ())
    };
    update(&document(&[curl], "required"))?;
    wait::until(
        "the new policy applies",
        LIMIT,
        || Ok(echoes(connect(&fixture, address, Some(curl))?)?.then_some(())),
    )?;
    assert!(!echoes(connect(&fixture, address, Some(SLEEP))?)?);
    assert!(old.echoes("select 1")?, "the update closed an old connection");

    update(&json!({"trustDomain": "EXAMPLE.org", "policies": []}))?;
    wait::until("the invalid policy is rejected", LIMIT, || {
        Ok(envoy.log()?.contains("spiffe-authz: /trustDomain: invalid-value: ").then_some(()))
    })?;
    assert!(echoes(connect(&fixture, address, Some(curl))?)?);
    Ok(())
}

#[test]
fn one_configuration_serves_connections_and_their_requests() -> Result<()> {
    // The documents are identical. Only the root ID makes them two plugins in Envoy.
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let document = json!({
        "trustDomain": "example.org",
        "policies": [
            {"name": "reads", "rules": [{"to": [{"operation": {"paths": ["/public"]}}]}]},
            {"name": "sleep", "rules": [{"from": [{"source": {"principals": [SLEEP]}}]}]},
        ],
    });
    let bootstrap = fixture.bootstrap()?.configuration(&document.to_string())?;
    let filters = "/static_resources/listeners/0/filter_chains/0/filters";
    let http = bootstrap.at(&format!("{CONNECTION_MANAGER}/http_filters/0"))?.clone();
    let mut network = http.clone();
    network["typed_config"]["@type"] = json!("type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm");
    network["typed_config"]["config"]["root_id"] = json!("tcp");
    let mut list = bootstrap.at(filters)?.as_array().cloned().unwrap_or_default();
    list.insert(1, network);
    let envoy = start(&fixture, &bootstrap.set(filters, json!(list))?)?;
    let mut sleep = connect(&fixture, envoy.address()?, Some(SLEEP))?;
    assert_eq!((sleep.get("/public")?.status, sleep.get("/other")?.status), (200, 200));
    // The caller is denied on the connection. As a request, it would be allowed.
    let mut curl = connect(&fixture, envoy.address()?, Some("example.org/ns/default/sa/curl"))?;
    assert!(curl.get("/public").is_err());
    let mut sleep = connect(&fixture, envoy.address()?, Some(SLEEP))?;
    assert_eq!(sleep.get("/public")?.status, 200);
    Ok(())
}

#[test]
fn a_configuration_for_the_other_layer_denies_everything() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let bootstrap = fixture.bootstrap()?;
    let pointer = format!("{CONNECTION_MANAGER}/http_filters/0/typed_config/config");
    let mut config = bootstrap.at(&pointer)?.clone();
    config["root_id"] = json!("tcp");
    let envoy = start(&fixture, &bootstrap.set(&pointer, config)?)?;
    let answer = connect(&fixture, envoy.address()?, Some(SLEEP))?.get("/public/news")?;
    assert_eq!(answer.status, 403);
    let log = envoy.log()?;
    assert!(log.contains("`root_id: tcp` is required in a network filter, and not allowed in an HTTP filter"), "{log}");
    Ok(())
}
