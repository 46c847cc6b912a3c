use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Authorizer, Caller, Connection, MAX_REMEMBERED};
use crate::certificate::CertificateReason;
use crate::certificate::der_writer::{
    Extension, basic_constraints, certificate, extended_key_usage, key_usage, subject_alt_name,
};
use crate::decision::{DenyReason, Outcome, Verdict};
use crate::metadata::Object;
use crate::peer::IdentityReason;
use crate::policy::Policy;
use crate::request::{AddressOf, Attributes, HostFailure, Request};
use crate::spiffe_id::SpiffeIdReason;
use crate::xfcc::XfccReason;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ID: &str = "spiffe://example.org/ns/default/sa/sleep";

fn leaf(id: &str) -> Vec<u8> {
    let extensions: [Extension; 4] = [
        basic_constraints(false),
        key_usage(true, 0x80),
        extended_key_usage(&[1, 2]),
        subject_alt_name(false, &[(6, id.as_bytes())]),
    ];
    certificate("sleep", &extensions)
}

/// A connection that tells what it was given, and counts how often its certificate was asked for.
struct FakeConnection {
    id: Result<Option<u64>, HostFailure>,
    certificate: Result<Option<Vec<u8>>, HostFailure>,
    uri: Result<Option<Vec<u8>>, HostFailure>,
    digest: Result<Option<Vec<u8>>, HostFailure>,
    valid: Result<Option<bool>, HostFailure>,
    principal: Result<Option<Vec<u8>>, HostFailure>,
    asked: Cell<u32>,
}

impl FakeConnection {
    fn of(number: u64, id: &str) -> Self {
        let certificate = leaf(id);
        let digest: String = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: Ok(Some(number)),
            certificate: Ok(Some(certificate)),
            uri: Ok(Some(id.into())),
            digest: Ok(Some(digest.into())),
            valid: Ok(Some(true)),
            principal: Ok(None),
            asked: Cell::new(0),
        }
    }

    fn without_certificate() -> Self {
        Self { certificate: Ok(None), uri: Ok(None), digest: Ok(None), valid: Ok(None), ..Self::of(1, ID) }
    }
}

impl Connection for FakeConnection {
    fn id(&self) -> Result<Option<u64>, HostFailure> {
        self.id
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.asked.set(self.asked.get() + 1);
        self.certificate.clone()
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.uri.clone()
    }

    fn peer_certificate_digest(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.digest.clone()
    }

    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure> {
        self.valid
    }

    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.asked.set(self.asked.get() + 1);
        self.principal.clone()
    }
}

/// A GET of `/x`; `path` and `headers` may fail.
#[derive(Clone)]
struct FakeRequest {
    path: Result<Option<&'static [u8]>, HostFailure>,
    headers: Result<Vec<(String, Vec<u8>)>, HostFailure>,
}

impl FakeRequest {
    const PLAIN: Self = Self { path: Ok(Some(b"/x")), headers: Ok(Vec::new()) };

    fn with_xfcc(lines: &[String]) -> Self {
        let headers = lines.iter().map(|line| ("X-Forwarded-Client-Cert".to_owned(), line.clone().into_bytes()));
        Self { headers: Ok(headers.collect()), ..Self::PLAIN }
    }
}

impl Attributes for FakeRequest {
    type Text = &'static [u8];
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'static [u8]>, HostFailure> {
        Ok(Some(b"GET"))
    }

    fn path(&self) -> Result<Option<&'static [u8]>, HostFailure> {
        self.path
    }

    fn authority(&self) -> Result<Option<&'static [u8]>, HostFailure> {
        Ok(None)
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(Some(8443))
    }

    fn headers(&self) -> Result<Vec<(String, Vec<u8>)>, HostFailure> {
        self.headers.clone()
    }

    fn address(&self, _: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        Ok(None)
    }

    fn server_name(&self) -> Result<Option<&'static [u8]>, HostFailure> {
        Ok(None)
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Ok(Object::default())
    }
}

fn authorizer(identity: &str) -> Authorizer {
    let document = format!(
        r#"{{"trustDomain": "example.org", "identity": {identity}, "policies": [
            {{"name": "x", "rules": [{{"to": [{{"operation": {{"paths": ["/x"]}}}}]}}]}},
            {{"name": "y", "action": "DENY", "rules": [{{"from": [{{"source": {{"principals": ["*/sa/bad"]}}}}]}}]}}
        ]}}"#
    );
    Authorizer::new(Policy::from_json(document.as_bytes()).unwrap())
}

fn caller(authorizer: &Authorizer, connection: &FakeConnection) -> (Arc<Caller>, bool) {
    authorizer.caller(connection, &Request::new(FakeRequest::PLAIN))
}

fn verdict(authorizer: &Authorizer, connection: &FakeConnection) -> Verdict {
    verdict_of(authorizer, connection, FakeRequest::PLAIN)
}

