//! Certificates that are not X509-SVIDs, in a real Envoy: every one is rejected, by Envoy or by the filter.
//!
//! Envoy's SPIFFE validator accepts many of them. The default validator with pooled authorities, which is insecure,
//! accepts almost all. The filter denies each certificate that reaches it with its own reason.

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{DAY, Leaf, Name, Shape, client_config};
use spiffe_authz_integration::bootstrap::{Adapter, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, ProtectedServer, Validation};
use spiffe_authz_integration::http::Client;

spiffe_authz_integration::test_with_each_adapter![
    the_filter_denies_what_the_spiffe_validator_accepts,
    the_filter_denies_what_the_spiffe_validator_rejects,
    an_authority_signs_only_for_its_own_trust_domain,
    unusual_but_valid,
    a_caller_without_a_certificate_is_denied,
];

const ID: &str = "spiffe://example.org/ns/default/sa/sleep";

/// Allows every accepted identity, with any form of the path.
fn open_to_all() -> Value {
    json!({
        "trustDomain": "example.org",
        "federatedTrustDomains": ["example.io"],
        "identity": {"pattern": "any"},
        "policies": [{"name": "all", "rules": [{}]}]
    })
}

/// The result for a caller.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    HandshakeRejected,
    Denied(String),
    Allowed(String),
}

fn outcome(envoy: &Envoy, leaf: &Leaf) -> Result<Outcome> {
    let before = envoy.access_log()?.len();
    let answer = leaf.connect(envoy.address()?).and_then(|mut client| client.get("/"));
    let Ok(response) = answer else {
        ensure!(envoy.access_log()?.len() == before, "a rejected handshake is in the access log");
        return Ok(Outcome::HandshakeRejected);
    };
    let log = envoy.access_log_of(before + 1)?;
    let text = |key: &str| log[before][key].as_str().context("no such field in the access log");
    if response.status == 200 {
        return Ok(Outcome::Allowed(text("peer")?.to_owned()));
    }
    let reason = text("decision")?.strip_prefix("deny ").context("the decision is not a denial")?;
    Ok(Outcome::Denied(reason.to_owned()))
}

fn denied(reason: &str) -> Outcome {
    Outcome::Denied(reason.to_owned())
}

/// Checks the same certificates with both validators. `by_spiffe` is `None` if the SPIFFE validator rejects the
/// certificate.
fn check(adapter: Adapter, cases: Vec<(&str, Shape, Option<&str>, &str)>) -> Result<()> {
    for validation in [Validation::Spiffe, Validation::Pooled] {
        let server = ProtectedServer::start(adapter, validation, &open_to_all())?;
        for (name, shape, by_spiffe, by_filter) in &cases {
            let expected = match (validation, by_spiffe) {
                (Validation::Spiffe, None) => Outcome::HandshakeRejected,
                (Validation::Spiffe, Some(reason)) => denied(reason),
                (Validation::Pooled, _) if by_filter.is_empty() => Outcome::HandshakeRejected,
                (Validation::Pooled, _) => denied(by_filter),
            };
            let found = outcome(&server.envoy, &server.fixture.local.sign(shape)?)?;
            assert_eq!(found, expected, "{name}, {validation:?}");
        }
        let good = outcome(&server.envoy, &server.fixture.local.sign(&Shape::svid(ID))?)?;
        assert_eq!(good, Outcome::Allowed(ID.to_owned()), "after the others, {validation:?}");
    }
    Ok(())
}

