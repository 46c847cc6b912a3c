//! The callers of a worker, which are cached under the credential that authenticates them.

use std::sync::Arc;

use super::memory::Memory;
use super::revocations::Revocations;
use crate::certificate::{Digest, Svid};
use crate::decision::{DenyReason, Outcome};
use crate::host::{Connection, Headers as _, HostFailure, RequestAttributes};
use crate::identity::xfcc::{self, XfccReason};
use crate::identity::{Identity, IdentityReason, IdentitySource, Peer, Revoked};
use crate::policy::{PolicySet, PolicySetId, Subject};
use crate::request::Request;
use crate::timestamp::Timestamp;

/// The minimum number of SVIDs, and of callers, that a worker caches, at a few hundred bytes each.
const CAPACITY: usize = 8192;

/// The caller of a request, under a policy set.
#[derive(Debug)]
pub(super) struct Caller {
    subject: Subject,
    /// The certificate that authenticates the connection. With `from: xfcc`, it belongs to the proxy.
    svid: Option<Arc<Svid>>,
}

impl Caller {
    fn new(identity: Identity, svid: Option<Arc<Svid>>, policies: &PolicySet) -> Self {
        Self { subject: policies.subject(identity), svid }
    }

    fn rejected(reason: IdentityReason, policies: &PolicySet) -> Self {
        Self::new(Identity::Rejected(reason), None, policies)
    }

    fn is_rejected(&self) -> bool {
        self.subject.identity().rejection().is_some()
    }

    /// The workload, if the caller has an accepted SPIFFE ID.
    pub(super) const fn peer(&self) -> Option<&Peer> {
        self.subject.peer()
    }

    /// Decides a request of this caller.
    pub(super) fn decide<'p, A: RequestAttributes>(
        &self,
        policies: &'p PolicySet,
        revocations: &Revocations,
        request: &Request<A>,
    ) -> Outcome<'p> {
        match self.lapsed(policies, revocations, request.now()) {
            Some(reason) => Outcome::denied(DenyReason::Identity(reason)),
            None => policies.decide(&self.subject, request),
        }
    }

    /// Returns the first moment at which the certificate is no longer accepted.
    pub(super) fn end(&self, policies: &PolicySet) -> Timestamp {
        self.svid.as_ref().map_or(Timestamp::NEVER, |svid| policies.identity().lifetime.end(svid))
    }

    /// Returns the reason why an accepted identity is no longer accepted. It is evaluated on every request, because a cached
    /// certificate can expire or be revoked.
    fn lapsed(&self, policies: &PolicySet, revocations: &Revocations, now: Timestamp) -> Option<IdentityReason> {
        if let Some(reason) = self.svid.as_ref().and_then(|svid| policies.identity().lifetime.rejects(svid, now)) {
            return Some(reason);
        }
        let is_revoked = |revoked: &Revoked| {
            self.peer().is_some_and(|peer| revoked.has_id(peer.id().borrow()))
                || self.svid.as_ref().is_some_and(|svid| revoked.has_svid(svid))
        };
        revocations.any(policies, is_revoked).then_some(IdentityReason::Revoked)
    }
}

/// The cached callers of a worker.
///
/// The keys authenticate the caller: the digest of the certificate of *this* connection, or the whole principal. Only accepted
/// identities are cached, so that rejected certificates cannot fill the cache. Properties of the connection
/// (`requireValidated`, and whether the host exposes the certificate) are evaluated on every request.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// Parsed certificates, which outlive a policy set.
    svids: Memory<Digest, Arc<Svid>, CAPACITY>,
    by_certificate: Memory<(PolicySetId, Digest), Arc<Caller>, CAPACITY>,
    /// Each principal, with the last policy set that evaluated it.
    by_principal: Memory<Box<[u8]>, (PolicySetId, Arc<Caller>), CAPACITY>,
}

impl Callers {
    /// Returns the caller of a request on this connection.
    pub(super) fn caller<A: RequestAttributes>(
        &mut self,
        policies: &PolicySet,
        connection: &impl Connection,
        request: &Request<A>,
    ) -> Arc<Caller> {
        match &policies.identity().source {
            IdentitySource::Tls { .. } => self
                .by_certificate(policies, connection)
                .unwrap_or_else(|reason| Arc::new(Caller::rejected(reason, policies))),
            IdentitySource::PeerPrincipal => self.by_principal(policies, connection),
            IdentitySource::Xfcc { trusted_proxies, .. } => {
                let proxy = connection.peer_certificate_digest().map_err(unreadable).and_then(|digest| {
                    let svid = self.svid(policies, connection, digest.as_ref().map(AsRef::as_ref))?;
                    svid.ok_or(IdentityReason::NoPeerCertificate)
                });
                Arc::new(match proxy {
                    Ok(svid) => {
                        let identity = self.forwarded(policies, &svid, request, trusted_proxies);
                        Caller::new(identity, Some(svid), policies)
                    }
                    Err(reason) => Caller::rejected(reason, policies),
                })
            }
        }
    }

    /// Drops the callers of this policy set.
    pub(super) fn forget(&mut self, policies: PolicySetId) {
        self.by_certificate.retain(|(found_under, _), _| *found_under != policies);
        self.by_principal.retain(|_, (found_under, _)| *found_under != policies);
    }

