//! Who calls: what of the connection or the request tells the caller's identity, and when it counts.

use std::time::Duration;

use crate::certificate::Svid;
use crate::peer::{IdentityReason, Peer};
use crate::policy::{PeerRequirement, Policy};
use crate::timestamp::Timestamp;
use crate::xfcc::{self, XfccReason};

/// Where callers' identities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The client certificate of the connection.
    Tls,
    /// The tunnel that the connection came through, whose certificate Istio keeps in filter state.
    PeerPrincipal,
    /// The header `x-forwarded-client-cert`, from one of the proxies with these SPIFFE IDs.
    Xfcc(Box<[Box<str>]>),
}

impl IdentitySource {
    /// Whether a caller is the same for the life of a connection.
    #[must_use]
    pub const fn is_of_connection(&self) -> bool {
        match self {
            Self::Tls | Self::PeerPrincipal => true,
            Self::Xfcc(_) => false,
        }
    }

    /// Why a caller that tells no identity has none.
    const fn missing(&self) -> IdentityReason {
        match self {
            Self::Tls => IdentityReason::NoPeerCertificate,
            Self::PeerPrincipal => IdentityReason::PeerPrincipalMissing,
            Self::Xfcc(_) => IdentityReason::Xfcc(XfccReason::Missing),
        }
    }
}

/// The limits on the lifetime of an SVID: the fields `identity.expired` and `identity.maxAge`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Whether an SVID is still accepted on an open connection, or in a resumed session, after it has expired.
    pub expired: Expired,
    /// The maximum age of an SVID.
    pub max_age: Option<Duration>,
}

/// The treatment of an expired SVID on an open connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expired {
    /// The caller is denied.
    #[default]
    Deny,
    /// The caller is decided on as before the expiry.
    Allow,
}

impl Lifetime {
    /// Returns the first moment at which this SVID is no longer accepted.
    #[must_use]
    pub fn end(self, svid: &Svid) -> Timestamp {
        let expiry = match self.expired {
            Expired::Deny => first_after(svid.not_after()),
            Expired::Allow => Timestamp::NEVER,
        };
        expiry.min(self.max_age.map_or(Timestamp::NEVER, |max_age| first_after(svid.not_before().after(max_age))))
    }

    /// Returns the reason why this SVID is not accepted at this moment, if it is not.
    #[must_use]
    pub fn rejects(self, svid: &Svid, now: Timestamp) -> Option<IdentityReason> {
        if now < self.end(svid) {
            None
        } else if self.expired == Expired::Deny && now > svid.not_after() {
            Some(IdentityReason::SvidExpired)
        } else {
            Some(IdentityReason::SvidTooOld)
        }
    }
}

fn first_after(last: Timestamp) -> Timestamp {
    last.after(Duration::from_secs(1))
}

/// The identity that a SPIFFE ID gives to a caller; none where the caller tells none, and need not.
///
/// # Errors
/// Why it has none that counts.
pub fn of_id(id: Option<&[u8]>, policy: &Policy) -> Result<Option<Peer>, IdentityReason> {
    match (id, policy.peer_requirement()) {
        (Some(id), _) => Peer::from_text(id, policy.realm()).map(Some),
        (None, PeerRequirement::Optional) => Ok(None),
        (None, PeerRequirement::Required) => Err(policy.identity_source().missing()),
    }
}

/// The identity in Istio's filter state `io.istio.peer_principal`: the URI names of the tunnel's client certificate, with
/// commas between them.
///
/// # Errors
/// Why it is none that counts.
pub fn of_peer_principal(principal: Option<&[u8]>, policy: &Policy) -> Result<Option<Peer>, IdentityReason> {
    if principal.is_some_and(|principal| principal.contains(&b',')) {
        return Err(IdentityReason::PeerPrincipalSeveral);
    }
    of_id(principal, policy)
}

/// The proxy of this SPIFFE ID, if it is one of those that are believed.
///
/// # Errors
/// When it is not.
pub fn trusted<'p>(id: &str, proxies: &'p [Box<str>]) -> Result<&'p str, IdentityReason> {
    proxies.iter().find(|proxy| ***proxy == *id).map(|proxy| &**proxy).ok_or(IdentityReason::UntrustedProxy)
}

/// The identity that a trusted proxy tells in the lines of `x-forwarded-client-cert`.
///
/// # Errors
/// Why it is none that counts.
pub fn of_xfcc<'h>(
    lines: impl IntoIterator<Item = &'h [u8]>,
    proxy: &str,
    policy: &Policy,
) -> Result<Option<Peer>, IdentityReason> {
    match xfcc::caller(lines, proxy) {
        Ok(id) => of_id(Some(id), policy),
        Err(XfccReason::Missing) => of_id(None, policy),
        Err(reason) => Err(IdentityReason::Xfcc(reason)),
    }
}
