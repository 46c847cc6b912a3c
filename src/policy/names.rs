//! The names of the fields of sources, operations and conditions.

use super::rule::{Field, Part};
use crate::request::AddressOf;

/// The names of a field and of its `not…` twin.
pub(crate) type Twin = [&'static str; 2];

pub(crate) const PRINCIPALS: Twin = ["principals", "notPrincipals"];
pub(crate) const NAMESPACES: Twin = ["namespaces", "notNamespaces"];
pub(crate) const SERVICE_ACCOUNTS: Twin = ["serviceAccounts", "notServiceAccounts"];
pub(crate) const TRUST_DOMAINS: Twin = ["trustDomains", "notTrustDomains"];
pub(crate) const REQUEST_PRINCIPALS: Twin = ["requestPrincipals", "notRequestPrincipals"];
pub(crate) const IP_BLOCKS: Twin = ["ipBlocks", "notIpBlocks"];
pub(crate) const REMOTE_IP_BLOCKS: Twin = ["remoteIpBlocks", "notRemoteIpBlocks"];
pub(crate) const HOSTS: Twin = ["hosts", "notHosts"];
pub(crate) const PORTS: Twin = ["ports", "notPorts"];
pub(crate) const METHODS: Twin = ["methods", "notMethods"];
pub(crate) const PATHS: Twin = ["paths", "notPaths"];
/// Of every condition, whatever its key.
pub(crate) const VALUES: Twin = ["values", "notValues"];

impl Field {
    /// The names under which this field's values stand in the document.
    pub(crate) const fn names(&self, part: Part) -> Twin {
        match (part, self) {
            (Part::When, _) => VALUES,
            (_, Self::Unasked(field)) => field.names(part),
            (_, Self::Principals(_)) => PRINCIPALS,
            (_, Self::Namespaces(_)) => NAMESPACES,
            (_, Self::ServiceAccounts(_)) => SERVICE_ACCOUNTS,
            (_, Self::TrustDomains(_)) => TRUST_DOMAINS,
            (_, Self::RequestPrincipals(_)) => REQUEST_PRINCIPALS,
            (_, Self::Addresses(AddressOf::Source, _)) => IP_BLOCKS,
            (_, Self::Addresses(..)) => REMOTE_IP_BLOCKS,
            (_, Self::Hosts(..)) => HOSTS,
            (_, Self::Ports(_)) => PORTS,
            (_, Self::Methods(_)) => METHODS,
            (_, Self::Paths(..)) => PATHS,
            // These stand in conditions only.
            (_, Self::ServerNames(_) | Self::Header(..) | Self::Metadata(..)) => VALUES,
        }
    }
}