fn verdict_of(authorizer: &Authorizer, connection: &FakeConnection, request: FakeRequest) -> Verdict {
    let request = Request::new(request);
    let (caller, _) = authorizer.caller(connection, &request);
    authorizer.authorize(&caller, &request).decision.verdict
}

fn denied(reason: IdentityReason) -> Verdict {
    Verdict::Deny(DenyReason::Identity(reason))
}

#[test]
fn a_good_peer_is_decided_by_policy() {
    let authorizer = authorizer("{}");
    let (found, is_new) = caller(&authorizer, &FakeConnection::of(1, ID));
    assert!(is_new);
    assert_eq!(found.peer().map(|peer| peer.spiffe_id()), Some(ID));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(2, ID)), Verdict::Allow);
    let bad = FakeConnection::of(3, "spiffe://example.org/ns/default/sa/bad");
    assert_eq!(verdict(&authorizer, &bad), Verdict::Deny(DenyReason::DeniedByPolicy));
}

#[test]
fn whatever_is_wrong_with_the_identity_is_denied_by_its_name() {
    let good = || FakeConnection::of(1, ID);
    let other = |id: &str| FakeConnection::of(1, id);
    for (connection, reason) in [
        (FakeConnection::without_certificate(), IdentityReason::NoPeerCertificate),
        (FakeConnection { certificate: Err(HostFailure), ..good() }, IdentityReason::PeerCertificateUnreadable),
        (FakeConnection { uri: Err(HostFailure), ..good() }, IdentityReason::PeerCertificateUnreadable),
        (FakeConnection { digest: Err(HostFailure), ..good() }, IdentityReason::PeerCertificateUnreadable),
        (FakeConnection { uri: Ok(None), ..good() }, IdentityReason::PeerCertificateMismatch),
        (FakeConnection { uri: Ok(Some(b"spiffe://x/y".into())), ..good() }, IdentityReason::PeerCertificateMismatch),
        (FakeConnection { digest: Ok(None), ..good() }, IdentityReason::PeerCertificateMismatch),
        (FakeConnection { digest: Ok(Some(b"00".into())), ..good() }, IdentityReason::PeerCertificateMismatch),
        (
            FakeConnection { digest: other("spiffe://example.org/z").digest, ..good() },
            IdentityReason::PeerCertificateMismatch,
        ),
        (other("spiffe://example.com/ns/a/sa/b"), IdentityReason::ForeignTrustDomain),
        (other("spiffe://example.org/a"), IdentityReason::WrongPattern),
        (other("spiffe://example.org/spire/server"), IdentityReason::ReservedPath),
    ] {
        assert_eq!(verdict(&authorizer("{}"), &connection), denied(reason));
        // An optional peer that shows a certificate must show a good one.
        let optional = verdict(&authorizer(r#"{"peer": "optional"}"#), &connection);
        let expected = if reason == IdentityReason::NoPeerCertificate { Verdict::Allow } else { denied(reason) };
        assert_eq!(optional, expected);
    }
    let garbage = FakeConnection { certificate: Ok(Some(b"garbage".into())), ..good() };
    assert!(matches!(
        verdict(&authorizer("{}"), &garbage),
        Verdict::Deny(DenyReason::Identity(IdentityReason::Certificate(_)))
    ));
}

#[test]
fn validation_on_this_handshake_can_be_required() {
    let not_validated = IdentityReason::PeerCertificateNotValidated;
    for (valid, expected) in [
        (Ok(Some(true)), Verdict::Allow),
        (Ok(Some(false)), denied(not_validated)),
        (Ok(None), denied(not_validated)),
        (Err(HostFailure), denied(IdentityReason::PeerCertificateUnreadable)),
    ] {
        let connection = FakeConnection { valid, ..FakeConnection::of(1, ID) };
        assert_eq!(verdict(&authorizer(r#"{"requireValidated": true}"#), &connection), expected);
        assert_eq!(verdict(&authorizer("{}"), &connection), Verdict::Allow);
    }
}

#[test]
fn a_connection_is_asked_once() {
    let authorizer = authorizer("{}");
    let connection = FakeConnection::of(7, ID);
    let (first, _) = caller(&authorizer, &connection);
    let (second, is_new) = caller(&authorizer, &connection);
    assert!(Arc::ptr_eq(&first, &second) && !is_new);
    assert_eq!(connection.asked.get(), 1);
    // A denied one too.
    let nobody = FakeConnection { id: Ok(Some(8)), ..FakeConnection::without_certificate() };
    caller(&authorizer, &nobody);
    caller(&authorizer, &nobody);
    assert_eq!(nobody.asked.get(), 1);
}

#[test]
fn what_could_not_be_read_is_not_remembered() {
    let authorizer = authorizer("{}");
    let broken = FakeConnection { certificate: Err(HostFailure), ..FakeConnection::of(9, ID) };
    assert_eq!(verdict(&authorizer, &broken), denied(IdentityReason::PeerCertificateUnreadable));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(9, ID)), Verdict::Allow);
    // Without a number nothing can be remembered.
    for id in [Ok(None), Err(HostFailure)] {
        let nameless = FakeConnection { id, ..FakeConnection::of(0, ID) };
        assert_eq!(verdict(&authorizer, &nameless), Verdict::Allow);
        assert_eq!(verdict(&authorizer, &nameless), Verdict::Allow);
        assert_eq!(nameless.asked.get(), 2);
    }
}

#[test]
fn the_oldest_connection_is_forgotten_first() {
    let authorizer = authorizer("{}");
    let newest = u64::try_from(MAX_REMEMBERED).unwrap();
    for number in 0..=newest {
        caller(&authorizer, &FakeConnection { id: Ok(Some(number)), ..FakeConnection::without_certificate() });
    }
    let asked = |number| {
        let connection = FakeConnection { id: Ok(Some(number)), ..FakeConnection::without_certificate() };
        caller(&authorizer, &connection);
        connection.asked.get()
    };
    assert_eq!((asked(1), asked(newest), asked(0)), (0, 0, 1));
    assert_eq!(authorizer.callers.borrow().order.len(), MAX_REMEMBERED);
}

#[test]
fn an_unreadable_request_is_denied() {
    let authorizer = authorizer("{}");
    let (found, _) = caller(&authorizer, &FakeConnection::of(1, ID));
    let with_path = |path| Request::new(FakeRequest { path, ..FakeRequest::PLAIN });
    let outcome: Outcome<'_> = authorizer.authorize(&found, &with_path(Err(HostFailure)));
    assert_eq!(outcome.decision.verdict, Verdict::Deny(DenyReason::RequestUnreadable));
    // An absent path matches nothing.
    let outcome = authorizer.authorize(&found, &with_path(Ok(None)));
    assert_eq!(outcome.decision.verdict, Verdict::Deny(DenyReason::NoPolicyAllows));
}

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
        (Ok(Some("-")), denied(no_id.into())),
        (Ok(Some("spiffe://example.com/ns/a/sa/b")), denied(IdentityReason::ForeignTrustDomain)),
    ] {
        assert_eq!(verdict(&authorizer(from_tunnel), &tunnel(principal)), expected, "{principal:?}");
        let optional = verdict(&authorizer(r#"{"from": "peerPrincipal", "peer": "optional"}"#), &tunnel(principal));
        assert_eq!(optional, if principal == Ok(None) { Verdict::Allow } else { expected }, "{principal:?}");
    }
    // The connection's own certificate is not looked at, and the tunnel is asked once.
    let authorizer = authorizer(from_tunnel);
    let connection = tunnel(Ok(Some(ID)));
    assert_eq!((caller(&authorizer, &connection).1, caller(&authorizer, &connection).1), (true, false));
    assert_eq!(connection.asked.get(), 1);
    assert_eq!(verdict(&authorizer, &FakeConnection::of(2, ID)), denied(IdentityReason::PeerPrincipalMissing));
}

const PROXY: &str = "spiffe://example.org/gateway";
const FROM_PROXY: &str = r#"{"from": "xfcc", "trustedProxies": ["example.org/gateway"]}"#;

#[test]
fn a_named_proxy_tells_the_caller_of_each_request() {
    let proxy = FakeConnection::of(1, PROXY);
    let authorizer = authorizer(FROM_PROXY);
    let told = |line: &str| verdict_of(&authorizer, &proxy, FakeRequest::with_xfcc(&[line.to_owned()]));
    assert_eq!(told(&format!("By={PROXY};URI={ID}")), Verdict::Allow);
    assert_eq!(told("URI=spiffe://example.org/ns/a/sa/bad"), Verdict::Deny(DenyReason::DeniedByPolicy));
    assert_eq!(told(&format!("URI={ID}")), Verdict::Allow);
    assert_eq!(proxy.asked.get(), 1);
    let no_path = CertificateReason::SpiffeId(SpiffeIdReason::NoPath);
    for (line, reason) in [
        ("URI=spiffe://example.org", no_path.into()),
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
    let good = || FakeConnection::of(1, PROXY);
    for (connection, reason) in [
        (FakeConnection::of(1, ID), IdentityReason::UntrustedProxy),
        (FakeConnection::of(1, "spiffe://example.org/gateway/x"), IdentityReason::UntrustedProxy),
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
    // Without the header, a caller of a named proxy is one without identity, where that is allowed.
    let optional = FROM_PROXY.replace('}', r#", "peer": "optional"}"#);
    assert_eq!(verdict(&authorizer(&optional), &good()), Verdict::Allow);
}
