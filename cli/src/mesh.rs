//! The mesh and the workload whose policies a command reads, for AuthorizationPolicies and documents with `scope`.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use spiffe_authz::policy::Proxy;
use spiffe_authz::spiffe_id::TrustDomain;

use crate::exit::Failure;
use crate::istio::import::{Import, Importer, option, texts};
use crate::istio::resource::Resources;
use crate::istio::scope::{Scope, Workload};
use crate::istio::target::TargetRef;
use crate::istio::trust_domain_bundle::TrustDomainBundle;
use crate::located::{Field, Located, Value};

/// The headings of the options in `--help`. A heading of a struct would also apply to the options after it.
const MESH: &str = "Options for the mesh of AuthorizationPolicies";
const WORKLOAD: &str = "Options for the workload, with AuthorizationPolicies or `scope`";
/// The root namespace of a mesh with Istio's defaults.
const ROOT_NAMESPACE: &str = "istio-system";

/// A mesh, and the workload whose policies are read.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    pub(crate) settings: MeshSettings,
    pub(crate) workload: Option<Workload>,
}

/// The settings of a mesh that the meaning of its AuthorizationPolicies depends on, with the names of Istio.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct MeshSettings {
    pub(crate) trust_domain: Option<String>,
    pub(crate) trust_domain_aliases: Vec<String>,
    pub(crate) federated_trust_domains: Vec<String>,
    pub(crate) root_namespace: String,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: None,
            trust_domain_aliases: Vec::new(),
            federated_trust_domains: Vec::new(),
            root_namespace: ROOT_NAMESPACE.to_owned(),
        }
    }
}

/// The options of a mesh.
#[derive(clap::Args)]
pub(crate) struct SettingsOptions {
    /// The mesh's trust domain. Required for AuthorizationPolicies
    #[arg(help_heading = MESH, long, value_parser = parse_trust_domain)]
    trust_domain: Option<String>,
    /// One of the mesh's `trustDomainAliases`, which principals get in the same way as in Istio; can be repeated
    #[arg(help_heading = MESH, long = "trust-domain-alias", value_name = "TRUST_DOMAIN", value_parser = parse_trust_domain)]
    aliases: Vec<String>,
    /// A trust domain to federate with; can be repeated
    #[arg(help_heading = MESH, long = "federated-trust-domain", value_name = "TRUST_DOMAIN", value_parser = parse_trust_domain)]
    federated: Vec<String>,
    /// The namespace whose policies without a selector apply to the whole mesh
    #[arg(help_heading = MESH, long, value_parser = parse_namespace, default_value = ROOT_NAMESPACE)]
    root_namespace: String,
}

/// The options of a mesh and a workload.
#[derive(clap::Args)]
pub(crate) struct MeshOptions {
    #[command(flatten)]
    settings: SettingsOptions,
    /// The namespace of the workload whose policies are read. Policies without a namespace get it [default: every policy is
    /// read, if one workload can have all of them]
    #[arg(help_heading = WORKLOAD, short, long, value_parser = parse_namespace)]
    namespace: Option<String>,
    /// A label of the workload, `name=value`; can be repeated; policies that select other workloads are skipped
    #[arg(help_heading = WORKLOAD, long = "label", value_name = "LABEL", value_parser = parse_label, requires = "namespace")]
    labels: Vec<(String, String)>,
    /// A Gateway, GatewayClass, Service or ServiceEntry of the proxy, `kind/name`; can be repeated; policies whose
    /// `targetRefs` have other resources are skipped. With a GatewayClass or a service, the proxy is a waypoint, and
    /// policies without `targetRefs` are skipped
    #[arg(help_heading = WORKLOAD, long = "target-ref", value_name = "KIND/NAME", value_parser = TargetRef::parse, requires = "namespace")]
    targets: Vec<TargetRef>,
}

/// Parses `name=value`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Returns a name that a namespace of Kubernetes can have: a label of RFC 1123.
pub(crate) fn parse_namespace(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || !text.bytes().all(is_allowed) {
        return Err("expected the name of a namespace, of lowercase letters, digits and `-`".to_owned());
    }
    Ok(text.to_owned())
}

/// Returns a string that is the name of a trust domain.
pub(crate) fn parse_trust_domain(text: &str) -> Result<String, String> {
    TrustDomain::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

impl SettingsOptions {
    /// Returns the settings of the mesh.
    pub(crate) fn settings(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: self.aliases.clone(),
            federated_trust_domains: self.federated.clone(),
            root_namespace: self.root_namespace.clone(),
        }
    }
}

