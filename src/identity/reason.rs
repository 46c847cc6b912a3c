//! The reasons for rejecting an identity.

use super::xfcc::XfccReason;
use crate::certificate::CertificateReason;
use crate::slugs;

slugs! {
    /// The reason why a caller has no accepted identity.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum IdentityReason {
        NoPeerCertificate = "no-peer-certificate", "The caller presented no certificate.";
        PeerCertificateUnreadable = "peer-certificate-unreadable", "Envoy did not expose the caller's certificate.";
        PeerCertificateMismatch = "peer-certificate-mismatch",
            "The certificate has a different digest or URI SAN than Envoy reports.";
        PeerCertificateNotValidated = "peer-certificate-not-validated",
            "Envoy did not validate the certificate in this handshake, which `identity.requireValidated` requires.";
        PeerPrincipalMissing = "peer-principal-missing", "The filter state `io.istio.peer_principal` is missing.";
        PeerPrincipalUnreadable = "peer-principal-unreadable",
            "Envoy did not expose the filter state `io.istio.peer_principal`.";
        PeerPrincipalSeveral = "peer-principal-several",
            "The filter state `io.istio.peer_principal` contains several identities.";
        UntrustedProxy = "untrusted-proxy", "The client of the connection is not in `identity.trustedProxies`.";
        ReservedPath = "reserved-path", "The path begins with `/spire`, which SPIRE reserves.";
        ForeignTrustDomain = "foreign-trust-domain", "The trust domain is neither local nor federated.";
        WrongPattern = "wrong-pattern", "The SPIFFE ID does not match `identity.pattern`.";
        SvidExpired = "svid-expired", "The SVID has expired.";
        SvidTooOld = "svid-too-old", "The SVID is older than `identity.maxAge`.";
        Revoked = "identity-revoked", "The identity is in `identity.revoked`.";
        ..Xfcc(XfccReason), "The header `x-forwarded-client-cert` does not identify the caller.";
        ..Certificate(CertificateReason), "The certificate is not an X509-SVID of a workload.";
    }
}

impl IdentityReason {
    /// Returns `true` if the caller can be accepted on a new connection, with a new SVID.
    pub(crate) const fn ends_with_the_connection(self) -> bool {
        matches!(self, Self::SvidExpired | Self::SvidTooOld | Self::Revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::IdentityReason;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn slugs_are_distinct_and_summaries_are_sentences() {
        let mut slugs: Vec<_> = IdentityReason::all().map(IdentityReason::slug).collect();
        let count = slugs.len();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), count);
        for reason in IdentityReason::all() {
            assert!(reason.summary().starts_with(char::is_uppercase) && reason.summary().ends_with('.'), "{reason:?}");
        }
    }
}
