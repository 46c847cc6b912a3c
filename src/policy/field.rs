//! The vocabulary of the policy language: the fields of a document, and the attributes that rules match.
//!
//! Each name has its literal here and nowhere else. The compiler, the lints and the tools use these names. The names in `identity`
//! and `outputs` that only the compiler reads are in `compile/identity.rs` and `compile/outputs.rs`.

use super::node::Node;

/// The name of a field, and the name of its negated form.
pub(crate) type Names = [&'static str; 2];

pub(crate) const TRUST_DOMAIN: &str = "trustDomain";
pub(crate) const FEDERATED_TRUST_DOMAINS: &str = "federatedTrustDomains";
/// The value of `federatedTrustDomains` for every trust domain that Envoy's SPIFFE validator accepts.
pub(crate) const VALIDATED: &str = "validated";
pub(crate) const TRUST_DOMAIN_ALIASES: &str = "trustDomainAliases";
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const OUTPUTS: &str = "outputs";
pub(crate) const PATTERN: &str = "pattern";
pub(crate) const PEER: &str = "peer";
pub(crate) const SCOPE: &str = "scope";
pub(crate) const POLICIES: &str = "policies";
/// The lints that `check` does not report, in a document or in a policy.
pub(crate) const IGNORE_LINTS: &str = "ignoreLints";

pub(crate) const NAME: &str = "name";
pub(crate) const NAMESPACE: &str = "namespace";
pub(crate) const ACTION: &str = "action";
pub(crate) const MODE: &str = "mode";
pub(crate) const NOT_BEFORE: &str = "notBefore";
pub(crate) const EXPIRES: &str = "expires";
pub(crate) const RULES: &str = "rules";

pub(crate) const SELECTOR: &str = "selector";
pub(crate) const MATCH_LABELS: &str = "matchLabels";
pub(crate) const TARGET_REFS: &str = "targetRefs";
pub(crate) const GROUP: &str = "group";
pub(crate) const KIND: &str = "kind";

/// The fields of `scope`.
pub(crate) const ROOT_NAMESPACE: &str = "rootNamespace";
pub(crate) const DELEGATED_NAMESPACES: &str = "delegatedNamespaces";
pub(crate) const WORKLOAD: &str = "workload";
pub(crate) const LABELS: &str = "labels";
pub(crate) const WAYPOINT: &str = "waypoint";

pub(crate) const FROM: &str = "from";
pub(crate) const SOURCE: &str = "source";
pub(crate) const TO: &str = "to";
pub(crate) const OPERATION: &str = "operation";
pub(crate) const WHEN: &str = "when";
pub(crate) const KEY: &str = "key";
/// The values of a condition.
pub(crate) const VALUES: Names = ["values", "notValues"];

/// The configuration document of a route.
pub(crate) const CONFIGURATION: &str = "configuration";

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident $(in $selector:ident $name:literal $negated:literal)? $(key $key:literal)?;)*) => {
        /// An attribute that a rule can match: with a field of a source or an operation, with the key of a condition, or with
        /// both.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The selector that has this field, and the names of the field and of its negated form.
            const fn selector(self) -> Option<(Selector, Names)> {
                match self {
                    $($(Self::$variant => Some((Selector::$selector, [$name, $negated])),)?)*
                    _ => None,
                }
            }

            /// The key of a condition, without the name in brackets.
            #[must_use]
            pub const fn key(self) -> Option<&'static str> {
                match self {
                    $($(Self::$variant => Some($key),)?)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    /// The caller's SPIFFE ID without `spiffe://`.
    Principals in Source "principals" "notPrincipals" key "source.principal";
    /// The issuer and the subject of the request's token.
    RequestPrincipals in Source "requestPrincipals" "notRequestPrincipals" key "request.auth.principal";
    /// The caller's namespace.
    Namespaces in Source "namespaces" "notNamespaces" key "source.namespace";
    /// The caller's service account.
    ServiceAccounts in Source "serviceAccounts" "notServiceAccounts" key "source.serviceAccount";
    /// The caller's trust domain.
    TrustDomains in Source "trustDomains" "notTrustDomains" key "source.trustDomain";
    /// The direct remote address.
    IpBlocks in Source "ipBlocks" "notIpBlocks" key "source.ip";
    /// The client's address, as trusted proxies report it.
    RemoteIpBlocks in Source "remoteIpBlocks" "notRemoteIpBlocks" key "remote.ip";
    /// The host of the request, with its port.
    Hosts in Operation "hosts" "notHosts";
    /// The local port of the connection.
    Ports in Operation "ports" "notPorts" key "destination.port";
    /// The HTTP method.
    Methods in Operation "methods" "notMethods";
    /// The path of the request, without its query.
    Paths in Operation "paths" "notPaths";
    /// The local address of the connection.
    DestinationIp key "destination.ip";
    /// The server name of the TLS handshake (SNI).
    ServerName key "connection.sni";
    /// The audiences of the request's token.
    Audiences key "request.auth.audiences";
    /// The authorized presenter of the request's token.
    Presenter key "request.auth.presenter";
    /// A claim of the request's token: `request.auth.claims[<claim>]`.
    Claim key "request.auth.claims";
    /// A header: `request.headers[<name>]`.
    Header key "request.headers";
    /// The dynamic metadata of another filter: `experimental.envoy.filters.<filter>[<key>]`.
    Metadata key "experimental.envoy.filters.";
}

/// The object of a rule that has a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    Source,
    Operation,
}

