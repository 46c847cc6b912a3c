//! HBONE: one listener terminates TLS, and the filter is in another one.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};

use crate::support::{at, wait_for};

const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// The document of the filter in the internal listener.
const INNER: &str = "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";

fn server(fixture: &Fixture) -> Result<Bootstrap> {
    let (certificate, validation) = (fixture.scratch.join("certificate.json"), fixture.scratch.join("validation.json"));
    Bootstrap::tunnel_server(Adapter::Wasm, fixture.upstream.port())?
        .secrets(&certificate, &validation)?
        .set(&at(FILTERS, "0/typed_config/on_request_headers/0/factory_key"), json!("envoy.hashable_string"))
}

#[test]
fn both_listeners_are_one_channel() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let sound = server(&fixture)?;
    let names = ["/static_resources/listeners/0/name", "/static_resources/listeners/1/name"];
    let [outer, inner] = names.map(|name| sound.at(name).map(|name| name.as_str().unwrap_or_default().to_owned()));
    let (outer, inner) = (outer?, inner?);
    let clusters = sound.at("/static_resources/clusters")?.as_array().context("a list")?;
    let inside = clusters.iter().position(|cluster| cluster.to_string().contains("envoy_internal_address"));
    let inside = format!("/static_resources/clusters/{}", inside.context("a cluster")?);
    let router = sound.at(&at(FILTERS, "1"))?.clone();
    // The example has no stats tags.
    let tags: &[&str] = &["labels-missing"];
    let missing: &[&str] = &["peer-principal-missing"];
    for (name, bootstrap, expected) in [
        ("sound", sound.clone(), &[][..]),
        ("not-kept", sound.clone().set(FILTERS, json!([router]))?, missing),
        ("not-passed", sound.clone().without(&inside, "transport_socket")?, missing),
    ] {
        let envoy = Envoy::start(&Start::tested(name)?, &bootstrap, fixture.scratch.path())?;
        let mut wanted = vec![("-", tags)];
        wanted.extend((!expected.is_empty()).then_some((inner.as_str(), expected)));
        wait_for(&envoy, fixture.scratch.path(), &wanted)?;
    }
    // The inner filter reads the caller from TLS, which the internal listener does not have.
    let mut document: Value = serde_json::from_str(sound.at(INNER)?.as_str().context("a document")?)?;
    document["identity"] = json!({"from": "tls"});
    let from_tls = sound.clone().set(INNER, json!(document.to_string()))?;
    let envoy = Envoy::start(&Start::tested("from-tls")?, &from_tls, fixture.scratch.path())?;
    wait_for(&envoy, fixture.scratch.path(), &[("-", tags), (inner.as_str(), &["peer-principal-unused"])])?;
    let optional = sound.set(&at(TLS, "require_client_certificate"), json!(false))?;
    let envoy = Envoy::start(&Start::tested("optional")?, &optional, fixture.scratch.path())?;
    let wanted: &[(&str, &[&str])] = &[("-", tags), (&outer, &["client-certificate-optional"])];
    wait_for(&envoy, fixture.scratch.path(), wanted)?;
    Ok(())
}