fn the_filter_denies_what_the_spiffe_validator_accepts(adapter: Adapter) -> Result<()> {
    let two = |second: &str| Shape { names: vec![Name::uri(ID), Name::uri(second)], ..Shape::svid(ID) };
    let path = |path: &[u8]| Shape::svid([b"spiffe://example.org/", path].concat());
    let usage = |usage| Shape { extended_key_usages: vec![usage], ..Shape::svid(ID) };
    let mut cases = Vec::new();
    for (name, shape, reason) in [
        ("second URI of another trust domain", two("spiffe://example.io/ns/a/sa/b"), "certificate-several-uri-sans"),
        ("second URI of the same trust domain", two("spiffe://example.org/ns/a/sa/b"), "certificate-several-uri-sans"),
        ("the same URI twice", two(ID), "certificate-several-uri-sans"),
        ("second URI of https", two("https://example.org/"), "certificate-several-uri-sans"),
        ("second URI empty", two(""), "certificate-several-uri-sans"),
        ("root path", path(b""), "spiffe-id-path-trailing-slash"),
        ("semicolon", path(b"a;b"), "spiffe-id-path-character"),
        ("comma", path(b"a,b"), "spiffe-id-path-character"),
        ("quote", path(b"a\"b"), "spiffe-id-path-character"),
        ("backslash", path(b"a\\b"), "spiffe-id-path-character"),
        ("equals", path(b"a=b"), "spiffe-id-path-character"),
        ("space", path(b"a b"), "spiffe-id-path-character"),
        ("line end", path(b"a\r\nb"), "spiffe-id-path-character"),
        ("NUL", path(b"a\0b"), "spiffe-id-path-character"),
        ("byte FF", path(b"a\xffb"), "certificate-san-malformed"),
        ("UTF-8 letter", path("a\u{e4}b".as_bytes()), "spiffe-id-path-character"),
        ("percent-encoded slash", path(b"a%2fb"), "spiffe-id-path-character"),
        ("dot segment", path(b"a/../b"), "spiffe-id-path-dot-segment"),
        ("empty segment", path(b"a//b"), "spiffe-id-path-empty-segment"),
        ("trailing slash", path(b"a/b/"), "spiffe-id-path-trailing-slash"),
        ("query", path(b"a?b"), "spiffe-id-path-character"),
        ("6018 bytes", path(&[b'a'; 5997]), "spiffe-id-too-long"),
        ("reserved path", path(b"spire/agent/x"), "reserved-path"),
    ] {
        cases.push((name, shape, Some(reason), reason));
    }
    // The default validator itself requires `clientAuth`.
    cases.push((
        "serverAuth only",
        usage(ExtendedKeyUsagePurpose::ServerAuth),
        Some("certificate-extended-key-usage"),
        "",
    ));
    cases.push((
        "emailProtection only",
        usage(ExtendedKeyUsagePurpose::EmailProtection),
        Some("certificate-extended-key-usage"),
        "",
    ));
    let unnamed = Shape { common_name: None, ..Shape::svid(ID) };
    cases.push((
        "empty subject, SAN not critical",
        unnamed,
        Some("certificate-san-not-critical"),
        "certificate-san-not-critical",
    ));
    check(adapter, cases)
}

fn the_filter_denies_what_the_spiffe_validator_rejects(adapter: Adapter) -> Result<()> {
    let names = |names: Vec<Name>| Shape { names, ..Shape::svid(ID) };
    let uri = |uri: &[u8]| Shape::svid(uri);
    let usages = |key_usages: Vec<KeyUsagePurpose>| Shape { key_usages, ..Shape::svid(ID) };
    let ca = |key_usages| Shape { is_ca: IsCa::Ca(BasicConstraints::Unconstrained), key_usages, ..Shape::svid(ID) };
    let sign = KeyUsagePurpose::DigitalSignature;
    check(
        adapter,
        vec![
            (
                "first URI of https",
                names(vec![Name::uri("https://a/"), Name::uri(ID)]),
                None,
                "certificate-several-uri-sans",
            ),
            ("https only", uri(b"https://example.org/a"), None, "spiffe-id-scheme"),
            ("no SAN", names(vec![]), None, "certificate-no-uri-san"),
            ("DNS only", names(vec![Name::dns("example.org")]), None, "certificate-no-uri-san"),
            ("unlisted trust domain", uri(b"spiffe://example.com/a"), None, "foreign-trust-domain"),
            ("upper-case trust domain", uri(b"spiffe://EXAMPLE.org/a"), None, "spiffe-id-trust-domain-character"),
            ("upper-case scheme", uri(b"SPIFFE://example.org/a"), None, "spiffe-id-scheme"),
            ("port", uri(b"spiffe://example.org:1/a"), None, "spiffe-id-trust-domain-character"),
            ("userinfo", uri(b"spiffe://a@example.org/a"), None, "spiffe-id-trust-domain-character"),
            ("NUL in the trust domain", uri(b"spiffe://example.org\0/a"), None, "spiffe-id-trust-domain-character"),
            ("CA", ca(vec![sign]), None, "certificate-is-ca"),
            ("CA that signs", ca(vec![sign, KeyUsagePurpose::KeyCertSign]), None, "certificate-is-ca"),
            ("keyCertSign", usages(vec![sign, KeyUsagePurpose::KeyCertSign]), None, "certificate-key-cert-sign"),
            ("cRLSign", usages(vec![sign, KeyUsagePurpose::CrlSign]), None, "certificate-crl-sign"),
            ("no key usage", usages(vec![]), None, "certificate-key-usage-missing"),
            ("no digitalSignature", usages(vec![KeyUsagePurpose::KeyAgreement]), None, ""),
            ("expired", Shape { validity: (-2 * DAY, -DAY), ..Shape::svid(ID) }, None, ""),
            ("not yet valid", Shape { validity: (DAY, 2 * DAY), ..Shape::svid(ID) }, None, ""),
        ],
    )
}

