//! Fakes of a connection and a request, and callers with certificates.

mod lifetime_tests;
mod source_tests;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{CAPACITY, Caller, Callers};
use crate::certificate::CertificateReason;
use crate::certificate::der_writer::{
    Extension, authority_key_id, basic_constraints, certificate, extended_key_usage, key_usage, subject_alt_name,
};
use crate::decision::{DenyReason, Outcome, Verdict};
use crate::host::{AddressOf, Connection, HostFailure, RequestAttributes};
use crate::identity::IdentityReason;
use crate::identity::xfcc::XfccReason;
use crate::metadata::Object;
use crate::policy::{Mode, PolicySet};
use crate::request::Request;
use crate::spiffe_id::SpiffeIdReason;
use crate::timestamp::Timestamp;
use crate::worker::{Revocations, Worker};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ID: &str = "spiffe://example.org/ns/default/sa/sleep";
const PROXY: &str = "spiffe://example.org/gateway";
const FROM_PROXY: &str = r#"{"from": "xfcc", "trustedProxies": ["example.org/gateway"]}"#;
/// The certificates of `der_writer` are valid from 2026 through the first second of 2036.
const NOW: Timestamp = Timestamp::from_seconds(1_780_272_000);

fn at(moment: &str) -> Timestamp {
    Timestamp::parse(moment).unwrap()
}

fn leaf(id: &str) -> Vec<u8> {
    leaf_with(id, &[])
}

fn leaf_with(id: &str, more: &[Extension]) -> Vec<u8> {
    let extensions: [Extension; 4] = [
        basic_constraints(false),
        key_usage(true, 0x80),
        extended_key_usage(&[1, 2]),
        subject_alt_name(false, &[(6, id.as_bytes())]),
    ];
    certificate("sleep", &[&extensions, more].concat())
}

/// A connection with these attributes, which counts the reads of its certificate or principal.
struct FakeConnection {
    certificate: Result<Option<Vec<u8>>, HostFailure>,
    uri: Result<Option<Vec<u8>>, HostFailure>,
    digest: Result<Option<Vec<u8>>, HostFailure>,
    valid: Result<Option<bool>, HostFailure>,
    principal: Result<Option<Vec<u8>>, HostFailure>,
    exposes: Result<bool, HostFailure>,
    is_mutual_tls: Result<Option<bool>, HostFailure>,
    asked: Cell<u32>,
}

impl FakeConnection {
    fn of(id: &str) -> Self {
        let certificate = leaf(id);
        let digest: String = Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            certificate: Ok(Some(certificate)),
            uri: Ok(Some(id.into())),
            digest: Ok(Some(digest.into())),
            valid: Ok(Some(true)),
            principal: Ok(None),
            exposes: Ok(true),
            is_mutual_tls: Ok(Some(true)),
            asked: Cell::new(0),
        }
    }

    fn without_certificate() -> Self {
        let is_mutual_tls = Ok(Some(false));
        Self { certificate: Ok(None), uri: Ok(None), digest: Ok(None), valid: Ok(None), is_mutual_tls, ..Self::of(ID) }
    }
}

impl Connection for FakeConnection {
    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure> {
        self.exposes
    }

    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure> {
        self.is_mutual_tls
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.asked.set(self.asked.get() + 1);
        self.certificate.clone()
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        self.uri.clone()
    }

    fn peer_certificate_digest(&self) -> Result<Option<impl AsRef<[u8]>>, HostFailure> {
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

/// A GET of `/x`, whose `path` and `headers` can fail.
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

impl RequestAttributes for FakeRequest {
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

/// A policy set with the cached callers of a worker.
struct Authorizer {
    policy: PolicySet,
    callers: RefCell<Callers>,
    revocations: Arc<Revocations>,
    now: Timestamp,
}

fn policy(identity: &str) -> PolicySet {
    let document = format!(
        r#"{{"trustDomain": "example.org", "identity": {identity}, "policies": [
            {{"name": "x", "rules": [{{"to": [{{"operation": {{"paths": ["/x"]}}}}]}}]}},
            {{"name": "y", "action": "DENY", "rules": [{{"from": [{{"source": {{"principals": ["*/sa/bad"]}}}}]}}]}}
        ]}}"#
    );
    PolicySet::from_json(document.as_bytes()).unwrap()
}