impl MeshOptions {
    /// Returns the mesh and the workload.
    ///
    /// # Errors
    /// Returns an error if a label has two values.
    pub(crate) fn mesh(&self) -> io::Result<Mesh> {
        let mut labels = BTreeMap::new();
        for (name, value) in &self.labels {
            if let Some(other) = labels.insert(name.clone(), value.clone()).filter(|other| other != value) {
                let message =
                    format!("`--label {name}` has the values `{other}` and `{value}` (remove one of the two)");
                return Err(io::Error::other(message));
            }
        }
        let workload = self.namespace.as_ref().map(|namespace| Workload {
            namespace: namespace.clone(),
            labels,
            targets: self.targets.clone(),
            is_sidecar: false,
        });
        Ok(Mesh { settings: self.settings.settings(), workload })
    }
}

impl MeshSettings {
    pub(crate) const fn has_trust_domain(&self) -> bool {
        self.trust_domain.is_some()
    }

    /// Returns `true` if a trust domain is set: that of the mesh, an alias, or a federated one.
    pub(crate) const fn has_trust_domains(&self) -> bool {
        self.has_trust_domain() || !self.trust_domain_aliases.is_empty() || !self.federated_trust_domains.is_empty()
    }

    /// Adds the trust domain and its aliases from the fields of a document, if they are not set.
    ///
    /// # Errors
    /// Returns an error if they are set to other values: principals would get one trust domain, and the document another.
    pub(crate) fn complete(&mut self, fields: &[Field]) -> io::Result<()> {
        let value = |name: &str| fields.iter().find(|field| field.name == name).map(|field| &field.value);
        let differs = |name: &str, of_mesh: &str| {
            let message =
                format!("`{name}` of `document` is not that of the mesh, which is `{of_mesh}` (remove one of the two)");
            Err(io::Error::other(message))
        };
        if let Some(trust_domain) = value("trustDomain").and_then(Located::text) {
            match &self.trust_domain {
                Some(of_mesh) if of_mesh != trust_domain => return differs("trustDomain", of_mesh),
                _ => self.trust_domain = Some(trust_domain.to_owned()),
            }
        }
        if let Some(aliases) = value("trustDomainAliases") {
            let aliases: Vec<String> = aliases.items().iter().filter_map(Located::text).map(str::to_owned).collect();
            if !self.trust_domain_aliases.is_empty() && self.trust_domain_aliases != aliases {
                return differs("trustDomainAliases", &self.trust_domain_aliases.join(", "));
            }
            self.trust_domain_aliases = aliases;
        }
        Ok(())
    }
}

impl Mesh {
    pub(crate) const fn has_trust_domain(&self) -> bool {
        self.settings.has_trust_domain()
    }

    /// Imports AuthorizationPolicies: those of the workload, or those of `otherwise`. The document begins with the trust
    /// domains and `fields`, which take precedence. With `requires_peer`, callers without a certificate are denied.
    ///
    /// # Errors
    /// Returns an error if the trust domain is missing, or if the settings do not make a document.
    pub(crate) fn import<'r>(
        &'r self,
        resources: Resources<'r>,
        otherwise: Scope,
        fields: Vec<Field>,
        requires_peer: bool,
    ) -> io::Result<Import<'r>> {
        let MeshSettings { trust_domain, trust_domain_aliases, federated_trust_domains, root_namespace } =
            &self.settings;
        let Some(trust_domain) = trust_domain else {
            return Err(io::Error::other("AuthorizationPolicies need the mesh's trust domain (use `--trust-domain`)"));
        };
        let bundle = TrustDomainBundle::new(trust_domain, trust_domain_aliases);
        let mut head = vec![
            option("trustDomain", Value::String(trust_domain.clone())),
            option("federatedTrustDomains", texts(federated_trust_domains)),
            option("trustDomainAliases", texts(bundle.aliases())),
        ];
        for field in fields {
            match head.iter_mut().find(|own| own.name == field.name) {
                Some(own) => *own = field,
                None => head.push(field),
            }
        }
        let scope = self.workload.clone().map_or(otherwise, Scope::Workload);
        let mut importer = Importer::new(bundle, root_namespace, scope);
        importer.add(resources);
        importer.finish(&head, requires_peer).map_err(|errors| io::Error::other(Failure::of_options(&errors)))
    }

    /// Calls `compile` with the proxy of the workload.
    pub(crate) fn with_proxy<T>(&self, compile: impl FnOnce(Proxy<'_>) -> T) -> T {
        match &self.workload {
            Some(workload) => compile(Proxy::Of(&workload.to_proxy())),
            None => compile(Proxy::Unknown),
        }
    }
}
