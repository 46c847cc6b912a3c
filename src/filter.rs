//! What happens on a connection and on a request, the same for every adapter inside Envoy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::certificate::Svid;
use crate::decision::Outcome;
use crate::identity::{self, IdentitySource};
use crate::peer::{IdentityReason, Peer};
use crate::policy::{Candidates, Policy};
use crate::request::{Attributes, Headers as _, HostFailure, Request};
use crate::xfcc::{self, XfccReason};

/// Of how many connections one worker remembers the caller at most, some hundred bytes each.
const MAX_REMEMBERED: usize = 4096;

/// What Envoy tells of the connection that a request came in on. `Ok(None)` is an absent attribute.
pub trait Connection {
    /// A number that no other connection of this process has.
    ///
    /// # Errors
    /// When the host fails.
    fn id(&self) -> Result<Option<u64>, HostFailure>;

    /// The leaf certificate that the caller showed: PEM, plain or URL-encoded.
    ///
    /// # Errors
    /// When the host fails.
    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// The first URI subject alternative name of that certificate.
    ///
    /// # Errors
    /// When the host fails.
    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// The SHA-256 digest of that certificate's DER, as hexadecimal digits.
    ///
    /// # Errors
    /// When the host fails.
    fn peer_certificate_digest(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// Whether Envoy validated that certificate on this very handshake; not so where a TLS session was resumed.
    ///
    /// # Errors
    /// When the host fails.
    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure>;

    /// What the tunnel that the connection came through has left of its client certificate: Istio's filter state
    /// `io.istio.peer_principal`.
    ///
    /// # Errors
    /// When the host fails.
    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure>;
}

/// Who makes a request, and which rules can match it.
#[derive(Debug)]
pub struct Caller {
    identity: Result<Option<Peer>, IdentityReason>,
    candidates: Candidates,
}

impl Caller {
    /// The caller's identity, if it has one that counts.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.identity.as_ref().ok()?.as_ref()
    }
}

/// Decides the requests of one worker.
#[derive(Debug)]
pub struct Authorizer {
    policy: Arc<Policy>,
    callers: RefCell<Remembered<Arc<Caller>>>,
    /// Where proxies tell identities: the one at the other end of each connection, if it is believed.
    proxies: RefCell<Remembered<Result<Arc<str>, IdentityReason>>>,
}

impl Authorizer {
    /// An authorizer that remembers no caller yet.
    pub fn new(policy: impl Into<Arc<Policy>>) -> Self {
        Self { policy: policy.into(), callers: RefCell::default(), proxies: RefCell::default() }
    }

    /// What it decides by.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who makes this request on this connection. The second value tells whether that was found out just now: it is
    /// remembered for the next requests where it is the same for the life of a connection.
    pub fn caller<A: Attributes>(&self, connection: &impl Connection, request: &Request<A>) -> (Arc<Caller>, bool) {
        let of = |identity| Arc::new(self.caller_of(identity));
        match self.policy.identity_source() {
            IdentitySource::Xfcc(proxies) => (of(self.told_by_proxy(connection, request, proxies)), true),
            source @ (IdentitySource::Tls | IdentitySource::PeerPrincipal) => once(
                &self.callers,
                connection,
                || match source {
                    IdentitySource::PeerPrincipal => of(self.left_by_tunnel(connection)),
                    _ => of(self.shown_in_tls(connection)),
                },
                |caller| !matches!(caller.identity, Err(reason) if reason.may_pass()),
            ),
        }
    }

    fn caller_of(&self, identity: Result<Option<Peer>, IdentityReason>) -> Caller {
        let candidates = self.policy.candidates(identity.as_ref().ok().and_then(Option::as_ref));
        Caller { identity, candidates }
    }

    fn shown_in_tls(&self, connection: &impl Connection) -> Result<Option<Peer>, IdentityReason> {
        let svid = self.svid(connection)?;
        identity::of_id(svid.as_ref().map(|svid| svid.spiffe_id().as_bytes()), &self.policy)
    }

