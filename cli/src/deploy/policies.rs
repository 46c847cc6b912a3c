//! The documents of proxies, from a document or from the AuthorizationPolicies of a mesh.

use std::io;
use std::path::PathBuf;

use spiffe_authz::policy::Proxy;

use super::filter_file::Needs;
use super::proxies::Proxies;
use crate::document::{self, Document};
use crate::exit::Failure;
use crate::istio::import::Import;
use crate::istio::remark::Remark;
use crate::istio::scope::Scope;
use crate::located::written::{field, object, text};
use crate::located::{Field, Located, Value, place};
use crate::mesh::{Mesh, MeshSettings};
use crate::source::{self, Source};

/// The policies that are deployed.
#[derive(Debug)]
pub(crate) enum Policies {
    /// A document for all of the proxies.
    Document(Located),
    /// The AuthorizationPolicies of a mesh.
    Resources(Vec<Source>),
}

/// The settings of the documents.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mesh: MeshSettings,
    /// The fields of each document that do not come from the policies.
    pub(crate) head: Vec<Field>,
    /// Whether policies that cannot be imported are omitted.
    pub(crate) allows_partial: bool,
    /// Whether the filter determines which policies apply to its proxy.
    pub(crate) knows_workload: bool,
}

/// The document of proxies.
#[derive(Debug)]
pub(crate) struct DocumentOf {
    pub(crate) located: Located,
    pub(crate) needs: Needs,
    /// Whether the filter with this document comes before the one with the document of all other namespaces.
    pub(crate) precedes_others: bool,
}

/// The documents of proxies, and the remarks of the import.
pub(crate) struct Documents {
    pub(crate) documents: Vec<(Proxies, DocumentOf)>,
    pub(crate) remarks: Vec<Remark>,
}

/// The documents of proxies, which can have errors.
type Unchecked = (Vec<(Proxies, Located)>, Vec<Remark>);

impl Policies {
    /// Reads a document or AuthorizationPolicies.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, if there is neither, or if there are both.
    pub(crate) fn read(paths: &[PathBuf]) -> io::Result<Self> {
        let mut sources = Vec::new();
        let mut documents = Vec::new();
        for path in paths {
            for (file, source) in document::read(path)? {
                let found = source.documents(file == *path).into_iter().cloned();
                documents.extend(found.map(|document| (file.display().to_string(), document)));
                sources.push(source);
            }
        }
        let has_policies = sources.iter().any(Source::has_policies);
        match documents.as_slice() {
            [] if has_policies => Ok(Self::Resources(sources)),
            [] => {
                let missing = source::without_document();
                Err(io::Error::other(Failure::of_document("the input", &[missing])))
            }
            [(file, document)] if !has_policies => {
                Document::compile(document, Proxy::Every)
                    .map_err(|errors| io::Error::other(Failure::of_document(file, &errors)))?;
                Ok(Self::Document(document.clone()))
            }
            several => {
                let places: Vec<String> =
                    several.iter().map(|(file, document)| place(file, Some(document.position))).collect();
                let others = if has_policies { ", and AuthorizationPolicies" } else { "" };
                Err(io::Error::other(format!(
                    "expected one document, or AuthorizationPolicies only; found documents at {}{others}",
                    places.join(", ")
                )))
            }
        }
    }

    /// Returns the document of each of the proxies.
    ///
    /// # Errors
    /// Returns an error if the policies do not make a document for the proxies, or if one of them would be lost.
    pub(crate) fn documents(&self, settings: &Settings, proxies: &[Proxies]) -> io::Result<Documents> {
        let (unchecked, remarks) = match self {
            Self::Document(document) => of_document(document, settings, proxies)?,
            Self::Resources(sources) if settings.knows_workload => of_mesh(sources, settings, proxies)?,
            Self::Resources(sources) => of_workloads(sources, settings, proxies)?,
        };
        let documents = unchecked.into_iter().map(|(proxies, mut located)| {
            if matches!(proxies, Proxies::Waypoint { .. }) {
                set_identity_from_tunnel(&mut located);
            }
            let document = Document::compile(&located, Proxy::Every)
                .map_err(|errors| io::Error::other(Failure::of_document(&proxies.to_string(), &errors)))?;
            let needs = Needs::of(&document);
            Ok((proxies, DocumentOf { located, needs, precedes_others: false }))
        });
        Ok(Documents { documents: documents.collect::<io::Result<_>>()?, remarks })
    }
}

/// Returns the same document for all of the proxies.
fn of_document(document: &Located, settings: &Settings, proxies: &[Proxies]) -> io::Result<Unchecked> {
    if !settings.head.is_empty() || settings.mesh.has_trust_domains() {
        let message = "the settings of the document are in the document itself (remove `document` from the values, and \
                       the options of the mesh)";
        return Err(io::Error::other(message));
    }
    let documents = proxies.iter().map(|proxies| (proxies.clone(), document.clone())).collect();
    Ok((documents, Vec::new()))
}

