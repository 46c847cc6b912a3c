//! What happens on a connection and on a request, the same for every adapter inside Envoy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::certificate::Svid;
use crate::decision::Outcome;
use crate::peer::{IdentityReason, Peer};
use crate::policy::{Candidates, PeerRequirement, Policy};
use crate::request::{Attributes, HostFailure, Request};

/// How many connections' callers are remembered at most by one worker, some hundred bytes each.
const MAX_REMEMBERED_CALLERS: usize = 4096;

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
}

/// Who is at the other end of a connection, and which rules can match it.
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
    callers: RefCell<RememberedCallers>,
}

impl Authorizer {
    /// An authorizer that remembers no caller yet.
    pub fn new(policy: impl Into<Arc<Policy>>) -> Self {
        Self { policy: policy.into(), callers: RefCell::default() }
    }

    /// What it decides by.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who calls on this connection: found out on its first request, remembered for the next ones. The second value
    /// tells whether it was found out just now.
    pub fn caller(&self, connection: &impl Connection) -> (Arc<Caller>, bool) {
        let Ok(Some(id)) = connection.id() else { return (Arc::new(self.identify(connection)), true) };
        if let Some(caller) = self.callers.borrow().get(id) {
            return (caller, false);
        }
        let caller = Arc::new(self.identify(connection));
        if caller.identity != Err(IdentityReason::PeerCertificateUnreadable) {
            self.callers.borrow_mut().insert(id, Arc::clone(&caller));
        }
        (caller, true)
    }

    fn identify(&self, connection: &impl Connection) -> Caller {
        let identity = self.identity(connection);
        let candidates = self.policy.candidates(identity.as_ref().ok().and_then(Option::as_ref));
        Caller { identity, candidates }
    }

    fn identity(&self, connection: &impl Connection) -> Result<Option<Peer>, IdentityReason> {
        let unreadable = |_: HostFailure| IdentityReason::PeerCertificateUnreadable;
        let Some(certificate) = connection.peer_certificate().map_err(unreadable)? else {
            return match self.policy.peer_requirement() {
                PeerRequirement::Required => Err(IdentityReason::NoPeerCertificate),
                PeerRequirement::Optional => Ok(None),
            };
        };
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
        Peer::from_svid(&svid, self.policy.realm()).map(Some)
    }

    /// Decides one request of `caller`.
    #[must_use]
    pub fn authorize<A: Attributes>(&self, caller: &Caller, request: &Request<A>) -> Outcome<'_> {
        self.policy.authorize(&caller.identity, &caller.candidates, request)
    }
}

/// The callers of the latest connections, by connection number.
#[derive(Debug, Default)]
struct RememberedCallers {
    by_connection: FxHashMap<u64, Arc<Caller>>,
    /// Oldest first.
    order: VecDeque<u64>,
}

impl RememberedCallers {
    fn get(&self, connection: u64) -> Option<Arc<Caller>> {
        self.by_connection.get(&connection).map(Arc::clone)
    }

    fn insert(&mut self, connection: u64, caller: Arc<Caller>) {
        if self.order.len() >= MAX_REMEMBERED_CALLERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_connection.remove(&oldest);
        }
        if self.by_connection.insert(connection, caller).is_none() {
            self.order.push_back(connection);
        }
    }
}

#[cfg(test)]
mod tests;