impl Selector {
    /// The list of a rule with these selectors, and the field of each item that contains one.
    pub(crate) const fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Source => (FROM, SOURCE),
            Self::Operation => (TO, OPERATION),
        }
    }

    /// The fields of this selector.
    pub(crate) fn fields(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |field| field.selector().is_some_and(|(selector, _)| selector == self))
    }
}

impl Field {
    /// The names of the field in a source or an operation. A field that only conditions have is named by `VALUES`.
    pub(crate) const fn names(self) -> Names {
        match self.selector() {
            Some((_, names)) => names,
            None => VALUES,
        }
    }

    /// Returns the field of a source or an operation that has this name, and `true` if it is the negated form.
    #[must_use]
    pub fn named(name: &str) -> Option<(Self, bool)> {
        Self::ALL.iter().find_map(|field| {
            let (_, [positive, negated]) = field.selector()?;
            (name == positive || name == negated).then_some((*field, name == negated))
        })
    }

    /// Returns `true` if the attribute identifies the workload that calls.
    #[must_use]
    pub(crate) const fn is_of_caller(self) -> bool {
        matches!(self, Self::Principals | Self::Namespaces | Self::ServiceAccounts | Self::TrustDomains)
    }

    /// Returns `true` if ztunnel evaluates the field of a source or an operation.
    ///
    /// Source: Istio, `pilot/pkg/serviceregistry/ambient/authorization.go`.
    #[must_use]
    pub(crate) const fn is_read_by_ztunnel(self) -> bool {
        matches!(self, Self::Principals | Self::Namespaces | Self::ServiceAccounts | Self::IpBlocks | Self::Ports)
    }

    /// Returns `true` if ztunnel evaluates conditions on the attribute (`l4WhenAttributes`).
    #[must_use]
    pub(crate) const fn is_condition_read_by_ztunnel(self) -> bool {
        matches!(self, Self::Principals | Self::Namespaces | Self::IpBlocks | Self::Ports | Self::DestinationIp)
    }

