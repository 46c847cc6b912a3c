//! The caller: its verified identity, or the reason there is none.

use crate::certificate::{CertificateReason, Svid};
use crate::pattern::Pattern;
use crate::spiffe_id::{SpiffeId, SpiffeIdReason};
use crate::xfcc::XfccReason;

/// Which identities count here: whose workloads may be let in at all, and the form that their IDs have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// The trust domain of the workload that is protected.
    pub trust_domain: Box<str>,
    /// Former names of it.
    pub aliases: Box<[Box<str>]>,
    /// Other trust domains whose workloads may be let in.
    pub federated: Box<[Box<str>]>,
    /// The form of a workload's ID.
    pub pattern: Pattern,
}

impl Realm {
    fn is_local(&self, trust_domain: &str) -> bool {
        *self.trust_domain == *trust_domain || self.aliases.iter().any(|alias| **alias == *trust_domain)
    }

    fn trusts(&self, trust_domain: &str) -> bool {
        self.is_local(trust_domain) || self.federated.iter().any(|federated| **federated == *trust_domain)
    }
}

/// A caller whose identity was verified. Kept for the life of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    spiffe_id: Box<str>,
    trust_domain: Box<str>,
    namespace: Option<Box<str>>,
    service_account: Option<Box<str>>,
    local: bool,
}

impl Peer {
    /// The identity in a leaf certificate, as PEM (plain or URL-encoded) or DER, which Envoy has validated.
    ///
    /// # Errors
    /// The reason why this certificate gives no identity that counts in `realm`.
    pub fn from_certificate(certificate: &[u8], realm: &Realm) -> Result<Self, IdentityReason> {
        let svid = Svid::parse(certificate).map_err(|error| error.reason())?;
        Self::from_svid(&svid, realm)
    }

    /// As `from_certificate`, of a certificate that was parsed already.
    ///
    /// # Errors
    /// The reason why this certificate gives no identity that counts in `realm`.
    pub fn from_svid(svid: &Svid, realm: &Realm) -> Result<Self, IdentityReason> {
        Self::from_text(svid.spiffe_id().as_bytes(), realm)
    }

    /// The identity that the SPIFFE ID in these bytes names.
    ///
    /// # Errors
    /// The reason why they give no identity that counts in `realm`.
    pub fn from_text(id: &[u8], realm: &Realm) -> Result<Self, IdentityReason> {
        let broken = |reason| IdentityReason::Certificate(CertificateReason::SpiffeId(reason));
        let id = SpiffeId::parse(id).map_err(|error| broken(error.reason()))?;
        if id.path().is_empty() {
            return Err(broken(SpiffeIdReason::NoPath));
        }
        Self::from_id(id, realm)
    }

    /// The identity that `id` names.
    ///
    /// # Errors
    /// The reason why this ID gives no identity that counts in `realm`.
    pub fn from_id(id: SpiffeId<'_>, realm: &Realm) -> Result<Self, IdentityReason> {
        if id.is_reserved() {
            return Err(IdentityReason::ReservedPath);
        }
        let trust_domain = id.trust_domain().as_str();
        if !realm.trusts(trust_domain) {
            return Err(IdentityReason::ForeignTrustDomain);
        }
        let workload = realm.pattern.read(id.path()).ok_or(IdentityReason::WrongPattern)?;
        Ok(Self {
            spiffe_id: id.as_str().into(),
            trust_domain: trust_domain.into(),
            namespace: workload.namespace.map(Box::from),
            service_account: workload.service_account.map(Box::from),
            local: realm.is_local(trust_domain),
        })
    }

    /// The whole SPIFFE ID.
    #[must_use]
    pub const fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }

    /// The SPIFFE ID without `spiffe://`: Istio's "principal".
    #[must_use]
    pub fn principal(&self) -> &str {
        self.spiffe_id.strip_prefix("spiffe://").unwrap_or(&self.spiffe_id)
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The namespace, where the pattern tells it.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The service account, where the pattern tells it.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.service_account.as_deref()
    }

    /// Whether the caller is of the own trust domain or an alias of it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }
}

/// Why a caller has no identity that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityReason {
    /// It showed no certificate.
    NoPeerCertificate,
    /// Envoy did not tell what it showed.
    PeerCertificateUnreadable,
    /// Envoy's attributes of the certificate disagree with the certificate.
    PeerCertificateMismatch,
    /// The configuration wants Envoy to have validated the certificate on this handshake, and it has not.
    PeerCertificateNotValidated,
    /// No tunnel has left an identity in filter state.
    PeerPrincipalMissing,
    /// Envoy did not tell what the tunnel has left.
    PeerPrincipalUnreadable,
    /// The tunnel's certificate names several identities.
    PeerPrincipalSeveral,
    /// Identities are told by proxies, and the connection is of none of those that are believed.
    UntrustedProxy,
    /// What the proxy tells names no caller.
    Xfcc(XfccReason),
    /// The certificate is no X509-SVID.
    Certificate(CertificateReason),
    /// SPIRE keeps this ID for itself; it names no workload.
    ReservedPath,
    /// The trust domain is neither the own one nor a federated one.
    ForeignTrustDomain,
    /// The ID does not have the form that the configuration wants.
    WrongPattern,
    /// The SVID has expired.
    SvidExpired,
    /// The SVID was issued longer ago than `identity.maxAge`.
    SvidTooOld,
    /// The identity is listed in `identity.revoked`.
    Revoked,
}

