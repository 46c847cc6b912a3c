//! `spiffe-authz secret` on dumps with certificates made for each test.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use serde_json::{Value, json};

const ID: &str = "spiffe://example.org/ns/default/sa/sleep";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const SPIFFE_VALIDATOR: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// A signing authority of one trust domain.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2099, 1, 1));
    params
}

fn authority(trust_domain: &str) -> Authority {
    let mut params = named(trust_domain);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

/// A leaf certificate in the form of SPIRE, after a change.
fn leaf(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = named("sleep");
    params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2098, 1, 1));
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap().pem()
}

fn inline(pem: &str) -> Value {
    json!({"inlineBytes": STANDARD.encode(pem)})
}

fn certificate(chain: &str) -> Value {
    let secret = json!({"@type": SECRET, "name": "default", "tlsCertificate": {
        "certificateChain": inline(chain), "privateKey": inline("[redacted]")
    }});
    json!({"name": "default", "versionInfo": "1", "lastUpdated": "2026-11-25T00:00:00Z", "secret": secret})
}

/// The response of SPIRE: a bundle for each trust domain.
fn bundles(bundles: &[(&str, &str)]) -> Value {
    let trust_domains: Vec<Value> =
        bundles.iter().map(|(name, pem)| json!({"name": name, "trustBundle": inline(pem)})).collect();
    let validator = json!({"name": "envoy.tls.cert_validator.spiffe", "typedConfig": {
        "@type": SPIFFE_VALIDATOR, "trustDomains": trust_domains
    }});
    root(json!({"customValidatorConfig": validator}))
}

fn root(validation_context: Value) -> Value {
    json!({"name": "ROOTCA", "secret": {"@type": SECRET, "name": "ROOTCA", "validationContext": validation_context}})
}

/// The secrets in an order in which no index finds the right one.
fn dump(secrets: &[Value]) -> Value {
    let other = json!({"name": "kubernetes://ingress", "secret": {"@type": SECRET, "tlsCertificate": {}}});
    let all = [&[other], secrets].concat();
    json!({"dynamicActiveSecrets": all})
}