/// Returns documents with the policies of every workload that the proxies can be.
fn of_mesh(sources: &[Source], settings: &Settings, proxies: &[Proxies]) -> io::Result<Unchecked> {
    let mesh = Mesh { settings: settings.mesh.clone(), workload: None };
    let import = mesh.import(Source::resources(sources.iter()), Scope::All, settings.head.clone(), false)?;
    let Import { document, policies, remarks, .. } = accepted(import, settings)?;
    if policies.is_empty() {
        let message = "there is no policy to deploy, so every accepted caller would be allowed (if this is intended, deploy \
                       a document with `policies: []`)";
        return Err(io::Error::other(message));
    }
    let document = sorted(document);
    let root_namespace = &*settings.mesh.root_namespace;
    let documents = proxies.iter().map(|proxies| {
        if let Proxies::Waypoint { target, .. } = proxies
            && target.kind().is_service()
        {
            return Err(io::Error::other(format!(
                "{proxies}: the policies of a waypoint's Gateway also apply to its services (use \
                 `waypoint:NAMESPACE/Gateway/NAME`)"
            )));
        }
        let namespaces = match proxies {
            Proxies::EverySidecar => None,
            _ => Some([proxies.namespace(root_namespace), root_namespace]),
        };
        Ok((proxies.clone(), with_policies_of(&document, namespaces)))
    });
    Ok((documents.collect::<io::Result<_>>()?, remarks))
}

/// Returns a document for each of the proxies with the policies of their workload.
fn of_workloads(sources: &[Source], settings: &Settings, proxies: &[Proxies]) -> io::Result<Unchecked> {
    let (mut documents, mut remarks) = (Vec::new(), Vec::new());
    for proxies in proxies {
        let Some(workload) = proxies.workload() else {
            let message = format!(
                "{proxies}: the filter cannot find out the workload of its proxy (use `--proxies` with its namespace, and \
                 with every label that policies select)"
            );
            return Err(io::Error::other(message));
        };
        let mesh = Mesh { settings: settings.mesh.clone(), workload: Some(workload) };
        let import =
            mesh.import(Source::resources(sources.iter()), Scope::Unspecified, settings.head.clone(), false)?;
        let import = accepted(import, settings)?;
        if import.policies.is_empty() {
            let message = format!("{proxies}: no policy applies, so every accepted caller would be allowed");
            return Err(io::Error::other(message));
        }
        for remark in import.remarks {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
        documents.push((proxies.clone(), sorted(import.document)));
    }
    Ok((documents, remarks))
}

/// Returns the import unless policies are lost.
fn accepted<'r>(import: Import<'r>, settings: &Settings) -> io::Result<Import<'r>> {
    if import.lost > 0 && !settings.allows_partial {
        let place = format!("{} of {} policies cannot be deployed", import.lost, import.read);
        return Err(io::Error::other(Failure::of_policies(&place, &import.remarks)));
    }
    Ok(import)
}

/// Returns the document with its policies in the order of their names, so that it does not depend on the order of files.
pub(super) fn sorted(mut document: Located) -> Located {
    let name = |policy: &Located| policy.field("name").and_then(Located::text).map(str::to_owned);
    if let Some(policies) = policies_mut(&mut document) {
        policies.sort_by_key(|policy| (namespace_of(policy).map(str::to_owned), name(policy)));
    }
    document
}

/// Returns the document with the policies of these namespaces, or with all.
fn with_policies_of(document: &Located, namespaces: Option<[&str; 2]>) -> Located {
    let mut document = document.clone();
    if let (Some(policies), Some(namespaces)) = (policies_mut(&mut document), namespaces) {
        policies.retain(|policy| namespace_of(policy).is_some_and(|own| namespaces.contains(&own)));
    }
    document
}

/// Returns the namespace of a policy in a document.
pub(super) fn namespace_of(policy: &Located) -> Option<&str> {
    policy.field("namespace").and_then(Located::text)
}

/// Returns the policies of a document.
pub(super) fn policies_mut(document: &mut Located) -> Option<&mut Vec<Located>> {
    let policies = document.fields_mut().iter_mut().find(|field| field.name == "policies")?;
    match &mut policies.value.value {
        Value::List(policies) => Some(policies),
        _ => None,
    }
}

/// Sets `identity.from` for a waypoint, whose listeners have no TLS.
fn set_identity_from_tunnel(document: &mut Located) {
    let from = field("from", text("peerPrincipal"));
    let fields = document.fields_mut();
    match fields.iter_mut().find(|field| field.name == "identity") {
        Some(identity) => {
            let identity = identity.value.fields_mut();
            identity.retain(|field| field.name != "from");
            identity.insert(0, from);
        }
        None => {
            let before_policies = fields.iter().position(|field| field.name == "policies").unwrap_or(fields.len());
            fields.insert(before_policies, field("identity", object([("from", text("peerPrincipal"))])));
        }
    }
}
