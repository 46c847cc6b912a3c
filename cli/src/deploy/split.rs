//! The document of a mesh in several objects, because one would be too big.

use std::collections::BTreeMap;
use std::mem;

use super::policies::{DocumentOf, namespace_of, policies_mut, sorted};
use super::proxies::Proxies;
use crate::located::Located;
use crate::located::written::{field, list, text};

/// The field of `scope` with the namespaces that have their own documents.
const DELEGATED: &str = "delegatedNamespaces";

/// Returns a document for the sidecars of each namespace with policies, and at the end one for the sidecars of all other
/// namespaces. Returns `None` if the document does not have the policies of several namespaces.
///
/// A filter with the last document also runs in the namespaces of the others. There, it waits for their decision: the order of the
/// objects, and of the updates in a proxy, cannot leave a workload without its policies.
pub(super) fn by_namespace(DocumentOf { located, needs, .. }: &DocumentOf) -> Option<Vec<(Proxies, DocumentOf)>> {
    let mut others = located.clone();
    let policies = mem::take(policies_mut(&mut others)?);
    let scope = others.fields_mut().iter_mut().find(|field| field.name == "scope")?;
    let root_namespace = scope.value.field("rootNamespace").and_then(Located::text)?.to_owned();
    let names_workloads = ["workload", DELEGATED].iter().any(|field| scope.value.field(field).is_some());
    let mut by_namespace: BTreeMap<String, Vec<Located>> = BTreeMap::new();
    for policy in policies {
        by_namespace.entry(namespace_of(&policy)?.to_owned()).or_default().push(policy);
    }
    let of_root = by_namespace.remove(&root_namespace).unwrap_or_default();
    if names_workloads || by_namespace.is_empty() {
        return None;
    }
    let with = |mut document: Located, policies: Vec<Located>, precedes_others: bool| {
        policies_mut(&mut document)?.extend(policies);
        Some(DocumentOf { located: sorted(document), needs: *needs, precedes_others })
    };
    let head = others.clone();
    let scope = others.fields_mut().iter_mut().find(|field| field.name == "scope")?;
    scope.value.fields_mut().push(field(DELEGATED, list(by_namespace.keys().map(String::as_str).map(text))));
    let mut documents = Vec::new();
    for (namespace, mut policies) in by_namespace {
        policies.extend(of_root.iter().cloned());
        let document = with(head.clone(), policies, true)?;
        documents.push((Proxies::Sidecars { namespace, labels: BTreeMap::new() }, document));
    }
    documents.push((Proxies::EverySidecar, with(others, of_root, false)?));
    Some(documents)
}
