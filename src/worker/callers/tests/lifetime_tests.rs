//! The end of identities: expiry, revocation, and the time for which a decision is valid.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn an_svid_ends_while_it_is_cached() {
    let last = at("2036-01-01T00:00:00Z");
    let after = at("2036-01-01T00:00:01Z");
    for (identity, now, expected) in [
        ("{}", last, Verdict::Allow),
        ("{}", after, denied(IdentityReason::SvidExpired)),
        (r#"{"expired": "deny"}"#, after, denied(IdentityReason::SvidExpired)),
        (r#"{"expired": "allow"}"#, after, Verdict::Allow),
        (r#"{"maxAge": "1d"}"#, at("2026-01-02T00:00:00Z"), Verdict::Allow),
        (r#"{"maxAge": "1d"}"#, at("2026-01-02T00:00:01Z"), denied(IdentityReason::SvidTooOld)),
        (r#"{"maxAge": "1d", "expired": "allow"}"#, after, denied(IdentityReason::SvidTooOld)),
        (r#"{"maxAge": "1d"}"#, after, denied(IdentityReason::SvidExpired)),
    ] {
        let first = Authorizer { now: at("2026-01-01T00:00:00Z"), ..authorizer(identity) };
        let connection = FakeConnection::of(ID);
        assert_eq!(verdict(&first, &connection), Verdict::Allow);
        let later = Authorizer { now, ..first };
        assert_eq!(verdict(&later, &connection), expected, "{identity} at {now}");
        assert_eq!(connection.asked.get(), 1, "the certificate is cached");
    }
    // With `from: xfcc`, the certificate belongs to the proxy.
    let proxy = FakeConnection::of(PROXY);
    let told = |now| {
        let line = format!("By={PROXY};URI={ID}");
        verdict_of(&Authorizer { now, ..authorizer(FROM_PROXY) }, &proxy, FakeRequest::with_xfcc(&[line]))
    };
    assert_eq!([told(last), told(after)], [Verdict::Allow, denied(IdentityReason::SvidExpired)]);
}

#[test]
fn identities_are_revoked_by_everything_that_names_them() {
    let revoked = denied(IdentityReason::Revoked);
    for (list, expected) in [
        (r#""spiffeIds": ["spiffe://example.org/ns/default/sa/sleep"]"#, revoked),
        (r#""spiffeIds": ["spiffe://example.org/ns/default/sa/sleepy"]"#, Verdict::Allow),
        (r#""trustDomains": ["example.org"]"#, revoked),
        (r#""trustDomains": ["example.io", "xample.org"]"#, Verdict::Allow),
        // The serial number of every certificate here.
        (r#""serialNumbers": ["01"]"#, revoked),
        (r#""serialNumbers": ["00:01"]"#, revoked),
        (r#""serialNumbers": ["02", "10"]"#, Verdict::Allow),
        // The certificates here do not name their authority, so that it could be this one.
        (r#""authorityKeyIds": ["0A:1B"]"#, revoked),
    ] {
        let identity = format!(r#"{{"revoked": {{{list}}}}}"#);
        let authorizer = authorizer(&identity);
        for _ in 0..2 {
            assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), expected, "{list}");
        }
    }
    let proxied = |list: &str| {
        let identity = FROM_PROXY.replacen('{', &format!(r#"{{"revoked": {{{list}}}, "#), 1);
        let line = format!("By={PROXY};URI={ID}");
        verdict_of(&authorizer(&identity), &FakeConnection::of(PROXY), FakeRequest::with_xfcc(&[line]))
    };
    assert_eq!(proxied(r#""spiffeIds": ["spiffe://example.org/gateway"]"#), revoked);
    assert_eq!(proxied(r#""spiffeIds": ["spiffe://example.org/ns/default/sa/sleep"]"#), revoked);
    assert_eq!(proxied(r#""spiffeIds": ["spiffe://example.org/ns/default/sa/other"]"#), Verdict::Allow);
}

#[test]
fn an_authority_is_revoked_by_its_key() {
    let issued_by = |key: &[u8]| {
        let certificate = leaf_with(ID, &[authority_key_id(key)]);
        let digest: String = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        FakeConnection { certificate: Ok(Some(certificate)), digest: Ok(Some(digest.into())), ..FakeConnection::of(ID) }
    };
    let authorizer = authorizer(r#"{"revoked": {"authorityKeyIds": ["0a1b"]}}"#);
    assert_eq!(verdict(&authorizer, &issued_by(&[0x0a, 0x1b])), denied(IdentityReason::Revoked));
    assert_eq!(verdict(&authorizer, &issued_by(&[0x0a, 0x1c])), Verdict::Allow);
}

#[test]
fn a_later_configuration_revokes_for_earlier_ones() {
    let revoking = r#"{"revoked": {"spiffeIds": ["spiffe://example.org/ns/default/sa/sleep"]}}"#;
    let earlier = authorizer("{}");
    assert_eq!(verdict(&earlier, &FakeConnection::of(ID)), Verdict::Allow);
    let later = policy(revoking);
    let latest = Authorizer { revocations: Arc::clone(&earlier.revocations), ..authorizer("{}") };
    earlier.revocations.add(&later);
    assert_eq!(verdict(&earlier, &FakeConnection::of(ID)), denied(IdentityReason::Revoked));
    assert_eq!(verdict(&earlier, &FakeConnection::of("spiffe://example.org/ns/default/sa/other")), Verdict::Allow);
    assert_eq!(verdict(&latest, &FakeConnection::of(ID)), Verdict::Allow, "a configuration does not obey earlier ones");
    earlier.revocations.remove(later.id());
    assert_eq!(verdict(&earlier, &FakeConnection::of(ID)), Verdict::Allow);
    // A configuration of a different trust domain belongs to a different filter.
    let foreign = revoking.replace("{\"revoked\"", "{\"pattern\": \"any\", \"revoked\"");
    let foreign = format!(r#"{{"trustDomain": "example.com", "identity": {foreign}, "policies": []}}"#);
    earlier.revocations.add(&PolicySet::from_json(foreign.as_bytes()).unwrap());
    assert_eq!(verdict(&earlier, &FakeConnection::of(ID)), Verdict::Allow);
}

#[test]
fn a_decision_on_a_connection_holds_for_a_while() {
    let document = r#"{"trustDomain": "example.org", "policies": [
        {"name": "x", "rules": [{}], "notBefore": "2026-02-01T00:00:00Z", "expires": "2026-03-01T00:00:00Z"}]}"#;
    let policy = PolicySet::from_json(document.as_bytes()).unwrap();
    let revocations = Arc::<Revocations>::default();
    let mut worker = Worker::new(Arc::clone(&revocations));
    let connection = FakeConnection::of(ID);
    for (now, denial, holds_before) in [
        ("2026-01-15T00:00:00Z", Some(DenyReason::NoPolicyAllows), "2026-02-01T00:00:00Z"),
        ("2026-02-01T00:00:00Z", None, "2026-03-01T00:00:00Z"),
        ("2026-03-01T00:00:00Z", Some(DenyReason::NoPolicyAllows), "2036-01-01T00:00:01Z"),
        (
            "2036-01-01T00:00:01Z",
            Some(DenyReason::Identity(IdentityReason::SvidExpired)),
            // The lease ended before the decision.
            "2036-01-01T00:00:01Z",
        ),
    ] {
        let ruling = worker.decide(&policy, Mode::Enforce, &connection, FakeRequest::PLAIN, || Ok(at(now)));
        assert_eq!(ruling.denial(), denial, "{now}");
        let end = at(holds_before);
        let last = Timestamp::from_seconds(end.seconds() - 1);
        let lease = ruling.lease();
        assert!(worker.holds(&lease, || Ok(last)) && !worker.holds(&lease, || Ok(end)), "{now}");
        assert!(!worker.holds(&lease, || Err(HostFailure)));
        let later = self::policy(r#"{"revoked": {"trustDomains": ["example.io"]}}"#);
        revocations.add(&later);
        assert!(!worker.holds(&lease, || Ok(last)), "something was revoked");
        revocations.remove(later.id());
    }
}

#[test]
fn without_a_clock_nothing_is_allowed() {
    let policy = policy("{}");
    let connection = FakeConnection::of(ID);
    let mut worker = Worker::default();
    for mode in [Mode::Enforce, Mode::Shadow] {
        let ruling = worker.decide(&policy, mode, &connection, FakeRequest::PLAIN, || Err(HostFailure));
        assert_eq!(ruling.denial(), Some(DenyReason::ClockUnavailable));
    }
}
