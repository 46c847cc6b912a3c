//! Who calls: what of the connection or the request tells the caller's identity, and when it counts.

use crate::peer::{IdentityReason, Peer};
use crate::policy::{PeerRequirement, Policy};
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
