//! Certificates and bundles that arrived, on both sides of a connection.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::delivered::{CLIENT_TLS, Delivered};
use crate::{all_codes, certificates, set};

#[test]
fn identities_are_compared_with_dates_bundles_and_patterns() {
    let (own, other) = (certificates::Authority::of("example.org"), certificates::Authority::of("example.org"));
    let found = |chain: &str, example_of: &str| {
        let secrets =
            vec![certificates::certificate("default", chain), certificates::bundles(&[("example.org", &own.pem)])];
        let mut found = Delivered::of(example_of, secrets).found();
        found.remove("nothing-to-guard");
        found
    };
    for example_of in ["server", "client"] {
        assert_eq!(found(&own.svid(certificates::SERVER, (2025, 2098)), example_of), set(&[]));
        assert_eq!(found(&own.svid(certificates::SERVER, (2097, 2098)), example_of), set(&["not-yet-good"]));
        assert_eq!(found(&own.svid(certificates::SERVER, (2024, 2025)), example_of), set(&["svid-expired"]));
        assert_eq!(found(&other.svid(certificates::SERVER, (2025, 2098)), example_of), set(&["foreign-issuer"]));
    }
    let other_form = own.svid("spiffe://example.org/k8s/httpbin", (2025, 2098));
    assert_eq!(found(&other_form, "server"), set(&["svid-wrong-pattern"]));
    // The bundle of another trust domain does not vouch for this one.
    let io = certificates::Authority::of("example.io");
    let secrets = vec![
        certificates::certificate("default", &io.svid(certificates::SERVER, (2025, 2098))),
        certificates::bundles(&[("example.org", &own.pem), ("example.io", &io.pem)]),
    ];
    assert_eq!(Delivered::of("server", secrets).found(), set(&["foreign-issuer", "bundle-unnamed"]));
}