fn run(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .arg("secret")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A command with invalid options ends before it reads its input.
    match child.stdin.take().unwrap().write_all(input.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
        _ => {}
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Returns the exit status and the codes of the findings.
fn findings(arguments: &[&str], dump: &Value) -> (Option<i32>, Vec<String>) {
    let (status, out) = run(&[arguments, &["--format", "json"]].concat(), &dump.to_string());
    let answer: Value = serde_json::from_str(&out).unwrap();
    let codes =
        answer["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap().to_owned());
    (status, codes.collect())
}

#[test]
fn identity_issuer_dates_and_bundles_are_shown() {
    let (own, partner) = (authority("example.org"), authority("example.io"));
    let dump =
        dump(&[bundles(&[("example.io", &partner.pem), ("example.org", &own.pem)]), certificate(&leaf(&own, |_| {}))]);
    let (status, out) = run(&["--bundle", "example.io"], &dump.to_string());
    let expected = "\
default: an X509-SVID: spiffe://example.org/ns/default/sa/sleep
  issued by  O=SPIRE, CN=example.org, from the bundle of example.org
  to         O=SPIRE, CN=sleep
  valid from 2026-01-01T00:00:00Z until 2098-01-01T00:00:00Z
ROOTCA: authorities by trust domain
  example.io: O=SPIRE, CN=example.io, valid until 2099-01-01T00:00:00Z
  example.org: O=SPIRE, CN=example.org, valid until 2099-01-01T00:00:00Z
";
    assert_eq!((status, out.as_str()), (Some(0), expected));

    let (status, out) = run(&["--format", "json"], &dump.to_string());
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, Some(0));
    let svid = &answer["svid"];
    assert_eq!((&svid["spiffeId"], &svid["issuedByBundle"]), (&json!(ID), &json!("example.org")));
    assert_eq!((&svid["issuer"], &svid["reason"]), (&json!("O=SPIRE, CN=example.org"), &Value::Null));
    assert_eq!(answer["bundles"][0]["trustDomain"], "example.io");
    assert_eq!(answer["findings"], json!([]));
}

/// Envoy writes the same secrets with other field names, and with its other sections.
#[test]
fn a_config_dump_of_envoy_is_read() {
    let own = authority("example.org");
    let mut text = dump(&[certificate(&leaf(&own, |_| {})), bundles(&[("example.org", &own.pem)])]).to_string();
    for (camel, snake) in [
        ("dynamicActiveSecrets", "dynamic_active_secrets"),
        ("tlsCertificate", "tls_certificate"),
        ("certificateChain", "certificate_chain"),
        ("inlineBytes", "inline_bytes"),
        ("validationContext", "validation_context"),
        ("customValidatorConfig", "custom_validator_config"),
        ("typedConfig", "typed_config"),
        ("trustDomains", "trust_domains"),
        ("trustBundle", "trust_bundle"),
    ] {
        text = text.replace(&format!("\"{camel}\""), &format!("\"{snake}\""));
    }
    let mut section: Value = serde_json::from_str(&text).unwrap();
    section["@type"] = json!("type.googleapis.com/envoy.admin.v3.SecretsConfigDump");
    let whole = json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"}, section]});
    assert_eq!(findings(&[], &whole), (Some(0), Vec::new()));

    let resources: Vec<Value> = section["dynamic_active_secrets"]
        .as_array()
        .unwrap()
        .iter()
        .cloned()
        .map(|mut secret| {
            secret["@type"] = json!("type.googleapis.com/envoy.admin.v3.SecretsConfigDump.DynamicSecret");
            secret
        })
        .collect();
    assert_eq!(findings(&[], &json!({"configs": resources})), (Some(0), Vec::new()));
}

#[test]
fn certificates_of_istiod_are_distinguished_from_those_of_spire() {
    let own = authority("example.org");
    let pool = root(json!({"trustedCa": inline(&own.pem)}));
    let dump = dump(&[certificate(&leaf(&own, |_| {})), pool]);
    assert_eq!(findings(&[], &dump), (Some(3), vec!["spiffe-validator-missing".to_owned()]));
    let (_, out) = run(&[], &dump.to_string());
    assert!(out.contains("  issued by  O=SPIRE, CN=example.org, from `trusted_ca`\n"), "{out}");
    assert!(out.contains("  any trust domain: O=SPIRE, CN=example.org, valid until"), "{out}");
}

#[test]
fn missing_bundles_are_found() {
    let (own, partner) = (authority("example.org"), authority("example.io"));
    let svid = certificate(&leaf(&own, |_| {}));
    let missing = vec!["bundle-missing".to_owned()];
    let only_own = dump(&[svid.clone(), bundles(&[("example.org", &own.pem)])]);
    assert_eq!(findings(&[], &only_own), (Some(0), Vec::new()));
    assert_eq!(findings(&["--bundle", "example.io"], &only_own), (Some(3), missing.clone()));
    let only_partner = dump(&[svid.clone(), bundles(&[("example.io", &partner.pem)])]);
    assert_eq!(findings(&[], &only_partner), (Some(3), missing));
    let unreadable = dump(&[svid, bundles(&[("example.org", &own.pem), ("example.io", "nothing")])]);
    assert_eq!(findings(&[], &unreadable), (Some(3), vec!["bundle-unreadable".to_owned()]));
}

#[test]
fn an_issuer_that_is_not_in_the_bundle_is_found() {
    // Two authorities of the same name differ only in their keys.
    let (own, impostor) = (authority("example.org"), authority("example.org"));
    let dump = dump(&[certificate(&leaf(&impostor, |_| {})), bundles(&[("example.org", &own.pem)])]);
    assert_eq!(findings(&[], &dump), (Some(3), vec!["foreign-issuer".to_owned()]));
}

#[test]
fn the_chain_can_have_an_intermediate_authority() {
    let root = authority("example.org");
    let mut params = named("intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &root.issuer).unwrap().pem();
    let intermediate = Authority { pem, issuer: Issuer::new(params, key) };
    let chain = leaf(&intermediate, |_| {}) + &intermediate.pem;
    let dump = dump(&[certificate(&chain), bundles(&[("example.org", &root.pem)])]);
    assert_eq!(findings(&[], &dump), (Some(0), Vec::new()));
}

#[test]
fn invalid_certificates_are_found() {
    let own = authority("example.org");
    let trust = bundles(&[("example.org", &own.pem)]);
    let of =
        |change: fn(&mut CertificateParams)| findings(&[], &dump(&[certificate(&leaf(&own, change)), trust.clone()]));
    let one = |code: &str| (Some(3), vec![code.to_owned()]);
    assert_eq!(of(|params| params.not_after = date_time_ymd(2026, 1, 2)), one("svid-expired"));
    assert_eq!(of(|params| params.not_before = date_time_ymd(2097, 1, 1)), one("not-yet-good"));
    assert_eq!(of(|params| params.key_usages.clear()), one("svid-malformed"));
    assert_eq!(of(|params| params.subject_alt_names.clear()), one("svid-malformed"));
}

/// The checks of `doctor` for bundles and validation contexts.
#[test]
fn bundles_are_judged_as_by_the_doctor() {
    let own = authority("example.org");
    let svid = certificate(&leaf(&own, |_| {}));
    let found = |context: Value| findings(&[], &dump(&[svid.clone(), root(context)])).1;
    let pool = || json!({"trustedCa": inline(&own.pem)});
    let mut untrusted = pool();
    untrusted["trustChainVerification"] = json!("ACCEPT_UNTRUSTED");
    assert_eq!(found(untrusted), ["untrusted-accepted", "spiffe-validator-missing"]);
    assert_eq!(found(json!({"systemRootCerts": {}})), ["bundles-pooled"]);
    assert_eq!(found(json!({})), ["secret-unreadable"]);
    let mut params = named("example.io");
    params.subject_alt_names = vec![SanType::URI("spiffe://example.io".try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let foreign = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let mixed = dump(&[svid.clone(), bundles(&[("example.org", &foreign)])]);
    assert_eq!(findings(&[], &mixed).1, ["foreign-issuer", "bundle-foreign"]);
    let (_, out) = run(&[], &mixed.to_string());
    assert!(out.contains("  warning  bundle-foreign: ") && out.contains("\n           Check the URL"), "{out}");
}

#[test]
fn missing_secrets_are_found() {
    let own = authority("example.org");
    let mut waiting = dump(&[certificate(&leaf(&own, |_| {}))]);
    waiting["dynamicWarmingSecrets"] = json!([{"name": "ROOTCA", "versionInfo": "uninitialized"}]);
    assert_eq!(findings(&[], &waiting), (Some(3), vec!["secret-missing".to_owned()]));
    let missing = || vec!["secret-missing".to_owned(); 2];
    assert_eq!(findings(&[], &json!({"dynamicActiveSecrets": []})), (Some(3), missing()));
    let other_names = ["--svid-secret", "a", "--bundle-secret", "b"];
    assert_eq!(findings(&other_names, &waiting), (Some(3), missing()));
    let empty = dump(&[json!({"name": "default", "secret": {}}), json!({"name": "ROOTCA", "secret": {}})]);
    assert_eq!(findings(&[], &empty), (Some(3), vec!["secret-unreadable".to_owned(); 2]));
}

#[test]
fn other_files_are_errors() {
    assert_eq!(run(&[], "NAME   TYPE").0, Some(1));
    assert_eq!(run(&[], "[1]").0, Some(1));
    assert_eq!(run(&["/nonexistent"], "").0, Some(1));
}
