//! The sources without a certificate of the caller: HBONE, and the header of a trusted proxy.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_tunnel_tells_one_identity() {
    let from_tunnel = r#"{"from": "peerPrincipal"}"#;
    let tunnel = |principal: Result<Option<&str>, HostFailure>| FakeConnection {
        principal: principal.map(|text| text.map(|text| text.as_bytes().into())),
        ..FakeConnection::without_certificate()
    };
    let no_id = CertificateReason::SpiffeId(SpiffeIdReason::Scheme);
    for (principal, expected) in [
        (Ok(Some(ID)), Verdict::Allow),
        (Ok(Some("spiffe://example.org/ns/a/sa/bad")), Verdict::Deny(DenyReason::DeniedByPolicy)),
        (Ok(None), denied(IdentityReason::PeerPrincipalMissing)),
        (Err(HostFailure), denied(IdentityReason::PeerPrincipalUnreadable)),
        (
            Ok(Some("spiffe://example.org/ns/a/sa/b,spiffe://example.org/c")),
            denied(IdentityReason::PeerPrincipalSeveral),
        ),
        (Ok(Some(",")), denied(IdentityReason::PeerPrincipalSeveral)),
        (Ok(Some("-")), denied(IdentityReason::Certificate(no_id))),
        (Ok(Some("spiffe://example.com/ns/a/sa/b")), denied(IdentityReason::ForeignTrustDomain)),
    ] {
        assert_eq!(verdict(&authorizer(from_tunnel), &tunnel(principal)), expected, "{principal:?}");
        let optional = verdict(&authorizer(r#"{"from": "peerPrincipal", "peer": "optional"}"#), &tunnel(principal));
        assert_eq!(optional, if principal == Ok(None) { Verdict::Allow } else { expected }, "{principal:?}");
    }
    // The connection's own certificate is ignored, and the principal is read once.
    let authorizer = authorizer(from_tunnel);
    let connection = tunnel(Ok(Some(ID)));
    assert!(Arc::ptr_eq(&caller(&authorizer, &connection), &caller(&authorizer, &connection)));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), denied(IdentityReason::PeerPrincipalMissing));
}

#[test]
fn a_named_proxy_tells_the_caller_of_each_request() {
    let proxy = FakeConnection::of(PROXY);
    let authorizer = authorizer(FROM_PROXY);
    let told = |line: &str| verdict_of(&authorizer, &proxy, FakeRequest::with_xfcc(&[line.to_owned()]));
    assert_eq!(told(&format!("By={PROXY};URI={ID}")), Verdict::Allow);
    assert_eq!(told("URI=spiffe://example.org/ns/a/sa/bad"), Verdict::Deny(DenyReason::DeniedByPolicy));
    assert_eq!(told(&format!("URI={ID}")), Verdict::Allow);
    assert_eq!(proxy.asked.get(), 1);
    let no_path = CertificateReason::SpiffeId(SpiffeIdReason::NoPath);
    for (line, reason) in [
        ("URI=spiffe://example.org", IdentityReason::Certificate(no_path)),
        ("URI=spiffe://example.com/ns/a/sa/b", IdentityReason::ForeignTrustDomain),
        ("URI=spiffe://example.org/gateway", IdentityReason::WrongPattern),
        ("By=spiffe://example.org/other;URI=spiffe://example.org/x", IdentityReason::Xfcc(XfccReason::NotByProxy)),
        ("URI=a,URI=b", IdentityReason::Xfcc(XfccReason::SeveralElements)),
        ("", IdentityReason::Xfcc(XfccReason::Malformed)),
    ] {
        assert_eq!(told(line), denied(reason), "{line}");
    }
    let two = [format!("URI={ID}"), format!("URI={ID}")];
    let several = verdict_of(&authorizer, &proxy, FakeRequest::with_xfcc(&two));
    assert_eq!(several, denied(IdentityReason::Xfcc(XfccReason::SeveralLines)));
    assert_eq!(verdict(&authorizer, &proxy), denied(IdentityReason::Xfcc(XfccReason::Missing)));
    let unreadable = FakeRequest { headers: Err(HostFailure), ..FakeRequest::PLAIN };
    let unreadable = verdict_of(&authorizer, &proxy, unreadable);
    assert_eq!(unreadable, denied(IdentityReason::Xfcc(XfccReason::Unreadable)));
}

#[test]
fn the_header_of_nobody_else_is_believed() {
    let good = || FakeConnection::of(PROXY);
    for (connection, reason) in [
        (FakeConnection::of(ID), IdentityReason::UntrustedProxy),
        (FakeConnection::of("spiffe://example.org/gateway/x"), IdentityReason::UntrustedProxy),
        (FakeConnection::without_certificate(), IdentityReason::NoPeerCertificate),
        (FakeConnection { uri: Ok(None), ..good() }, IdentityReason::PeerCertificateMismatch),
        (FakeConnection { certificate: Err(HostFailure), ..good() }, IdentityReason::PeerCertificateUnreadable),
    ] {
        for peer in ["required", "optional"] {
            let identity = FROM_PROXY.replace('}', &format!(r#", "peer": "{peer}"}}"#));
            let request = FakeRequest::with_xfcc(&[format!("URI={ID}")]);
            assert_eq!(verdict_of(&authorizer(&identity), &connection, request), denied(reason));
        }
    }
    let validated = FROM_PROXY.replace('}', r#", "requireValidated": true}"#);
    let resumed = FakeConnection { valid: Ok(Some(false)), ..good() };
    let request = FakeRequest::with_xfcc(&[format!("URI={ID}")]);
    let verdict_of_resumed = verdict_of(&authorizer(&validated), &resumed, request);
    assert_eq!(verdict_of_resumed, denied(IdentityReason::PeerCertificateNotValidated));
    // Without the header, the client of a trusted proxy is anonymous, if that is allowed.
    let optional = FROM_PROXY.replace('}', r#", "peer": "optional"}"#);
    assert_eq!(verdict(&authorizer(&optional), &good()), Verdict::Allow);
}
