//! The trust domains that a document accepts.

/// The trust domains whose workloads are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomains {
    /// The local trust domain: the one of the workload that the filter protects.
    pub local: Box<str>,
    /// Former names of the local trust domain.
    pub aliases: Box<[Box<str>]>,
    /// The federated trust domains.
    pub federated: Federated,
}

/// The trust domains whose workloads are accepted although they are not local.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Federated {
    /// Those that the document lists.
    Listed {
        /// The names.
        names: Box<[Box<str>]>,
        /// The ends of other names, each with its leading dot: those of the patterns.
        suffixes: Box<[Box<str>]>,
    },
    /// Every one whose certificates Envoy's SPIFFE validator accepts: Envoy has its bundle.
    Validated,
}

impl Default for Federated {
    fn default() -> Self {
        Self::Listed { names: Box::default(), suffixes: Box::default() }
    }
}

impl Federated {
    /// The names that the document lists.
    #[must_use]
    pub fn names(&self) -> &[Box<str>] {
        match self {
            Self::Listed { names, .. } => names,
            Self::Validated => &[],
        }
    }

    /// Returns `true` if it can contain trust domains that the document does not name.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Listed { suffixes, .. } => !suffixes.is_empty(),
            Self::Validated => true,
        }
    }

    fn contains(&self, trust_domain: &str) -> bool {
        match self {
            Self::Listed { names, suffixes } => {
                let has_end = |suffix: &str| trust_domain.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty());
                names.iter().any(|name| **name == *trust_domain) || suffixes.iter().any(|suffix| has_end(suffix))
            }
            Self::Validated => true,
        }
    }
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
        self.is_local(trust_domain) || self.federated.contains(trust_domain)
    }
}
