//! The caller of a request: its identity, which a worker caches under the credential that authenticates it.

use std::sync::Arc;

use crate::certificate::{Digest, Svid};
use crate::decision::{DenyReason, Outcome};
use crate::identity::{self, IdentitySource};
use crate::peer::{IdentityReason, Peer};
use crate::policy::{Candidates, Policy, PolicyId};
use crate::request::{Attributes, Headers as _, HostFailure, Request};
use crate::revocation::{Revocations, Revoked};
use crate::timestamp::Timestamp;
use crate::worker::memory::Memory;
use crate::xfcc::{self, XfccReason};

/// The SVIDs, and the callers, of which one worker keeps at least the last so many; a few hundred bytes each.
const CAPACITY: usize = 8192;

/// The credentials of the connection that a request came in on, as the host reports them. `Ok(None)` is an absent
/// attribute.
///
/// There is deliberately no number of the connection: over HTTP/3 a client can choose it, so that a caller that was cached
/// by number could be taken for another one.
pub trait Connection {
    /// The SHA-256 digest of the DER of the leaf certificate that the caller presented, as hexadecimal digits.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_certificate_digest(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// That certificate: PEM, plain or URL-encoded.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// Whether the host exposes that certificate at all. It is evaluated on every request, so that the verdict does not depend on
    /// what another connection has left in the cache.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure>;

    /// Whether the caller presented a certificate, by the host's own account. `None` if the host does not know.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure>;

    /// The first URI subject alternative name of the certificate.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure>;

    /// Whether Envoy validated the certificate on this handshake. It does not if a TLS session was resumed.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure>;

    /// The filter state `io.istio.peer_principal`, in which an HBONE listener keeps the URI SANs of its client certificate.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read the attribute.
    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure>;
}

/// The identity of a caller under a policy set, and the rules that can match it.
#[derive(Debug)]
pub struct Caller {
    identity: Result<Option<Peer>, IdentityReason>,
    /// The certificate that authenticates the connection. With `from: xfcc`, it belongs to the proxy.
    svid: Option<Arc<Svid>>,
    candidates: Candidates,
}

impl Caller {
    fn new(identity: Result<Option<Peer>, IdentityReason>, svid: Option<Arc<Svid>>, policy: &Policy) -> Self {
        let candidates = policy.candidates(identity.as_ref().ok().and_then(Option::as_ref));
        Self { identity, svid, candidates }
    }

    fn rejected(reason: IdentityReason, policy: &Policy) -> Self {
        Self::new(Err(reason), None, policy)
    }

    /// The verified peer, if the caller has an accepted identity.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.identity.as_ref().ok()?.as_ref()
    }

    /// Decides a request of this caller under the policy set that the caller was found under.
    #[must_use]
    pub fn authorize<'p, A: Attributes>(
        &self,
        policy: &'p Policy,
        revocations: &Revocations,
        request: &Request<A>,
    ) -> Outcome<'p> {
        match self.lapsed(policy, revocations, request.now()) {
            Some(reason) => Outcome::denied(DenyReason::Identity(reason)),
            None => policy.authorize(&self.identity, &self.candidates, request),
        }
    }

    /// Returns the first moment at which the certificate is no longer accepted.
    #[must_use]
    pub fn end(&self, policy: &Policy) -> Timestamp {
        self.svid.as_ref().map_or(Timestamp::NEVER, |svid| policy.lifetime().end(svid))
    }

    /// Returns the reason why an identity that was accepted is no longer. This is evaluated on every request: a certificate expires,
    /// and is revoked, while it is cached.
    fn lapsed(&self, policy: &Policy, revocations: &Revocations, now: Timestamp) -> Option<IdentityReason> {
        if let Some(reason) = self.svid.as_ref().and_then(|svid| policy.lifetime().rejects(svid, now)) {
            return Some(reason);
        }
        let is_revoked = |revoked: &Revoked| {
            self.peer().is_some_and(|peer| revoked.has_id(peer.spiffe_id(), peer.trust_domain()))
                || self.svid.as_ref().is_some_and(|svid| revoked.has_svid(svid))
        };
        revocations.any(policy, is_revoked).then_some(IdentityReason::Revoked)
    }
}

/// The callers that one worker has met.
///
/// The keys authenticate the caller: the digest of the certificate of *this* connection, or the whole principal. Only accepted
/// identities are kept, so that certificates which are rejected cannot fill the cache. What belongs to the connection and not
/// to the certificate (`requireValidated`, whether the host exposes the certificate) is evaluated on every request.
#[derive(Debug, Default)]
pub struct Callers {
    /// Parsed certificates, for every policy set.
    svids: Memory<Digest, Arc<Svid>, CAPACITY>,
    by_certificate: Memory<(PolicyId, Digest), Arc<Caller>, CAPACITY>,
    /// Each principal, with the last policy set that evaluated it.
    by_principal: Memory<Box<[u8]>, (PolicyId, Arc<Caller>), CAPACITY>,
}

impl Callers {
    /// Returns the caller of a request on this connection.
    pub fn caller<A: Attributes>(
        &mut self,
        policy: &Policy,
        connection: &impl Connection,
        request: &Request<A>,
    ) -> Arc<Caller> {
        match policy.identity_source() {
            IdentitySource::Tls => self.by_certificate(policy, connection),
            IdentitySource::PeerPrincipal => self.by_principal(policy, connection),
            IdentitySource::Xfcc(proxies) => {
                let proxy =
                    self.svid(policy, connection).and_then(|svid| svid.ok_or(IdentityReason::NoPeerCertificate));
                Arc::new(match proxy {
                    Ok(svid) => {
                        let identity = self.reported_by_proxy(policy, &svid, request, proxies);
                        Caller::new(identity, Some(svid), policy)
                    }
                    Err(reason) => Caller::rejected(reason, policy),
                })
            }
        }
    }