fn an_authority_signs_only_for_its_own_trust_domain(adapter: Adapter) -> Result<()> {
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &open_to_all())?;
    let forged = server.fixture.federated.sign(&Shape::svid(ID))?;
    assert_eq!(outcome(&server.envoy, &forged)?, Outcome::HandshakeRejected);
    let federated = "spiffe://example.io/ns/default/sa/sleep";
    let good = server.fixture.federated.sign(&Shape::svid(federated))?;
    assert_eq!(outcome(&server.envoy, &good)?, Outcome::Allowed(federated.to_owned()));
    Ok(())
}

fn unusual_but_valid(adapter: Adapter) -> Result<()> {
    let longest = format!("spiffe://example.org/{}", "a".repeat(2048 - 21));
    let with_dns = |dns: &[u8]| Shape { names: vec![Name::dns(dns), Name::uri(ID)], ..Shape::svid(ID) };
    let cases = [
        ("additional DNS names", with_dns(b"sleep.example.org"), ID),
        ("delimiters in a DNS name", with_dns(b"a;URI=spiffe://example.org/x,\"b"), ID),
        (
            "delimiters in the subject",
            Shape { common_name: Some("x\";URI=spiffe://example.org/x,".to_owned()), ..Shape::svid(ID) },
            ID,
        ),
        ("2048 bytes", Shape::svid(&longest), &*longest),
        ("no extended key usage", Shape { extended_key_usages: vec![], ..Shape::svid(ID) }, ID),
        ("no basic constraints", Shape { is_ca: IsCa::NoCa, ..Shape::svid(ID) }, ID),
    ];
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &open_to_all())?;
    for (name, shape, id) in cases {
        let leaf = server.fixture.local.sign(&shape)?;
        assert_eq!(outcome(&server.envoy, &leaf)?, Outcome::Allowed(id.to_owned()), "{name}");
    }
    Ok(())
}

fn a_caller_without_a_certificate_is_denied(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Pooled)?;
    let bootstrap = fixture.bootstrap()?.configuration(&open_to_all().to_string())?;
    let required = Envoy::start(&Start::tested("required")?, &bootstrap, fixture.scratch.path())?;
    let answer = Client::tls(required.address()?, client_config(None)?).and_then(|mut client| client.get("/"));
    assert!(answer.is_err(), "{answer:?}");

    let bootstrap = bootstrap.set(&format!("{TLS}/require_client_certificate"), json!(false))?;
    let lenient = Envoy::start(&Start::tested("lenient")?, &bootstrap, fixture.scratch.path())?;
    let mut nobody = Client::tls(lenient.address()?, client_config(None)?)?;
    assert_eq!(nobody.get("/")?.status, 403);
    assert_eq!(lenient.access_log_of(1)?[0]["decision"], "deny no-peer-certificate");
    Ok(())
}