#[test]
fn bundles_are_read_in_each_form() {
    let own = certificates::Authority::of("example.org");
    let svid = certificates::certificate("default", &own.svid(certificates::SERVER, (2025, 2098)));
    let found = |bundle: Value| Delivered::of("server", vec![svid.clone(), bundle]).found();
    let unnamed = certificates::Authority::named(&[]);
    // A bundle that came by `https_web` can have authorities without a URI.
    let from_web = certificates::bundles(&[("example.org", &format!("{}{}", own.pem, unnamed.pem))]);
    assert_eq!(found(from_web), set(&[]));
    let io = certificates::Authority::of("example.io");
    assert_eq!(found(certificates::bundles(&[("example.org", &io.pem)])), set(&["bundle-foreign", "foreign-issuer"]));
    assert_eq!(found(certificates::bundles(&[("example.org", "nothing")])), set(&["bundle-unreadable"]));

    // As an EnvoyFilter writes it.
    let wrapped = json!({
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        "value": {"trust_domains": [{"name": "example.org", "trust_bundle": certificates::inline(&own.pem)}]}
    });
    assert_eq!(found(certificates::spiffe(wrapped)), set(&[]));

    // Rotation keeps an expired authority, and prepares the next one.
    let [past, future] = [(2020, 2025), (2097, 2098)].map(|years| certificates::Authority::valid("example.org", years));
    let of = |authorities: &[&certificates::Authority]| {
        let pem: String = authorities.iter().map(|authority| &*authority.pem).collect();
        found(certificates::bundles(&[("example.org", &pem)]))
    };
    assert_eq!(of(&[&past, &own, &future]), set(&[]));
    assert!(of(&[&past]).contains("bundle-expired"));
    for early in [of(&[&future]), of(&[&past, &future])] {
        assert!(early.contains("bundle-not-yet-good") && !early.contains("bundle-expired"), "{early:?}");
    }

    let der = own.pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let map = |r#use: &str| {
        let map = json!({"trust_domains": {"example.org": {"keys": [{"use": r#use, "x5c": [der]}]}}});
        certificates::spiffe(json!({"trust_bundles": {"inline_string": map.to_string()}}))
    };
    assert_eq!(found(map("x509-svid")), set(&[]));
    assert_eq!(found(map("jwt-svid")), set(&["bundle-unreadable"]));

    // Pinned certificates are validated.
    let pinned = certificates::validation(json!({"verify_certificate_hash": ["aa"]}));
    assert_eq!(found(pinned), set(&["spiffe-validator-missing"]));
    assert_eq!(found(certificates::validation(json!({}))), set(&["not-validated"]));

    let pool = |pems: &[&str]| certificates::validation(json!({"trusted_ca": certificates::inline(&pems.concat())}));
    assert_eq!(found(pool(&[&own.pem, &unnamed.pem])), set(&["spiffe-validator-missing"]));
    assert_eq!(found(pool(&[&own.pem, &io.pem])), set(&["bundles-pooled"]));
    assert_eq!(
        found(certificates::certificate("ROOTCA", &own.svid(certificates::SERVER, (2025, 2098)))),
        set(&["secret-unreadable"])
    );
}

#[test]
fn the_calling_side_validates_servers() {
    let with = |field: &str, value: Value| {
        let pointer = format!("{CLIENT_TLS}/combined_validation_context/default_validation_context");
        Delivered::sound("client").set(&pointer, field, value).found()
    };
    let matcher = |kind: &str, exact: &str| json!([{"san_type": kind, "matcher": {"exact": exact}}]);
    let none = set(&["nothing-to-guard"]);
    let and = |code: &str| none.iter().cloned().chain([code.to_owned()]).collect::<BTreeSet<_>>();
    let field = "match_typed_subject_alt_names";
    assert_eq!(with(field, json!([])), and("server-unchecked"));
    assert_eq!(with(field, matcher("DNS", "httpbin")), and("server-name-filtered"));
    assert_eq!(with(field, matcher("URI", "spiffe://cluster.local/ns/a/sa/b")), and("bundle-missing"));
    assert_eq!(with("trust_chain_verification", json!("ACCEPT_UNTRUSTED")), and("untrusted-accepted"));
    let unvalidated = Delivered::sound("client").set(CLIENT_TLS, "combined_validation_context", json!(null));
    assert_eq!(unvalidated.found(), and("server-not-validated"));

    // A cluster that waits for its secret explains why there is no listener.
    let mut waiting = Delivered::sound("client");
    let cluster = waiting.bootstrap.pointer("/static_resources/clusters/0").unwrap().clone();
    waiting.bootstrap["static_resources"]["listeners"] = json!([]);
    waiting.warming = vec![json!({"cluster": cluster})];
    waiting.secrets.remove(0);
    let waiting = waiting
        .stats("sds.default.update_failure: 0", "sds.default.update_failure: 3")
        .stats("sds.default.control_plane.connected_state: 1", "sds.default.control_plane.connected_state: 0")
        .stats("workers_started: 1", "workers_started: 0");
    let report = waiting.report();
    let explained = ["cluster-warming", "listener-warming", "filter-unknown"];
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings[0]["code"], "workload-unknown", "{findings:#?}");
    assert_eq!(all_codes(&report), set(&[&explained[..], &["workload-unknown"]].concat()));
    for finding in findings.iter().filter(|finding| explained.contains(&finding["code"].as_str().unwrap())) {
        assert_eq!(finding["consequenceOf"], "workload-unknown", "{finding}");
    }
}

/// Trust domains that the document does not name are safe only with one bundle for each.
#[test]
fn an_open_federation_needs_the_spiffe_validator() {
    let config =
        "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config";
    let own = certificates::Authority::of("example.org");
    let svid = certificates::certificate("default", &own.svid(certificates::SERVER, (2025, 2098)));
    let found = |federated: Value, bundle: Value| {
        let document = json!({
            "trustDomain": "example.org", "federatedTrustDomains": federated, "identity": {"requireValidated": true},
            "policies": []
        });
        let text = json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": document.to_string()});
        Delivered::of("server", vec![svid.clone(), bundle]).set(config, "configuration", text).found()
    };
    let single = || certificates::validation(json!({"trusted_ca": certificates::inline(&own.pem)}));
    let other = certificates::Authority::of("a.example");
    let several = || certificates::bundles(&[("example.org", &own.pem), ("a.example", &other.pem)]);
    for open in [json!("validated"), json!(["*.example"])] {
        assert_eq!(found(open.clone(), single()), set(&["federation-open", "spiffe-validator-missing"]), "{open}");
        assert_eq!(found(open, several()), set(&[]));
    }
    assert_eq!(found(json!([]), single()), set(&["spiffe-validator-missing"]));
    assert_eq!(found(json!([]), several()), set(&["bundle-unnamed"]));
}