    fn by_certificate(
        &mut self,
        policies: &PolicySet,
        connection: &impl Connection,
    ) -> Result<Arc<Caller>, IdentityReason> {
        let digest = connection.peer_certificate_digest().map_err(unreadable)?;
        let digest = digest.as_ref().map(AsRef::as_ref);
        let known = digest.and_then(Digest::from_hex);
        if let Some(caller) = known.and_then(|digest| self.by_certificate.get(&(policies.id(), digest))) {
            check_exposed(connection)?;
            check_validated(policies, connection)?;
            return Ok(caller);
        }
        let Some(svid) = self.svid(policies, connection, digest)? else {
            return Ok(Arc::new(Caller::new(policies.identity().without_identity(), None, policies)));
        };
        let identity = policies.identity().identify_svid(&svid);
        let caller = Arc::new(Caller::new(identity, Some(Arc::clone(&svid)), policies));
        if !caller.is_rejected() {
            self.keep(&svid);
            self.by_certificate.insert((policies.id(), svid.digest()), Arc::clone(&caller));
        }
        Ok(caller)
    }

    fn by_principal(&mut self, policies: &PolicySet, connection: &impl Connection) -> Arc<Caller> {
        let Ok(principal) = connection.peer_principal() else {
            return Arc::new(Caller::rejected(IdentityReason::PeerPrincipalUnreadable, policies));
        };
        let known = principal.as_deref().and_then(|principal| self.by_principal.get(principal));
        if let Some((found_under, caller)) = known
            && found_under == policies.id()
        {
            return caller;
        }
        let identity = policies.identity().identify_principal(principal.as_deref());
        let caller = Arc::new(Caller::new(identity, None, policies));
        if let Some(principal) = principal
            && !caller.is_rejected()
        {
            self.by_principal.insert(principal.into(), (policies.id(), Arc::clone(&caller)));
        }
        caller
    }

    fn forwarded<A: RequestAttributes>(
        &mut self,
        policies: &PolicySet,
        svid: &Arc<Svid>,
        request: &Request<A>,
        proxies: &[Box<str>],
    ) -> Identity {
        let proxy = svid.spiffe_id().as_str();
        if !proxies.iter().any(|trusted| **trusted == *proxy) {
            return Identity::Rejected(IdentityReason::UntrustedProxy);
        }
        self.keep(svid);
        match request.headers() {
            Ok(headers) => policies.identity().identify_forwarded(headers.lines(xfcc::HEADER), proxy),
            Err(HostFailure) => Identity::Rejected(IdentityReason::Xfcc(XfccReason::Unreadable)),
        }
    }

    fn keep(&mut self, svid: &Arc<Svid>) {
        if self.svids.get(&svid.digest()).is_none() {
            self.svids.insert(svid.digest(), Arc::clone(svid));
        }
    }

    /// Returns the X509-SVID of the connection's client, or `None` if it presented no certificate. `digest` is the one that Envoy
    /// reports.
    fn svid(
        &mut self,
        policies: &PolicySet,
        connection: &impl Connection,
        digest: Option<&[u8]>,
    ) -> Result<Option<Arc<Svid>>, IdentityReason> {
        let svid = match digest.and_then(Digest::from_hex).and_then(|digest| self.svids.get(&digest)) {
            Some(svid) => {
                check_exposed(connection)?;
                svid
            }
            None => match presented(connection, digest)? {
                Some(svid) => Arc::new(svid),
                None => return Ok(None),
            },
        };
        check_validated(policies, connection)?;
        Ok(Some(svid))
    }
}

const fn unreadable(_: HostFailure) -> IdentityReason {
    IdentityReason::PeerCertificateUnreadable
}

/// Checks that the host exposes the certificate of a connection, which this worker knows from another one.
fn check_exposed(connection: &impl Connection) -> Result<(), IdentityReason> {
    if connection.exposes_peer_certificate().map_err(unreadable)? {
        Ok(())
    } else {
        Err(IdentityReason::PeerCertificateUnreadable)
    }
}

/// Checks that Envoy validated the certificate, if the policy set requires it. A resumed session presents the same certificate, and
/// was not validated.
fn check_validated(policies: &PolicySet, connection: &impl Connection) -> Result<(), IdentityReason> {
    let is_required = policies.identity().source.requires_validated();
    if !is_required || connection.peer_certificate_valid().map_err(unreadable)? == Some(true) {
        Ok(())
    } else {
        Err(IdentityReason::PeerCertificateNotValidated)
    }
}

/// Returns the certificate that the client presented, or `None` if it presented none. That needs evidence, because a host that does
/// not expose certificates returns none, too. `digest` is the one that Envoy reports.
///
/// The result is compared with Envoy's: x509-parser 0.18 does not check the class of ASN.1 tags (its issue 248), so a certificate
/// could have a URI for x509-parser and not for BoringSSL.
fn presented(connection: &impl Connection, digest: Option<&[u8]>) -> Result<Option<Svid>, IdentityReason> {
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
    let svid = Svid::parse(&certificate).map_err(|error| IdentityReason::Certificate(error.reason()))?;
    let is_same = uri.as_deref() == Some(svid.spiffe_id().as_str().as_bytes())
        && digest.and_then(Digest::from_hex) == Some(svid.digest());
    if is_same { Ok(Some(svid)) } else { Err(IdentityReason::PeerCertificateMismatch) }
}

#[cfg(test)]
mod tests;
