//! Findings about identity and trust, whose cause is a secret.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Authority, DAY, Name, Shape, pooled_validation, spiffe_validation};
use spiffe_authz_integration::bootstrap::{Adapter, CONFIGURATION, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};

use crate::support::{
    Listeners, PATIENCE, any_path, at, bundle_pointer, certificate_pointer, document, from_file, healthy, wait_for,
};

const FEDERATED: &str = "spiffe://example.io/ns/default/sa/httpbin";

#[test]
fn secrets_are_distinguished() -> Result<()> {
    let fixture = Fixture::new(Adapter::Wasm, Validation::Spiffe)?;
    let bootstrap = healthy(&fixture)?;
    let mut listeners = Listeners::of(&bootstrap)?;
    add_certificates(&mut listeners, &fixture)?;
    add_bundles(&mut listeners, &fixture)?;
    add_validation(&mut listeners)?;
    let bootstrap = listeners.into(bootstrap)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let wanted: &[(&str, &[&str])] = &[
        ("expired", &["svid-expired"]),
        ("malformed", &["svid-malformed"]),
        ("foreign", &["svid-foreign"]),
        ("file", &["svid-foreign"]),
        // Envoy rejects a response from a file if it does not contain the secret.
        ("nowhere", &["secret-missing", "secret-rejected"]),
        ("pooled", &["bundles-pooled"]),
        ("single", &["spiffe-validator-missing"]),
        ("open", &["federation-open", "spiffe-validator-missing"]),
        ("past", &["bundle-expired"]),
        ("future", &["bundle-not-yet-good"]),
        ("missing", &["bundle-missing"]),
        ("unnamed", &["bundle-unnamed"]),
        ("unvalidated", &["not-validated"]),
        ("untrusted", &["untrusted-accepted", "expired-accepted"]),
        ("matcher", &["trust-domain-filtered"]),
    ];
    let answer = wait_for(&envoy, fixture.scratch.path(), wanted)?;
    assert_eq!(answer.messages("bundles-pooled"), ["`trusted_ca` contains authorities of `example.org`, `example.io`"]);
    assert_eq!(answer.messages("svid-malformed"), ["certificate-several-uri-sans"]);
    Ok(())
}

fn add_certificates(listeners: &mut Listeners, fixture: &Fixture) -> Result<()> {
    let id = "spiffe://example.org/ns/default/sa/httpbin";
    let expired = Shape { validity: (-2 * DAY, -DAY), ..Shape::svid(id) };
    let two_names = Shape { names: vec![Name::uri(id), Name::uri(id)], ..Shape::svid(id) };
    for (name, authority, shape) in [
        ("expired", &fixture.local, expired),
        ("malformed", &fixture.local, two_names),
        ("foreign", &fixture.federated, Shape::svid(FEDERATED)),
    ] {
        let secret = renamed(fixture, "default", name, &authority.sign(&shape)?.secret())?;
        listeners.add(name, &[(&certificate_pointer(), secret)])?;
    }
    let mut nowhere = renamed(fixture, "default", "nowhere", "{\"resources\": []}")?;
    nowhere["sds_config"]["initial_fetch_timeout"] = json!(PATIENCE);
    listeners.add("nowhere", &[(&certificate_pointer(), nowhere)])?;
    let secrets = at(TLS, "common_tls_context/tls_certificate_sds_secret_configs");
    let files = json!([file_certificate(fixture)?]);
    listeners.add("file", &[(&secrets, json!(null)), (&at(TLS, "common_tls_context/tls_certificates"), files)])
}

fn add_bundles(listeners: &mut Listeners, fixture: &Fixture) -> Result<()> {
    let (local, federated) = (&fixture.local, &fixture.federated);
    for (name, validation) in [
        ("pooled", pooled_validation(&[local, federated])),
        ("single", pooled_validation(&[local])),
        ("past", spiffe_validation(&[local, &Authority::expired("example.io")?])),
        ("future", spiffe_validation(&[local, &Authority::early("example.io")?])),
        ("missing", spiffe_validation(&[local])),
    ] {
        listeners.add(name, &[(&bundle_pointer(), renamed(fixture, "ROOTCA", name, &validation)?)])?;
    }
    let mut open = document(&[], &any_path());
    open["federatedTrustDomains"] = json!("validated");
    open["identity"] = json!({"requireValidated": true});
    let single = renamed(fixture, "ROOTCA", "open", &pooled_validation(&[local]))?;
    listeners.add("open", &[(&bundle_pointer(), single), (CONFIGURATION, json!(open.to_string()))])?;
    listeners.add("unnamed", &[(CONFIGURATION, json!(document(&[], &any_path()).to_string()))])
}

fn add_validation(listeners: &mut Listeners) -> Result<()> {
    let combined = at(TLS, "common_tls_context/combined_validation_context");
    let context = |name: &str| at(&at(&combined, "default_validation_context"), name);
    listeners.add("unvalidated", &[(&combined, json!(null))])?;
    let untrusted = (&*context("trust_chain_verification"), json!("ACCEPT_UNTRUSTED"));
    listeners.add("untrusted", &[untrusted, (&context("allow_expired_certificate"), json!(true))])?;
    let own_only = json!([{"san_type": "URI", "matcher": {"prefix": "spiffe://example.org/"}}]);
    listeners.add("matcher", &[(&context("match_typed_subject_alt_names"), own_only)])
}

/// Returns a copy of this secret with another name, in a file of that name.
fn renamed(fixture: &Fixture, from: &str, to: &str, secret: &str) -> Result<Value> {
    let content = secret.replace(&format!("\"{from}\""), &format!("\"{to}\""));
    Ok(from_file(to, &fixture.scratch.write(&format!("{to}.json"), &content)?))
}

/// Returns a certificate of the federated trust domain in files, which only `certs` shows.
fn file_certificate(fixture: &Fixture) -> Result<Value> {
    let leaf = fixture.federated.sign(&Shape::svid(FEDERATED))?;
    let secret: Value = serde_json::from_str(&leaf.secret())?;
    let part = |field: &str| -> Result<Value> {
        let pem =
            secret.pointer(&format!("/resources/0/tls_certificate/{field}/inline_string")).and_then(Value::as_str);
        let file = fixture.scratch.write(&format!("{field}.pem"), pem.context("PEM")?)?;
        Ok(json!({"filename": file}))
    };
    Ok(json!({"certificate_chain": part("certificate_chain")?, "private_key": part("private_key")?}))
}
