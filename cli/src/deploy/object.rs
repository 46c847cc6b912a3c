//! The Kubernetes objects that configure the filter in Istio's proxies.

use std::fmt;

use super::filter_file::FilterFile;
use super::policies::DocumentOf;
use super::proxies::Proxies;
use crate::located::Located;
use crate::located::written::{list, number, object, text};

/// The label of every object that the command writes.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "spiffe-authz");

/// The Wasm filter in an image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) url: String,
    /// The digest in hexadecimal digits.
    pub(crate) sha256: String,
}

/// The kind of the objects, with the code of the filter.
#[derive(Debug)]
pub(crate) enum Kind {
    /// With ports, the filter decides on TCP connections to them.
    WasmPlugin {
        image: Image,
        tcp_ports: Vec<u16>,
    },
    TrafficExtension {
        image: Image,
    },
    EnvoyFilter {
        file: FilterFile,
    },
}

/// An object for proxies.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) value: Located,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Kind {
    /// Returns the object that configures proxies with a document. `base` is the beginning of its name.
    pub(crate) fn object(&self, base: &str, root_namespace: &str, proxies: &Proxies, document: &DocumentOf) -> Object {
        let (version, kind) = match self {
            Self::WasmPlugin { .. } => ("extensions.istio.io/v1alpha1", "WasmPlugin"),
            Self::TrafficExtension { .. } => ("extensions.istio.io/v1alpha1", "TrafficExtension"),
            Self::EnvoyFilter { .. } => ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        };
        let (namespace, name) = (proxies.namespace(root_namespace).to_owned(), proxies.object_name(base));
        let (label, manager) = MANAGED_BY;
        let metadata = object([
            ("name", text(&*name)),
            ("namespace", text(&*namespace)),
            ("labels", object([(label, text(manager))])),
        ]);
        let spec = match self {
            Self::WasmPlugin { image, tcp_ports } => extension(proxies, image, tcp_ports, document, false),
            Self::TrafficExtension { image } => extension(proxies, image, &[], document, true),
            Self::EnvoyFilter { file } => envoy_filter(proxies, file, document),
        };
        let value = object([
            ("apiVersion", text(version)),
            ("kind", text(kind)),
            ("metadata", metadata),
            ("spec", object(spec)),
        ]);
        Object { kind, namespace, name, value }
    }
}

type Fields = Vec<(&'static str, Located)>;

/// Returns the selection of the proxies: by labels in this field, or by a resource.
fn selection(proxies: &Proxies, labels_in: fn(Located) -> (&'static str, Located)) -> Option<(&'static str, Located)> {
    if let Proxies::Waypoint { target, .. } = proxies {
        let group = target.kind().groups().last().copied().unwrap_or_default();
        let target =
            object([("group", text(group)), ("kind", text(target.kind().name())), ("name", text(target.name()))]);
        return Some(("targetRefs", list([target])));
    }
    let labels = proxies.labels()?;
    Some(labels_in(object(labels.iter().map(|(name, value)| (name.as_str(), text(value))))))
}

/// Returns the specification of a WasmPlugin or a TrafficExtension.
fn extension(proxies: &Proxies, image: &Image, ports: &[u16], document: &DocumentOf, is_nested: bool) -> Fields {
    let mut spec: Fields =
        selection(proxies, |labels| ("selector", object([("matchLabels", labels)]))).into_iter().collect();
    // Istio's other default, a filter for HTTP, needs no field.
    if !ports.is_empty() {
        spec.push(("type", text("NETWORK")));
        // The root ID, by which the filter distinguishes connections from requests.
        spec.push(("pluginName", text("tcp")));
    }
    // After Istio's token validation, which conditions with `request.auth` require, and before Istio's RBAC filter.
    spec.push(("phase", text("AUTHZ")));
    if document.precedes_others {
        spec.push(("priority", number(10)));
    }
    // Requests that a sidecar sends have no client certificate. The listeners of gateways have the mode CLIENT, and all
    // listeners of a waypoint are for requests to its services.
    let mut listeners: Fields = Vec::new();
    if matches!(proxies, Proxies::EverySidecar | Proxies::Sidecars { .. }) {
        listeners.push(("mode", text("SERVER")));
    }
    if !ports.is_empty() {
        listeners.push(("ports", list(ports.iter().map(|port| object([("number", number(*port))])))));
    }
    if !listeners.is_empty() {
        spec.push(("match", list([object(listeners)])));
    }
    let wasm = [
        ("url", text(&*image.url)),
        ("sha256", text(&*image.sha256)),
        // If the VM fails, requests are denied until it is rebuilt.
        ("failStrategy", text("FAIL_RELOAD")),
        ("pluginConfig", document.located.clone()),
    ];
    if is_nested {
        spec.push(("wasm", object(wasm)));
    } else {
        spec.extend(wasm);
    }
    spec
}

/// Returns the specification of an EnvoyFilter.
fn envoy_filter(proxies: &Proxies, file: &FilterFile, document: &DocumentOf) -> Fields {
    let DocumentOf { located, needs, precedes_others } = document;
    let mut spec: Fields = Vec::new();
    if file.is_module() {
        // After EnvoyFilters without a priority, because the patches match objects that those can create.
        spec.push(("priority", number(10)));
    } else if *precedes_others {
        // Istio applies EnvoyFilters in ascending order. Filters before the router keep the order in which they are inserted, and
        // filters at the beginning get the opposite one.
        spec.push(("priority", number(if needs.claims { -10 } else { 10 })));
    }
    spec.extend(selection(proxies, |labels| ("workloadSelector", object([("labels", labels)]))));
    let context = if matches!(proxies, Proxies::Gateway { .. }) { "GATEWAY" } else { "SIDECAR_INBOUND" };
    let patch = |apply_to: &str, sub_filter: Option<&str>, operation: &str, value: Located| {
        let mut filter = vec![("name", text("envoy.filters.network.http_connection_manager"))];
        filter.extend(sub_filter.map(|name| ("subFilter", object([("name", text(name))]))));
        let listener = object([("filterChain", object([("filter", object(filter))]))]);
        object([
            ("applyTo", text(apply_to)),
            ("match", object([("context", text(context)), ("listener", listener)])),
            ("patch", object([("operation", text(operation)), ("value", value)])),
        ])
    };
    let mut patches = Vec::new();
    // The example connections.yaml stores the direct remote address for every form of the filter.
    patches.extend(
        file.network_filter(*needs, false).map(|filter| patch("NETWORK_FILTER", None, "INSERT_BEFORE", filter)),
    );
    // Before every filter that acts on the request, but after the validation of tokens.
    let (sub_filter, operation) =
        if needs.claims { (Some("envoy.filters.http.router"), "INSERT_BEFORE") } else { (None, "INSERT_FIRST") };
    patches.extend(file.claims_filter(*needs).map(|filter| patch("HTTP_FILTER", sub_filter, operation, filter)));
    patches.push(patch("HTTP_FILTER", sub_filter, operation, file.http_filter(located)));
    spec.push(("configPatches", list(patches)));
    spec
}