fn authorizer(identity: &str) -> Authorizer {
    under(policy(identity))
}

fn under(policy: PolicySet) -> Authorizer {
    Authorizer { policy, callers: RefCell::default(), revocations: Arc::default(), now: NOW }
}

fn caller(authorizer: &Authorizer, connection: &FakeConnection) -> Arc<Caller> {
    let request = Request::new(FakeRequest::PLAIN, NOW);
    authorizer.callers.borrow_mut().caller(&authorizer.policy, connection, &request)
}

fn verdict(authorizer: &Authorizer, connection: &FakeConnection) -> Verdict {
    verdict_of(authorizer, connection, FakeRequest::PLAIN)
}

fn verdict_of(authorizer: &Authorizer, connection: &FakeConnection, request: FakeRequest) -> Verdict {
    let request = Request::new(request, authorizer.now);
    let caller = authorizer.callers.borrow_mut().caller(&authorizer.policy, connection, &request);
    caller.decide(&authorizer.policy, &authorizer.revocations, &request).decision.verdict
}

fn denied(reason: IdentityReason) -> Verdict {
    Verdict::Deny(DenyReason::Identity(reason))
}

#[test]
fn a_good_peer_is_decided_by_policy() {
    let authorizer = authorizer("{}");
    let found = caller(&authorizer, &FakeConnection::of(ID));
    assert_eq!(found.peer().map(|peer| peer.id().as_str()), Some(ID));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), Verdict::Allow);
    let bad = FakeConnection::of("spiffe://example.org/ns/default/sa/bad");
    assert_eq!(verdict(&authorizer, &bad), Verdict::Deny(DenyReason::DeniedByPolicy));
}

#[test]
fn whatever_is_wrong_with_the_identity_is_denied_by_its_name() {
    let good = || FakeConnection::of(ID);
    let other = |id: &str| FakeConnection::of(id);
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
        // An optional peer that presents a certificate must present a valid one.
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
        let connection = FakeConnection { valid, ..FakeConnection::of(ID) };
        assert_eq!(verdict(&authorizer(r#"{"requireValidated": true}"#), &connection), expected);
        assert_eq!(verdict(&authorizer("{}"), &connection), Verdict::Allow);
    }
}

#[test]
fn a_certificate_is_read_once() {
    let authorizer = authorizer("{}");
    let connection = FakeConnection::of(ID);
    let (first, second) = (caller(&authorizer, &connection), caller(&authorizer, &connection));
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(connection.asked.get(), 1);
    // Another connection with the same certificate, too.
    let other = FakeConnection::of(ID);
    assert!(Arc::ptr_eq(&first, &caller(&authorizer, &other)));
    assert_eq!(other.asked.get(), 0);
    // A new configuration uses the parsed certificate.
    let next = Authorizer { policy: policy("{}"), ..authorizer };
    let found = caller(&next, &other);
    assert!(!Arc::ptr_eq(&first, &found));
    assert_eq!((found.peer().map(|peer| peer.id().as_str()), other.asked.get()), (Some(ID), 0));
}

#[test]
fn one_caller_is_never_taken_for_another() {
    let authorizer = authorizer("{}");
    let bad = "spiffe://example.org/ns/default/sa/bad";
    for _ in 0..2 {
        assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), Verdict::Allow);
        assert_eq!(verdict(&authorizer, &FakeConnection::of(bad)), Verdict::Deny(DenyReason::DeniedByPolicy));
    }
    // A digest that is cached for a different certificate is not enough if Envoy exposes none.
    let hidden = FakeConnection { exposes: Ok(false), ..FakeConnection::of(ID) };
    assert_eq!(verdict(&authorizer, &hidden), denied(IdentityReason::PeerCertificateUnreadable));
    let failing = FakeConnection { exposes: Err(HostFailure), ..FakeConnection::of(ID) };
    assert_eq!(verdict(&authorizer, &failing), denied(IdentityReason::PeerCertificateUnreadable));
}

