//! Deployments: the documents of proxies, and the objects and files that configure the proxies with them.

pub(crate) mod difference;
pub(crate) mod filter_file;
pub(crate) mod object;
pub(crate) mod policies;
pub(crate) mod proxies;
mod split;
pub(crate) mod values;

use std::collections::HashSet;
use std::io;

use sha2::{Digest as _, Sha256};

use crate::located::Located;
use crate::located::written::{list, object, text};
use filter_file::FilterFile;
use object::Kind;
use policies::DocumentOf;
use proxies::Proxies;

/// The most bytes of an object as JSON. Kubernetes rejects an object of more than 1.5 MiB, and istiod keeps copies.
const LIMIT: usize = 1 << 20;

/// The form in which policies are deployed.
#[derive(Debug)]
pub(crate) enum Form {
    /// Objects of Istio.
    Objects(Kind),
    /// A file for Envoy's `path_config_source`.
    ExtensionConfig(FilterFile),
    /// The filters for a bootstrap configuration.
    Filters(FilterFile),
}

/// An object or a file.
#[derive(Debug)]
pub(crate) struct Part {
    /// The name, such as `WasmPlugin default/spiffe-authz`.
    pub(crate) name: String,
    pub(crate) value: Located,
    /// The number of policies in it.
    pub(crate) policies: usize,
    /// The size as JSON.
    pub(crate) bytes: usize,
}

impl Form {
    /// Returns `true` if the filter determines which policies apply to its proxy.
    pub(crate) const fn knows_workload(&self) -> bool {
        match self {
            Self::Objects(Kind::WasmPlugin { .. } | Kind::TrafficExtension { .. }) => true,
            Self::Objects(Kind::EnvoyFilter { file }) => !file.is_module(),
            // Only Istio's Envoys have the metadata of their workload.
            Self::ExtensionConfig(_) | Self::Filters(_) => false,
        }
    }

    /// Returns the objects, or the file, for proxies with their documents. `base` is the beginning of the names of objects. The
    /// document of every sidecar becomes several objects if one would be too big.
    ///
    /// # Errors
    /// Returns an error if the form has no place for these proxies, or if an object is too big or has the name of another one.
    pub(crate) fn parts(
        &self,
        base: &str,
        root_namespace: &str,
        documents: Vec<(Proxies, DocumentOf)>,
    ) -> io::Result<Vec<Part>> {
        if matches!(self, Self::ExtensionConfig(_) | Self::Filters(_)) && documents.len() > 1 {
            let count = documents.len();
            let message = format!("expected the proxies of one file, found {count} (use `--proxies` once)");
            return Err(io::Error::other(message));
        }
        let mut parts = Vec::new();
        for (proxies, document) in &documents {
            let part = self.part(base, root_namespace, proxies, document)?;
            if !self.is_too_big(&part) {
                parts.push(part);
                continue;
            }
            let split = if self.can_be_split(proxies) { split::by_namespace(document) } else { None };
            let Some(split) = split else { return Err(too_big(&part, proxies)) };
            for (proxies, document) in &split {
                let part = self.part(base, root_namespace, proxies, document)?;
                if self.is_too_big(&part) {
                    return Err(too_big(&part, proxies));
                }
                parts.push(part);
            }
        }
        let mut names = HashSet::new();
        if let Some(Part { name, .. }) = parts.iter().find(|part| !names.insert(&part.name)) {
            let message = format!("two objects are called {name} (render one of them with another `--name`)");
            return Err(io::Error::other(message));
        }
        Ok(parts)
    }

    /// Returns the object, or the file, for proxies with a document.
    fn part(&self, base: &str, root_namespace: &str, proxies: &Proxies, document: &DocumentOf) -> io::Result<Part> {
        let policies = document.located.field("policies").map_or(0, |policies| policies.items().len());
        let (name, value) = match self {
            Self::Objects(kind) => {
                let is_waypoint = matches!(proxies, Proxies::Waypoint { .. });
                if is_waypoint && matches!(kind, Kind::EnvoyFilter { .. }) {
                    let message =
                        format!("{proxies}: an EnvoyFilter cannot configure a waypoint (use `--to wasm-plugin`)");
                    return Err(io::Error::other(message));
                }
                let object = kind.object(base, root_namespace, proxies, document);
                (object.to_string(), object.value)
            }
            Self::ExtensionConfig(file) => {
                ("the configuration of the filter".to_owned(), extension(file, &document.located))
            }
            Self::Filters(file) => ("the filters".to_owned(), filters(file, document)),
        };
        let bytes = serde_json::to_string(&value)?.len();
        Ok(Part { name, value, policies, bytes })
    }

    const fn is_too_big(&self, part: &Part) -> bool {
        matches!(self, Self::Objects(_)) && part.bytes > LIMIT
    }

    /// Returns `true` if the policies of these proxies can be in several objects. A filter for connections cannot wait for the
    /// decision of another one, because Envoy asks them in the opposite order about the data of a server.
    fn can_be_split(&self, proxies: &Proxies) -> bool {
        let decides_connections =
            matches!(self, Self::Objects(Kind::WasmPlugin { tcp_ports, .. }) if !tcp_ports.is_empty());
        *proxies == Proxies::EverySidecar && !decides_connections
    }
}

/// Returns the error about an object that Kubernetes could reject.
fn too_big(Part { name, bytes, .. }: &Part, proxies: &Proxies) -> io::Error {
    let next = match proxies {
        Proxies::EverySidecar => {
            "remove policies, or use `--proxies sidecars:NAMESPACE` for each namespace of the mesh: each object has the policies of \
             its namespace and of the root namespace"
        }
        _ => "remove policies",
    };
    io::Error::other(format!("{name} has {bytes} bytes, and an object can have {LIMIT} ({next})"))
}

/// Returns the file for `path_config_source`.
fn extension(file: &FilterFile, document: &Located) -> Located {
    let filter = object([
        ("@type", text("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig")),
        ("name", text("spiffe-authz")),
        ("typed_config", file.typed_config(document)),
    ]);
    // Envoy's page of configurations shows the version, which identifies the file that is in use.
    let digest = Sha256::digest(serde_json::to_vec(&filter).unwrap_or_default());
    let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    object([("version_info", text(version)), ("resources", list([filter]))])
}

/// Returns the HTTP filters, and the network filter before the connection manager if they need it.
fn filters(file: &FilterFile, DocumentOf { located, needs, .. }: &DocumentOf) -> Located {
    let network = file.network_filter(*needs, true).map(|filter| ("filters", list([filter])));
    let http = file.claims_filter(*needs).into_iter().chain([file.http_filter(located)]);
    object(network.into_iter().chain([("http_filters", list(http))]))
}
