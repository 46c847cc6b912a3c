//! The identity of a caller, and the settings that decide which identities are accepted: the fields `trustDomain`,
//! `federatedTrustDomains`, `trustDomainAliases` and `identity` of a document.

mod lifetime;
pub(crate) mod pattern;
mod peer;
mod reason;
mod revoked;
mod trust_domains;
pub mod xfcc;

use std::sync::Arc;

use crate::certificate::{CertificateReason, Svid};
use crate::spiffe_id::SpiffeId;

pub use lifetime::{Expired, Lifetime};
pub use pattern::{Pattern, PatternError, Workload};
pub use peer::Peer;
pub use reason::IdentityReason;
pub use revoked::Revoked;
pub use trust_domains::{Federated, TrustDomains};
use xfcc::XfccReason;

/// The settings that decide which identities a document accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// The trust domains whose workloads are accepted.
    pub trust_domains: TrustDomains,
    /// The form of a workload's SPIFFE ID.
    pub pattern: Pattern,
    /// The source of the callers' identities.
    pub source: IdentitySource,
    /// The treatment of callers that present no identity.
    pub peer: PeerRequirement,
    /// The limits on the lifetime of an SVID.
    pub lifetime: Lifetime,
    /// The identities that are no longer accepted.
    pub revoked: Arc<Revoked>,
}

/// The source of the callers' identities: the field `identity.from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The client certificate of the connection.
    Tls {
        /// Whether Envoy must have validated the certificate in this handshake.
        require_validated: bool,
    },
    /// The client certificate of the HBONE connection, which Istio keeps in filter state.
    PeerPrincipal,
    /// The header `x-forwarded-client-cert` from a trusted proxy.
    Xfcc {
        /// The SPIFFE IDs of the trusted proxies.
        trusted_proxies: Box<[Box<str>]>,
        /// Whether Envoy must have validated the proxy's certificate in this handshake.
        require_validated: bool,
    },
}

impl IdentitySource {
    /// Returns `true` if all requests of a connection have the same caller.
    #[must_use]
    pub const fn is_of_connection(&self) -> bool {
        match self {
            Self::Tls { .. } | Self::PeerPrincipal => true,
            Self::Xfcc { .. } => false,
        }
    }

    /// Returns `true` if Envoy must have validated the client's certificate in this handshake: the field
    /// `identity.requireValidated`.
    #[must_use]
    pub const fn requires_validated(&self) -> bool {
        match self {
            Self::Tls { require_validated } | Self::Xfcc { require_validated, .. } => *require_validated,
            Self::PeerPrincipal => false,
        }
    }

    /// The reason for rejecting a caller that presents no identity.
    const fn missing(&self) -> IdentityReason {
        match self {
            Self::Tls { .. } => IdentityReason::NoPeerCertificate,
            Self::PeerPrincipal => IdentityReason::PeerPrincipalMissing,
            Self::Xfcc { .. } => IdentityReason::Xfcc(XfccReason::Missing),
        }
    }
}

/// The treatment of callers that present no identity: the field `identity.peer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PeerRequirement {
    /// The caller is denied.
    #[default]
    Required,
    /// The policies decide about the caller, which is anonymous.
    Optional,
}

impl PeerRequirement {
    /// The name in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

/// The identity of a caller under the settings of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A workload with an accepted SPIFFE ID.
    Peer(Peer),
    /// A caller without an identity, which `identity.peer` allows.
    Anonymous,
    /// A caller without an accepted identity. It is denied before any policy is evaluated.
    Rejected(IdentityReason),
}

impl Identity {
    /// The workload, if the caller has an accepted SPIFFE ID.
    #[must_use]
    pub const fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Anonymous | Self::Rejected(_) => None,
        }
    }

    /// Returns the reason if the identity is rejected.
    #[must_use]
    pub const fn rejection(&self) -> Option<IdentityReason> {
        match self {
            Self::Rejected(reason) => Some(*reason),
            Self::Peer(_) | Self::Anonymous => None,
        }
    }
}

impl IdentitySettings {
    /// Identifies a caller by the SPIFFE ID in these bytes. `None` is a caller that presents no identity.
    #[must_use]
    pub fn identify(&self, id: Option<&[u8]>) -> Identity {
        let Some(id) = id else { return self.without_identity() };
        let broken = |reason| IdentityReason::Certificate(CertificateReason::SpiffeId(reason));
        let peer = match SpiffeId::parse_workload(id) {
            Err(error) => Err(broken(error.reason())),
            Ok(id) => Peer::new(id.into(), &self.trust_domains, &self.pattern),
        };
        peer.map_or_else(Identity::Rejected, Identity::Peer)
    }

    /// Identifies the workload of a certificate that Envoy has validated.
    #[must_use]
    pub fn identify_svid(&self, svid: &Svid) -> Identity {
        let peer = Peer::new(svid.spiffe_id().clone(), &self.trust_domains, &self.pattern);
        peer.map_or_else(Identity::Rejected, Identity::Peer)
    }

    /// Identifies a caller by the filter state `io.istio.peer_principal`, which contains the URI SANs of the client certificate of
    /// an HBONE connection, separated by commas.
    #[must_use]
    pub fn identify_principal(&self, principal: Option<&[u8]>) -> Identity {
        if principal.is_some_and(|principal| principal.contains(&b',')) {
            return Identity::Rejected(IdentityReason::PeerPrincipalSeveral);
        }
        self.identify(principal)
    }

    /// Identifies a caller by the lines of `x-forwarded-client-cert`, which the trusted proxy with this SPIFFE ID has sent.
    #[must_use]
    pub fn identify_forwarded<'h>(&self, lines: impl IntoIterator<Item = &'h [u8]>, proxy: &str) -> Identity {
        match xfcc::caller(lines, proxy) {
            Ok(id) => self.identify(Some(id)),
            Err(XfccReason::Missing) => self.without_identity(),
            Err(reason) => Identity::Rejected(IdentityReason::Xfcc(reason)),
        }
    }

    /// The identity of a caller that presents none.
    #[must_use]
    pub fn without_identity(&self) -> Identity {
        match self.peer {
            PeerRequirement::Optional => Identity::Anonymous,
            PeerRequirement::Required => Identity::Rejected(self.source.missing()),
        }
    }
}