#[test]
fn validation_belongs_to_the_connection_and_not_to_the_certificate() {
    let authorizer = authorizer(r#"{"requireValidated": true}"#);
    let resumed = || FakeConnection { valid: Ok(Some(false)), ..FakeConnection::of(ID) };
    assert_eq!(verdict(&authorizer, &resumed()), denied(IdentityReason::PeerCertificateNotValidated));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), Verdict::Allow);
    assert_eq!(verdict(&authorizer, &resumed()), denied(IdentityReason::PeerCertificateNotValidated));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), Verdict::Allow);
}

#[test]
fn no_certificate_needs_evidence() {
    let optional = authorizer(r#"{"peer": "optional"}"#);
    let none = FakeConnection::without_certificate;
    assert_eq!(verdict(&optional, &none()), Verdict::Allow);
    for connection in [
        FakeConnection { is_mutual_tls: Ok(Some(true)), ..none() },
        FakeConnection { is_mutual_tls: Ok(None), ..none() },
        FakeConnection { is_mutual_tls: Err(HostFailure), ..none() },
        FakeConnection { uri: Ok(Some(ID.into())), ..none() },
        FakeConnection { digest: FakeConnection::of(ID).digest, ..none() },
        FakeConnection { digest: Ok(Some(Vec::new())), ..none() },
    ] {
        assert_eq!(verdict(&optional, &connection), denied(IdentityReason::PeerCertificateUnreadable));
    }
}

#[test]
fn only_accepted_identities_are_cached() {
    let authorizer = authorizer("{}");
    for connection in [
        FakeConnection::of("spiffe://example.com/ns/a/sa/b"),
        FakeConnection::of("spiffe://example.org/no-pattern"),
        FakeConnection { uri: Ok(None), ..FakeConnection::of(ID) },
        FakeConnection::without_certificate(),
        FakeConnection { certificate: Err(HostFailure), ..FakeConnection::of(ID) },
    ] {
        assert_eq!(caller(&authorizer, &connection).peer(), None);
    }
    let cached = |authorizer: &Authorizer| {
        let callers = authorizer.callers.borrow();
        (callers.svids.len(), callers.by_certificate.len(), callers.by_principal.len())
    };
    assert_eq!(cached(&authorizer), (0, 0, 0));
    assert_eq!(verdict(&authorizer, &FakeConnection::of(ID)), Verdict::Allow);
    assert_eq!(cached(&authorizer), (1, 1, 0));
    // The callers of a configuration are dropped with it.
    authorizer.callers.borrow_mut().forget(authorizer.policy.id());
    assert_eq!(cached(&authorizer), (1, 0, 0));
}

#[test]
fn the_cache_is_bounded_for_all_policy_sets_together() {
    let mut callers = Callers::default();
    let policies = [policy("{}"), policy("{}"), policy("{}")];
    let connection = FakeConnection::of(ID);
    for number in 0..CAPACITY {
        // Parsing thousands of certificates is slow. The bound of the cache applies to the keys.
        let digest = Sha256::digest(number.to_le_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let digest = crate::certificate::Digest::from_hex(digest.as_bytes()).unwrap();
        for policy in &policies {
            let caller = callers.caller(policy, &connection, &Request::new(FakeRequest::PLAIN, NOW));
            callers.by_certificate.insert((policy.id(), digest), caller);
        }
    }
    assert!(callers.by_certificate.len() <= 2 * CAPACITY);
    assert_eq!((callers.svids.len(), connection.asked.get()), (1, 1));
}

#[test]
fn an_unreadable_request_is_denied() {
    let authorizer = authorizer("{}");
    let found = caller(&authorizer, &FakeConnection::of(ID));
    let with_path = |path| Request::new(FakeRequest { path, ..FakeRequest::PLAIN }, NOW);
    let outcome: Outcome<'_> = found.decide(&authorizer.policy, &authorizer.revocations, &with_path(Err(HostFailure)));
    assert_eq!(outcome.decision.verdict, Verdict::Deny(DenyReason::RequestUnreadable));
    // An absent path matches nothing.
    let outcome = found.decide(&authorizer.policy, &authorizer.revocations, &with_path(Ok(None)));
    assert_eq!(outcome.decision.verdict, Verdict::Deny(DenyReason::NoPolicyAllows));
}