    /// Drops the callers that were found under this policy set.
    pub fn forget(&mut self, policy: PolicyId) {
        self.by_certificate.retain(|(found_under, _), _| *found_under != policy);
        self.by_principal.retain(|_, (found_under, _)| *found_under != policy);
    }

    fn by_certificate(&mut self, policy: &Policy, connection: &impl Connection) -> Arc<Caller> {
        let svid = match self.svid(policy, connection) {
            Ok(Some(svid)) => svid,
            Ok(None) => return Arc::new(Caller::new(identity::of_id(None, policy), None, policy)),
            Err(reason) => return Arc::new(Caller::rejected(reason, policy)),
        };
        let key = (policy.id(), svid.digest());
        if let Some(caller) = self.by_certificate.get(&key) {
            return caller;
        }
        let identity = identity::of_id(Some(svid.spiffe_id().as_bytes()), policy);
        let caller = Arc::new(Caller::new(identity, Some(Arc::clone(&svid)), policy));
        if caller.identity.is_ok() {
            self.keep(&svid);
            self.by_certificate.insert(key, Arc::clone(&caller));
        }
        caller
    }

    fn by_principal(&mut self, policy: &Policy, connection: &impl Connection) -> Arc<Caller> {
        let Ok(principal) = connection.peer_principal() else {
            return Arc::new(Caller::rejected(IdentityReason::PeerPrincipalUnreadable, policy));
        };
        let known = principal.as_deref().and_then(|principal| self.by_principal.get(principal));
        if let Some((found_under, caller)) = known
            && found_under == policy.id()
        {
            return caller;
        }
        let identity = identity::of_peer_principal(principal.as_deref(), policy);
        let caller = Arc::new(Caller::new(identity, None, policy));
        if let Some(principal) = principal
            && caller.identity.is_ok()
        {
            self.by_principal.insert(principal.into(), (policy.id(), Arc::clone(&caller)));
        }
        caller
    }

    fn reported_by_proxy<A: Attributes>(
        &mut self,
        policy: &Policy,
        svid: &Arc<Svid>,
        request: &Request<A>,
        proxies: &[Box<str>],
    ) -> Result<Option<Peer>, IdentityReason> {
        let proxy = identity::trusted(svid.spiffe_id(), proxies)?;
        self.keep(svid);
        let headers = request.headers().map_err(|_| IdentityReason::Xfcc(XfccReason::Unreadable))?;
        identity::of_xfcc(headers.lines(xfcc::HEADER), proxy, policy)
    }

    fn keep(&mut self, svid: &Arc<Svid>) {
        if self.svids.get(&svid.digest()).is_none() {
            self.svids.insert(svid.digest(), Arc::clone(svid));
        }
    }

    /// Returns the X509-SVID of the connection's client, or `None` if it presented no certificate.
    fn svid(&mut self, policy: &Policy, connection: &impl Connection) -> Result<Option<Arc<Svid>>, IdentityReason> {
        let unreadable = |_: HostFailure| IdentityReason::PeerCertificateUnreadable;
        let hex = connection.peer_certificate_digest().map_err(unreadable)?;
        let known = hex.as_deref().and_then(Digest::from_hex).and_then(|digest| self.svids.get(&digest));
        let svid = match known {
            Some(svid) if connection.exposes_peer_certificate().map_err(unreadable)? => svid,
            Some(_) => return Err(IdentityReason::PeerCertificateUnreadable),
            None => match presented(connection, hex.as_deref())? {
                Some(svid) => Arc::new(svid),
                None => return Ok(None),
            },
        };
        // A resumed session presents the same certificate, and was not validated.
        if policy.requires_validated() && connection.peer_certificate_valid().map_err(unreadable)? != Some(true) {
            return Err(IdentityReason::PeerCertificateNotValidated);
        }
        Ok(Some(svid))
    }
}

/// Reads the certificate that the caller presented. Returns `None` if it presented none, which needs evidence, because a host that
/// does not expose certificates returns none, too. `digest` is the one that Envoy reports.
///
/// Our reading is compared with Envoy's: x509-parser 0.18 does not check the class of ASN.1 tags (its issue 248), so a certificate
/// could have a URI for it that it does not have for BoringSSL.
fn presented(connection: &impl Connection, digest: Option<&[u8]>) -> Result<Option<Svid>, IdentityReason> {
    let unreadable = |_: HostFailure| IdentityReason::PeerCertificateUnreadable;
    let certificate = connection.peer_certificate().map_err(unreadable)?;
    let uri = connection.peer_uri_san().map_err(unreadable)?;
    let Some(certificate) = certificate else {
        let is_mutual_tls = connection.is_mutual_tls().map_err(unreadable)?;
        return if digest.is_none() && uri.is_none() && is_mutual_tls == Some(false) {
            Ok(None)
        } else {
            Err(IdentityReason::PeerCertificateUnreadable)
        };
    };
    let svid = Svid::parse(&certificate).map_err(|error| error.reason())?;
    let is_same =
        uri.as_deref() == Some(svid.spiffe_id().as_bytes()) && digest.and_then(Digest::from_hex) == Some(svid.digest());
    if is_same { Ok(Some(svid)) } else { Err(IdentityReason::PeerCertificateMismatch) }
}

#[cfg(test)]
mod tests;