impl From<CertificateReason> for IdentityReason {
    fn from(reason: CertificateReason) -> Self {
        Self::Certificate(reason)
    }
}

impl IdentityReason {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::NoPeerCertificate,
            Self::PeerCertificateUnreadable,
            Self::PeerCertificateMismatch,
            Self::PeerCertificateNotValidated,
            Self::PeerPrincipalMissing,
            Self::PeerPrincipalUnreadable,
            Self::PeerPrincipalSeveral,
            Self::UntrustedProxy,
            Self::ReservedPath,
            Self::ForeignTrustDomain,
            Self::WrongPattern,
            Self::SvidExpired,
            Self::SvidTooOld,
            Self::Revoked,
        ]
        .into_iter()
        .chain(XfccReason::all().map(Self::Xfcc))
        .chain(CertificateReason::all().map(Self::Certificate))
    }

    /// Returns `true` if the same caller may be accepted on a new connection, with a new SVID.
    pub(crate) const fn ends_with_the_connection(self) -> bool {
        matches!(self, Self::SvidExpired | Self::SvidTooOld | Self::Revoked)
    }

    /// The stable name of this reason.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::NoPeerCertificate => "no-peer-certificate",
            Self::PeerCertificateUnreadable => "peer-certificate-unreadable",
            Self::PeerCertificateMismatch => "peer-certificate-mismatch",
            Self::PeerCertificateNotValidated => "peer-certificate-not-validated",
            Self::PeerPrincipalMissing => "peer-principal-missing",
            Self::PeerPrincipalUnreadable => "peer-principal-unreadable",
            Self::PeerPrincipalSeveral => "peer-principal-several",
            Self::UntrustedProxy => "untrusted-proxy",
            Self::Xfcc(reason) => reason.slug(),
            Self::Certificate(reason) => reason.slug(),
            Self::ReservedPath => "reserved-path",
            Self::ForeignTrustDomain => "foreign-trust-domain",
            Self::WrongPattern => "wrong-pattern",
            Self::SvidExpired => "svid-expired",
            Self::SvidTooOld => "svid-too-old",
            Self::Revoked => "identity-revoked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{IdentityReason, Peer, Realm};
    use crate::pattern::Pattern;
    use crate::spiffe_id::SpiffeId;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn realm(pattern: &str) -> Realm {
        Realm {
            trust_domain: "example.org".into(),
            aliases: ["old.example.org".into()].into(),
            federated: ["example.io".into()].into(),
            pattern: Pattern::parse(pattern).unwrap(),
        }
    }

    fn peer(id: &str, pattern: &str) -> Result<Peer, IdentityReason> {
        Peer::from_id(SpiffeId::parse(id.as_bytes()).unwrap(), &realm(pattern))
    }

    #[test]
    fn parts() {
        let peer = peer("spiffe://example.org/ns/default/sa/sleep", "istio").unwrap();
        assert_eq!(peer.spiffe_id(), "spiffe://example.org/ns/default/sa/sleep");
        assert_eq!(peer.principal(), "example.org/ns/default/sa/sleep");
        assert_eq!(peer.trust_domain(), "example.org");
        assert_eq!((peer.namespace(), peer.service_account()), (Some("default"), Some("sleep")));
    }

    #[test]
    fn trust_domains_are_told_apart() {
        for (trust_domain, local) in [("example.org", true), ("old.example.org", true), ("example.io", false)] {
            let id = format!("spiffe://{trust_domain}/ns/a/sa/b");
            assert_eq!(peer(&id, "istio").unwrap().is_local(), local, "{trust_domain}");
        }
        for trust_domain in ["example.com", "a.example.org", "example.or", "example.org.evil"] {
            let id = format!("spiffe://{trust_domain}/ns/a/sa/b");
            assert_eq!(peer(&id, "istio"), Err(IdentityReason::ForeignTrustDomain), "{trust_domain}");
        }
    }

    #[test]
    fn reserved_and_misshapen_ids_are_no_workloads() {
        for pattern in ["istio", "any"] {
            assert_eq!(peer("spiffe://example.org/spire/agent/x", pattern), Err(IdentityReason::ReservedPath));
        }
        assert_eq!(peer("spiffe://example.org/sleep", "istio"), Err(IdentityReason::WrongPattern));
        assert_eq!(peer("spiffe://example.org/sleep", "any").unwrap().namespace(), None);
        assert_eq!(peer("spiffe://example.org", "istio"), Err(IdentityReason::WrongPattern));
    }

    #[test]
    fn slugs_are_distinct() {
        let mut slugs: Vec<_> = IdentityReason::all().map(IdentityReason::slug).collect();
        let count = slugs.len();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), count);
    }
}