    /// Returns `true` if only an HTTP request has this attribute.
    #[must_use]
    pub const fn is_http_only(self) -> bool {
        match self {
            Self::Hosts
            | Self::Methods
            | Self::Paths
            | Self::RequestPrincipals
            | Self::Audiences
            | Self::Presenter
            | Self::Claim
            | Self::Header => true,
            Self::Principals
            | Self::Namespaces
            | Self::ServiceAccounts
            | Self::TrustDomains
            | Self::IpBlocks
            | Self::RemoteIpBlocks
            | Self::Ports
            | Self::DestinationIp
            | Self::ServerName
            | Self::Metadata => false,
        }
    }
}

/// The key of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'k> {
    /// The attribute that the condition matches.
    pub field: Field,
    /// The header, claim or metadata key in brackets. Empty for keys without brackets.
    pub name: &'k str,
    /// The filter whose metadata is matched, for [`Field::Metadata`] only.
    pub filter: &'k str,
}

impl<'k> Key<'k> {
    /// Parses a key, such as `source.ip` or `request.headers[x-token]`.
    #[must_use]
    pub fn parse(key: &'k str) -> Option<Self> {
        let bracketed = key.split_once('[').and_then(|(of, rest)| Some((of, rest.strip_suffix(']')?)));
        let (of, name) = bracketed.filter(|(_, name)| !name.is_empty()).unwrap_or((key, ""));
        let field = Field::ALL.iter().copied().find(|field| match field {
            Field::Metadata => field.key().is_some_and(|prefix| of.starts_with(prefix)),
            field => field.key() == Some(of),
        })?;
        let has_name = matches!(field, Field::Header | Field::Claim | Field::Metadata);
        let filter = if field == Field::Metadata { of.strip_prefix("experimental.").unwrap_or(of) } else { "" };
        (has_name != name.is_empty()).then_some(Self { field, name, filter })
    }

    /// Every key, as a diagnostic lists them.
    pub(crate) fn list() -> String {
        let keys = Field::ALL.iter().filter_map(|field| {
            let key = field.key()?;
            Some(match field {
                Field::Header => format!("`{key}[<name>]`"),
                Field::Claim => format!("`{key}[<claim>]`"),
                Field::Metadata => format!("`{key}<filter>[<key>]`"),
                _ => format!("`{key}`"),
            })
        });
        keys.collect::<Vec<_>>().join(", ")
    }
}

/// Returns `true` if a condition of this rule names the trust domains that its namespaces and service accounts belong to.
/// `notValues` alone do not.
pub(crate) fn conditions_name_trust_domain(rule: &Node) -> bool {
    let names = |condition: &Node| {
        let key = condition.field(KEY).and_then(Node::text).and_then(Key::parse);
        key.is_some_and(|key| key.field == Field::TrustDomains) && condition.field(VALUES[0]).is_some()
    };
    rule.list(WHEN).iter().any(names)
}

#[cfg(test)]
mod tests {
    use super::{Field, Key, Selector};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_field_can_be_written() {
        for field in Field::ALL {
            assert!(field.selector().is_some() || field.key().is_some(), "{field:?}");
            if let Some((_, names)) = field.selector() {
                assert_eq!(names.map(Field::named), [Some((*field, false)), Some((*field, true))]);
            }
        }
        assert_eq!(Selector::Source.fields().count() + Selector::Operation.fields().count(), 11);
    }

    #[test]
    fn keys_of_conditions_are_parsed() {
        let parts = |key| Key::parse(key).map(|key| (key.field, key.name, key.filter));
        assert_eq!(parts("source.ip"), Some((Field::IpBlocks, "", "")));
        assert_eq!(parts("request.headers[x]"), Some((Field::Header, "x", "")));
        assert_eq!(parts("request.auth.claims[a][b]"), Some((Field::Claim, "a][b", "")));
        let metadata = "experimental.envoy.filters.http.x[k]";
        assert_eq!(parts(metadata), Some((Field::Metadata, "k", "envoy.filters.http.x")));
        for key in ["", "source", "source.ip[x]", "request.headers", "request.headers[]", "request.headers[x", "hosts"]
        {
            assert_eq!(parts(key), None, "{key}");
        }
    }
}
