//! The trust domains that a document accepts.

/// The trust domains whose workloads are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomains {
    /// The local trust domain: the one of the workload that the filter protects.
    pub local: Box<str>,
    /// Former names of the local trust domain.
    pub aliases: Box<[Box<str>]>,
    /// The federated trust domains.
    pub federated: Box<[Box<str>]>,
}

impl TrustDomains {
    /// Returns `true` if this is the local trust domain or an alias of it.
    #[must_use]
    pub fn is_local(&self, trust_domain: &str) -> bool {
        *self.local == *trust_domain || self.aliases.iter().any(|alias| **alias == *trust_domain)
    }

    /// Returns `true` if workloads of this trust domain are accepted.
    #[must_use]
    pub fn accepts(&self, trust_domain: &str) -> bool {
        self.is_local(trust_domain) || self.federated.iter().any(|federated| **federated == *trust_domain)
    }
}