    fn left_by_tunnel(&self, connection: &impl Connection) -> Result<Option<Peer>, IdentityReason> {
        let principal = connection.peer_principal().map_err(|_| IdentityReason::PeerPrincipalUnreadable)?;
        identity::of_peer_principal(principal.as_deref(), &self.policy)
    }

    fn told_by_proxy<A: Attributes>(
        &self,
        connection: &impl Connection,
        request: &Request<A>,
        proxies: &[Box<str>],
    ) -> Result<Option<Peer>, IdentityReason> {
        let (proxy, _) = once(
            &self.proxies,
            connection,
            || {
                let svid = self.svid(connection)?.ok_or(IdentityReason::NoPeerCertificate)?;
                identity::trusted(svid.spiffe_id(), proxies).map(Arc::from)
            },
            |proxy| !matches!(proxy, Err(reason) if reason.may_pass()),
        );
        let proxy = proxy?;
        let headers = request.headers().map_err(|_| IdentityReason::Xfcc(XfccReason::Unreadable))?;
        identity::of_xfcc(headers.lines(xfcc::HEADER), &proxy, &self.policy)
    }

    /// The X509-SVID at the other end of the connection, if it has shown a certificate.
    fn svid(&self, connection: &impl Connection) -> Result<Option<Svid>, IdentityReason> {
        let unreadable = |_: HostFailure| IdentityReason::PeerCertificateUnreadable;
        let Some(certificate) = connection.peer_certificate().map_err(unreadable)? else { return Ok(None) };
        let svid = Svid::parse(&certificate).map_err(|error| error.reason())?;
        // Envoy's own reading of the certificate must be ours.
        let uri = connection.peer_uri_san().map_err(unreadable)?;
        let digest = connection.peer_certificate_digest().map_err(unreadable)?;
        if uri.as_deref() != Some(svid.spiffe_id().as_bytes()) || !digest.is_some_and(|digest| svid.has_digest(&digest))
        {
            return Err(IdentityReason::PeerCertificateMismatch);
        }
        if self.policy.requires_validated() && connection.peer_certificate_valid().map_err(unreadable)? != Some(true) {
            return Err(IdentityReason::PeerCertificateNotValidated);
        }
        Ok(Some(svid))
    }

    /// Decides one request of `caller`.
    #[must_use]
    pub fn authorize<A: Attributes>(&self, caller: &Caller, request: &Request<A>) -> Outcome<'_> {
        self.policy.authorize(&caller.identity, &caller.candidates, request)
    }
}

/// What was found out of a connection: remembered if it `lasts`, and found again where it did not. The second value tells
/// whether it was found just now.
fn once<V: Clone>(
    remembered: &RefCell<Remembered<V>>,
    connection: &impl Connection,
    find: impl FnOnce() -> V,
    lasts: impl FnOnce(&V) -> bool,
) -> (V, bool) {
    let Ok(Some(id)) = connection.id() else { return (find(), true) };
    if let Some(found) = remembered.borrow().by_connection.get(&id) {
        return (found.clone(), false);
    }
    let found = find();
    if lasts(&found) {
        remembered.borrow_mut().insert(id, found.clone());
    }
    (found, true)
}

/// What was found out of the latest connections, by their numbers.
#[derive(Debug)]
struct Remembered<V> {
    by_connection: FxHashMap<u64, V>,
    /// Oldest first.
    order: VecDeque<u64>,
}

impl<V> Default for Remembered<V> {
    fn default() -> Self {
        Self { by_connection: FxHashMap::default(), order: VecDeque::new() }
    }
}

impl<V> Remembered<V> {
    fn insert(&mut self, connection: u64, found: V) {
        if self.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_connection.remove(&oldest);
        }
        if self.by_connection.insert(connection, found).is_none() {
            self.order.push_back(connection);
        }
    }
}

#[cfg(test)]
mod tests;
