//! The proxies that an object configures.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use spiffe_authz::policy::GATEWAY_NAME;

use crate::istio::scope::Workload;
use crate::istio::target::{Kind, TargetRef};
use crate::mesh::{parse_label, parse_namespace};

const EXPECTED: &str = "expected `sidecars`, `sidecars:NAMESPACE`, `sidecars:NAMESPACE/LABEL=VALUE,…`, \
                        `gateway:NAMESPACE/LABEL=VALUE,…` or `waypoint:NAMESPACE/KIND/NAME`";

/// The proxies that an object configures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Proxies {
    /// The sidecars of every namespace.
    EverySidecar,
    /// The sidecars of a namespace with these labels.
    Sidecars { namespace: String, labels: BTreeMap<String, String> },
    /// The gateways of a namespace with these labels.
    Gateway { namespace: String, labels: BTreeMap<String, String> },
    /// The waypoint of a resource.
    Waypoint { namespace: String, target: TargetRef },
}

impl TryFrom<String> for Proxies {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl Proxies {
    /// Parses the name of proxies, such as `sidecars:default/app=httpbin`.
    ///
    /// # Errors
    /// Returns a description of the expected form.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = match text.split_once(':') {
            None if text == "sidecars" => return Ok(Self::EverySidecar),
            None => return Err(EXPECTED.to_owned()),
            Some(parts) => parts,
        };
        let (namespace, rest) = match rest.split_once('/') {
            Some((namespace, rest)) => (parse_namespace(namespace)?, Some(rest)),
            None => (parse_namespace(rest)?, None),
        };
        match (kind, rest) {
            ("sidecars", None) => Ok(Self::Sidecars { namespace, labels: BTreeMap::new() }),
            ("sidecars", Some(labels)) => Ok(Self::Sidecars { namespace, labels: parse_labels(labels)? }),
            ("gateway", Some(labels)) => Ok(Self::Gateway { namespace, labels: parse_labels(labels)? }),
            ("waypoint", Some(target)) => {
                let target = TargetRef::parse(target)?;
                if target.kind() == Kind::GatewayClass {
                    return Err("expected the Gateway, Service or ServiceEntry of a waypoint".to_owned());
                }
                Ok(Self::Waypoint { namespace, target })
            }
            _ => Err(EXPECTED.to_owned()),
        }
    }

    /// Returns the namespace of the object.
    pub(crate) fn namespace<'p>(&'p self, root_namespace: &'p str) -> &'p str {
        match self {
            Self::EverySidecar => root_namespace,
            Self::Sidecars { namespace, .. } | Self::Gateway { namespace, .. } | Self::Waypoint { namespace, .. } => {
                namespace
            }
        }
    }

    /// Returns the labels that select the proxies.
    pub(crate) fn labels(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Sidecars { labels, .. } | Self::Gateway { labels, .. } if !labels.is_empty() => Some(labels),
            _ => None,
        }
    }

    /// Returns the workload if all proxies have the same policies.
    pub(crate) fn workload(&self) -> Option<Workload> {
        let (namespace, labels, targets) = match self {
            Self::EverySidecar => return None,
            Self::Sidecars { namespace, labels } => (namespace, labels.clone(), Vec::new()),
            Self::Gateway { namespace, labels } => {
                let gateway =
                    labels.get(GATEWAY_NAME).and_then(|name| TargetRef::parse(&format!("Gateway/{name}")).ok());
                (namespace, labels.clone(), gateway.into_iter().collect())
            }
            Self::Waypoint { namespace, target } => (namespace, BTreeMap::new(), vec![target.clone()]),
        };
        let is_sidecar = matches!(self, Self::Sidecars { .. });
        Some(Workload { namespace: namespace.clone(), labels, targets, is_sidecar })
    }

    /// Returns the name of the object: `base`, the kind of the proxies unless they are sidecars, and the values of the labels
    /// or the name of the resource.
    pub(crate) fn object_name(&self, base: &str) -> String {
        let mut parts = vec![base];
        match self {
            Self::EverySidecar | Self::Sidecars { .. } => {}
            Self::Gateway { .. } => parts.push("gateway"),
            Self::Waypoint { .. } => parts.push("waypoint"),
        }
        parts.extend(self.labels().into_iter().flat_map(BTreeMap::values).map(String::as_str));
        if let Self::Waypoint { target, .. } = self {
            parts.push(target.name());
        }
        // The value of a label can have characters that the name of an object cannot have.
        let is_allowed = |character: &char| character.is_ascii_lowercase() || character.is_ascii_digit();
        let letter = |character: char| Some(character.to_ascii_lowercase()).filter(is_allowed).unwrap_or('-');
        parts.join("-").trim_matches('-').chars().map(letter).collect()
    }
}

fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for label in text.split(',') {
        let (name, value) = parse_label(label)?;
        if labels.insert(name.clone(), value).is_some() {
            return Err(format!("the label `{name}` has two values"));
        }
    }
    Ok(labels)
}

impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, namespace, labels) = match self {
            Self::EverySidecar => return f.write_str("sidecars"),
            Self::Waypoint { namespace, target } => {
                return write!(f, "waypoint:{namespace}/{}/{}", target.kind().name(), target.name());
            }
            Self::Sidecars { namespace, labels } => ("sidecars", namespace, labels),
            Self::Gateway { namespace, labels } => ("gateway", namespace, labels),
        };
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        write!(f, "{kind}:{namespace}{}{}", if labels.is_empty() { "" } else { "/" }, labels.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::Proxies;

    #[test]
    fn names_of_proxies() {
        for (text, object) in [
            ("sidecars", "x"),
            ("sidecars:default", "x"),
            ("sidecars:default/app=httpbin,version=v1.2", "x-httpbin-v1-2"),
            ("gateway:istio-system/gateway.networking.k8s.io/gateway-name=Public", "x-gateway-public"),
            ("waypoint:default/Gateway/waypoint", "x-waypoint-waypoint"),
        ] {
            let proxies = Proxies::parse(text).unwrap();
            assert_eq!(proxies.to_string(), text);
            assert_eq!(proxies.object_name("x"), object);
        }
        for text in [
            "",
            "gateways",
            "sidecar:default",
            "sidecars:",
            "sidecars:Default",
            "sidecars:default/app",
            "sidecars:default/app=a,app=b",
            "gateway:istio-system",
            "waypoint:default/GatewayClass/istio-waypoint",
            "waypoint:default/Gateway",
        ] {
            assert!(Proxies::parse(text).is_err(), "{text}");
        }
    }
}
