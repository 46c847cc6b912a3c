//! HTTP/3, where the client chooses the number of its connection. The number must not select an identity.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start, WORKERS};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http3::{Client, ConnectionId};

spiffe_authz_integration::test_with_each_adapter![
    a_connection_id_selects_no_caller,
    a_connection_id_selects_no_caller_on_several_workers,
];

const LISTENER: &str = "/static_resources/listeners/0";
const PATH: &str = "/status/200";
const CHOSEN: ConnectionId = [0x5a, 1, 2, 3, 4, 5, 6, 7];
const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";
const STRANGER: &str = "spiffe://example.org/ns/other/sa/stranger";

/// The example over QUIC, at two addresses. Each address tracks its own recently used connection IDs, and both share
/// one filter.
fn over_quic(fixture: &Fixture) -> Result<Bootstrap> {
    let example = fixture.bootstrap()?;
    let mut listener = example.at(LISTENER)?.clone();
    let address = json!({"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": 0}});
    let mut tls = example.at(TLS)?.clone();
    tls.as_object_mut().and_then(|fields| fields.remove("@type")).context("the example has no TLS settings")?;
    let fields = listener.as_object_mut().context("the example has no listener")?;
    fields.remove("listener_filters");
    fields.insert("address".to_owned(), address.clone());
    fields.insert("additional_addresses".to_owned(), json!([{"address": address}]));
    fields.insert("udp_listener_config".to_owned(), json!({"quic_options": {}}));
    listener["filter_chains"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.quic",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
            "downstream_tls_context": tls,
        },
    });
    let log = format!("{CONNECTION_MANAGER}/access_log/0/typed_config/log_format/json_format");
    let mut logged = example.at(&log)?.clone();
    logged["connection"] = json!("%CONNECTION_ID%");
    logged["presented"] = json!("%DOWNSTREAM_PEER_URI_SAN%");
    example.set(LISTENER, listener)?.set(&log, logged)?.connection_manager(json!({"codec_type": "HTTP3"}))
}

fn a_connection_id_selects_no_caller(adapter: Adapter) -> Result<()> {
    with_workers(adapter, "1")
}

fn a_connection_id_selects_no_caller_on_several_workers(adapter: Adapter) -> Result<()> {
    with_workers(adapter, "2")
}

fn with_workers(adapter: Adapter, workers: &str) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let start = Start { arguments: &[WORKERS, workers], ..Start::tested("http3")? };
    let envoy = Envoy::start(&start, &over_quic(&fixture)?, fixture.scratch.path())?;
    let [first, second] = envoy.addresses()?[..] else { anyhow::bail!("the listener does not have two addresses") };
    let (sleep, stranger) = (fixture.leaf("default", "sleep")?, fixture.leaf("other", "stranger")?);

    let mut kept = Client::connect(first, &sleep, Some(CHOSEN))?;
    ensure!(kept.get(PATH)? == 200, "sleep is denied");
    ensure!(Client::connect(second, &stranger, None)?.get(PATH)? == 403, "stranger is allowed");
    // Use the same number while the first connection is open.
    let chosen = Client::connect(second, &stranger, Some(CHOSEN))?.get(PATH)?;
    ensure!(kept.get(PATH)? == 200, "sleep is denied afterwards, on its connection");
    ensure!(Client::connect(first, &sleep, None)?.get(PATH)? == 200, "sleep is denied afterwards");

    let log = envoy.access_log_of(5)?;
    let presented: Vec<&Value> = log.iter().map(|line| &line["presented"]).collect();
    assert_eq!(presented, [SLEEP, STRANGER, STRANGER, SLEEP, SLEEP]);
    // Otherwise, the test would pass because Envoy assigns the numbers itself.
    assert_eq!(log[0]["connection"], log[2]["connection"], "Envoy no longer numbers connections by their IDs");
    assert_ne!(log[0]["connection"], log[1]["connection"]);
    assert_eq!(chosen, 403, "stranger is allowed as sleep: {}", log[2]);
    assert_eq!((&log[2]["peer"], &log[2]["decision"]), (&json!(STRANGER), &json!("deny no-policy-allows")));
    Ok(())
}
