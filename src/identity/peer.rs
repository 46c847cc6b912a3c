//! A workload with an accepted SPIFFE ID.

use super::{IdentityReason, Pattern, TrustDomains};
use crate::spiffe_id::SpiffeIdBuf;

/// A caller with an accepted SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    id: SpiffeIdBuf,
    namespace: Option<Box<str>>,
    service_account: Option<Box<str>>,
    is_local: bool,
}

impl Peer {
    /// Checks an ID against the trust domains and the pattern of a document.
    ///
    /// # Errors
    /// Returns the reason why the ID is not accepted.
    pub fn new(id: SpiffeIdBuf, trust_domains: &TrustDomains, pattern: &Pattern) -> Result<Self, IdentityReason> {
        let borrowed = id.borrow();
        if borrowed.is_reserved() {
            return Err(IdentityReason::ReservedPath);
        }
        let trust_domain = borrowed.trust_domain().as_str();
        if !trust_domains.accepts(trust_domain) {
            return Err(IdentityReason::ForeignTrustDomain);
        }
        let workload = pattern.read(borrowed.path()).ok_or(IdentityReason::WrongPattern)?;
        let is_local = trust_domains.is_local(trust_domain);
        let (namespace, service_account) = (workload.namespace.map(Box::from), workload.service_account.map(Box::from));
        Ok(Self { id, namespace, service_account, is_local })
    }

    /// The SPIFFE ID.
    #[must_use]
    pub const fn id(&self) -> &SpiffeIdBuf {
        &self.id
    }

    /// The SPIFFE ID without `spiffe://`, which Istio calls the principal.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.id.without_scheme()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.id.trust_domain()
    }

    /// The namespace, if the pattern contains it.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The service account, if the pattern contains it.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.service_account.as_deref()
    }

    /// Returns `true` if the trust domain is the local one or an alias of it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.is_local
    }
}

#[cfg(test)]
mod tests {
    use super::Peer;
    use crate::identity::{Federated, IdentityReason, Pattern, TrustDomains};
    use crate::spiffe_id::SpiffeIdBuf;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn peer(id: &str, pattern: &str) -> Result<Peer, IdentityReason> {
        let trust_domains = TrustDomains {
            local: "example.org".into(),
            aliases: ["old.example.org".into()].into(),
            federated: Federated::Listed { names: ["example.io".into()].into(), suffixes: Box::default() },
        };
        Peer::new(SpiffeIdBuf::parse(id.as_bytes()).unwrap(), &trust_domains, &Pattern::parse(pattern).unwrap())
    }

    #[test]
    fn a_peer_has_the_parts_of_its_id() {
        let peer = peer("spiffe://example.org/ns/default/sa/sleep", "istio").unwrap();
        assert_eq!(peer.id().as_str(), "spiffe://example.org/ns/default/sa/sleep");
        assert_eq!(peer.principal(), "example.org/ns/default/sa/sleep");
        assert_eq!(peer.trust_domain(), "example.org");
        assert_eq!((peer.namespace(), peer.service_account()), (Some("default"), Some("sleep")));
    }

    #[test]
    fn trust_domains_are_distinguished() {
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
    fn reserved_and_malformed_ids_are_rejected() {
        for pattern in ["istio", "any"] {
            assert_eq!(peer("spiffe://example.org/spire/agent/x", pattern), Err(IdentityReason::ReservedPath));
        }
        assert_eq!(peer("spiffe://example.org/sleep", "istio"), Err(IdentityReason::WrongPattern));
        assert_eq!(peer("spiffe://example.org/sleep", "any").unwrap().namespace(), None);
        assert_eq!(peer("spiffe://example.org", "istio"), Err(IdentityReason::WrongPattern));
    }
}
