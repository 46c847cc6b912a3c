//! The fields of the learned document without its policies.

use std::io;
use std::path::Path;

use spiffe_authz::policy::{PolicySet, Proxy};

use crate::document::Document;
use crate::exit::Failure;
use crate::located::written::{NOWHERE, field, list, object, text};
use crate::located::{Field, Located, Value};
use crate::mesh::{Mesh, MeshSettings};

/// The fields of another document that do not apply to the learned one: its policies, their workloads, and the lints about them.
const OF_POLICIES: [&str; 3] = ["policies", "scope", "ignoreLints"];

/// The settings of a document: its trust domains, `identity` and `outputs`.
pub(super) struct Settings(Vec<Field>);

impl Settings {
    /// Returns the settings in a document, or those of the trust domains in options.
    ///
    /// # Errors
    /// Returns an error if the document cannot be read, or if the settings have errors.
    pub(super) fn read(document: Option<&Path>, mesh: &MeshSettings) -> io::Result<Self> {
        let settings = match document {
            Some(document) => {
                let mesh = Mesh { settings: mesh.clone(), workload: None };
                Document::load_with(document, &mesh, |_, located, _| {
                    let is_setting = |field: &&Field| !OF_POLICIES.contains(&&*field.name);
                    let settings = Self(located.fields().iter().filter(is_setting).cloned().collect());
                    // The errors have their positions in the document.
                    Document::compile(&settings.document(&[]), Proxy::Unknown)?;
                    Ok(settings)
                })?
            }
            None => Self::of_mesh(mesh),
        };
        settings.compile(&[])?;
        Ok(settings)
    }

    fn of_mesh(
        MeshSettings { trust_domain, trust_domain_aliases, federated_trust_domains, .. }: &MeshSettings,
    ) -> Self {
        let texts = |values: &[String]| list(values.iter().map(text));
        let identity = object([("pattern", text("istio")), ("peer", text("required"))]);
        let fields = [
            trust_domain.as_ref().map(|name| field("trustDomain", text(name))),
            (!federated_trust_domains.is_empty())
                .then(|| field("federatedTrustDomains", texts(federated_trust_domains))),
            (!trust_domain_aliases.is_empty()).then(|| field("trustDomainAliases", texts(trust_domain_aliases))),
            Some(field("identity", identity)),
        ];
        Self(fields.into_iter().flatten().collect())
    }

    /// Returns the document with these policies.
    pub(super) fn document(&self, policies: &[Located]) -> Located {
        let mut fields = self.0.clone();
        fields.push(field("policies", list(policies.iter().cloned())));
        Located::new(NOWHERE, Value::Object(fields))
    }

    /// Compiles the document with these policies.
    ///
    /// # Errors
    /// Returns the errors in the document.
    pub(super) fn compile(&self, policies: &[Located]) -> io::Result<PolicySet> {
        PolicySet::from_node(&self.document(policies).to_node(), Proxy::Unknown)
            .map_err(|errors| io::Error::other(Failure::of_options(&errors)))
    }
}
