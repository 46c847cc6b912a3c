//! The resources that policies are attached to: `targetRefs` of a policy, and `--target-ref` of the command.

use std::fmt;

use serde::Deserialize;
use spiffe_authz::diagnostic::Code;

use super::fields::Fields;
use crate::located::{Located, Position, Value};
use crate::suggestion::hint;

/// A kind of resource that a policy can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gateway,
    GatewayClass,
    Service,
    ServiceEntry,
}

/// A resource that a policy is attached to.
#[derive(Debug)]
pub(crate) struct Target<'r> {
    pub(crate) position: Position,
    pub(crate) kind: Kind,
    pub(crate) name: &'r str,
}

/// A resource of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TargetRef {
    kind: Kind,
    name: String,
}

/// The namespace of a policy, and the root namespace of its mesh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home<'n> {
    pub(crate) namespace: &'n str,
    pub(crate) root_namespace: &'n str,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Gateway, Self::GatewayClass, Self::Service, Self::ServiceEntry];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
        }
    }

    /// Returns the names of the API group. The first is its usual one.
    pub(crate) const fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Gateway | Self::GatewayClass => &["gateway.networking.k8s.io"],
            Self::Service => &["core", ""],
            Self::ServiceEntry => &["networking.istio.io"],
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| format!("unknown kind `{text}` ({})", hint(text, &Self::ALL.map(Self::name))))
    }

    /// Returns `true` for a kind whose policies a waypoint enforces for a part of its requests.
    pub(crate) const fn is_service(self) -> bool {
        matches!(self, Self::Service | Self::ServiceEntry)
    }
}

impl<'r> Target<'r> {
    /// Reads `targetRef` and `targetRefs` of a specification.
    pub(crate) fn read_all(spec: &'r Located, home: Home<'_>, fields: &mut Fields<'_>) -> Vec<Self> {
        let mut targets = Vec::new();
        if let Some(target) = spec.field("targetRef") {
            targets.extend(Self::read(target, "spec.targetRef", home, fields));
        }
        if let Some(list) = spec.field("targetRefs") {
            if !matches!(list.value, Value::List(_)) {
                fields.report_type(list, "spec.targetRefs", "a list");
            }
            for (position, target) in list.items().iter().enumerate() {
                targets.extend(Self::read(target, &format!("spec.targetRefs[{position}]"), home, fields));
            }
        }
        let list = spec.field("targetRefs").filter(|list| !list.items().is_empty());
        let uses = [("selector", spec.field("selector")), ("targetRef", spec.field("targetRef")), ("targetRefs", list)];
        let uses: Vec<(&str, Position)> =
            uses.into_iter().filter_map(|(name, value)| Some((name, value?.position))).collect();
        if let [(first, _), .., (last, position)] = uses.as_slice() {
            let message = format!("`{first}` and `{last}` cannot be combined");
            fields.report(Code::ConflictingFields, *position, &format!("spec.{last}"), message);
        }
        targets
    }

    fn read(target: &'r Located, at: &str, home: Home<'_>, fields: &mut Fields<'_>) -> Option<Self> {
        if !fields.is_object(target, at) {
            return None;
        }
        let allowed = ["group", "kind", "name", "namespace"];
        for unknown in fields.object(target, at, &allowed) {
            fields.report_unknown_of(unknown, at, &allowed);
        }
        let mut required = |name: &str| {
            if target.field(name).is_none() {
                let message = format!("missing field `{name}`");
                fields.report(Code::MissingField, target.position, &format!("{at}.{name}"), message);
            }
            fields.text(target, name, at)
        };
        let (kind, name) = (required("kind"), required("name"));
        let group = fields.text_or_empty(target, "group", at).map_or("", |(group, _)| group);
        match fields.text_or_empty(target, "namespace", at) {
            Some((namespace, position)) if !namespace.is_empty() && namespace != home.namespace => {
                let message = format!(
                    "`{namespace}` is not the namespace of the policy, which is `{}` (Istio rejects references to other \
                     namespaces)",
                    home.namespace
                );
                fields.report(Code::InvalidValue, position, &format!("{at}.namespace"), message);
            }
            _ => {}
        }
        let ((kind, position), (name, _)) = (kind?, name?);
        let kind = match Kind::parse(kind) {
            Ok(kind) => kind,
            Err(message) => {
                fields.report(Code::InvalidValue, position, &format!("{at}.kind"), message);
                return None;
            }
        };
        if !kind.groups().contains(&group) {
            let (kind, expected) = (kind.name(), kind.groups().first().unwrap_or(&""));
            let message = format!("unknown group `{group}` of a {kind} (expected `{expected}`)");
            fields.report(Code::InvalidValue, position, &format!("{at}.group"), message);
        }
        if kind == Kind::GatewayClass && home.namespace != home.root_namespace {
            let message = format!(
                "a GatewayClass is only allowed in a policy of the root namespace, which is `{}` (change it with \
                 `--root-namespace`)",
                home.root_namespace
            );
            fields.report(Code::InvalidValue, position, &format!("{at}.kind"), message);
        }
        Some(Self { position, kind, name })
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.name)
    }
}

impl TryFrom<String> for TargetRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl TargetRef {
    /// Parses a kind and a name, such as `Gateway/public`.
    ///
    /// # Errors
    /// Returns a description of the expected form.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').ok_or("expected `kind/name`, such as `Gateway/public`")?;
        let kind = Kind::parse(kind)?;
        if name.is_empty() || name.contains('/') {
            return Err("expected `kind/name`, such as `Gateway/public`".to_owned());
        }
        Ok(Self { kind, name: name.to_owned() })
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns `true` if the resource has the kind and the name of a target.
    pub(crate) fn is(&self, target: &Target<'_>) -> bool {
        self.kind == target.kind && self.name == target.name
    }
}
