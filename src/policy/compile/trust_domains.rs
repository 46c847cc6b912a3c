//! The fields `trustDomain`, `federatedTrustDomains` and `trustDomainAliases`.

use super::pointer::Pointer;
use super::reader::{Object, Reader};
use crate::diagnostic::Code;
use crate::identity::{Federated, IdentitySource, TrustDomains};
use crate::policy::field::{FEDERATED_TRUST_DOMAINS, TRUST_DOMAIN, TRUST_DOMAIN_ALIASES, VALIDATED};
use crate::policy::node::Node;
use crate::spiffe_id::TrustDomain;

/// The beginning of a pattern, before the dot and the suffix that the trust domains have.
const WILDCARD: &str = "*.";

pub(super) fn read_trust_domains(r: &mut Reader, fields: &Object<'_, '_>) -> Option<TrustDomains> {
    let local = fields.required(r, TRUST_DOMAIN, read_trust_domain);
    let mut named: Vec<Box<str>> = local.iter().cloned().collect();
    let federated = fields.optional(r, FEDERATED_TRUST_DOMAINS, |r, n, at| read_federated(r, n, at, &mut named));
    let aliases = fields.optional(r, TRUST_DOMAIN_ALIASES, |r, n, at| {
        r.list(n, at, |r, node, at| {
            let name = read_trust_domain(r, node, at)?;
            report_repeated(r, at, name, &mut named)
        })
    });
    Some(TrustDomains {
        local: local?,
        aliases: aliases.unwrap_or_default().into(),
        federated: federated.unwrap_or_default(),
    })
}

pub(super) fn read_trust_domain(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let name = r.string(node, at)?;
    if let Err(error) = TrustDomain::parse(name.as_bytes()) {
        let help = "use the name of a trust domain, such as `example.org`";
        r.report(at, Code::InvalidValue, format!("`{name}`: {error}"), help);
        return None;
    }
    Some(name)
}

fn read_federated(r: &mut Reader, node: &Node, at: &Pointer<'_>, named: &mut Vec<Box<str>>) -> Option<Federated> {
    if let Node::String(word) = node {
        if *word == VALIDATED {
            return Some(Federated::Validated);
        }
        let help = format!("use a list, or `{VALIDATED}` for every trust domain that Envoy's SPIFFE validator accepts");
        r.report(at, Code::InvalidValue, format!("unknown value `{word}`"), &help);
        return None;
    }
    let mut suffixes = Vec::new();
    let names = r.list(node, at, |r, node, at| {
        let text = node.text().unwrap_or_default();
        let Some(domain) = text.strip_prefix(WILDCARD) else {
            let name = read_trust_domain(r, node, at)?;
            return report_repeated(r, at, name, named);
        };
        if let Err(error) = TrustDomain::parse(domain.as_bytes()) {
            r.report(at, Code::InvalidValue, format!("`{text}`: {error}"), "use a pattern such as `*.example.org`");
            return None;
        }
        let pattern = report_repeated(r, at, text.into(), named)?;
        suffixes.extend(pattern.strip_prefix('*').map(Box::from));
        None
    })?;
    Some(Federated::Listed { names: names.into(), suffixes: suffixes.into() })
}

/// Returns a name that the document does not have yet, and reports every other one.
fn report_repeated(r: &mut Reader, at: &Pointer<'_>, name: Box<str>, named: &mut Vec<Box<str>>) -> Option<Box<str>> {
    if named.contains(&name) {
        let message = format!("duplicate trust domain `{name}`");
        r.report(at, Code::ConflictingFields, message, "remove one of the two");
        return None;
    }
    named.push(name.clone());
    Some(name)
}

/// Reports federated trust domains that the document does not name, unless Envoy has validated every certificate.
pub(super) fn report_open_federation(
    r: &mut Reader,
    at: &Pointer<'_>,
    trust_domains: &TrustDomains,
    source: &IdentitySource,
) {
    let is_validated = matches!(source, IdentitySource::Tls { require_validated: true });
    if trust_domains.federated.is_open() && !is_validated {
        let message = "a pattern or `validated` admits trust domains that the document does not name".to_owned();
        let help = "set `identity.requireValidated: true`, with `from: tls`, or list the trust domains";
        r.report(&at.key(FEDERATED_TRUST_DOMAINS), Code::ConflictingFields, message, help);
    }
}
