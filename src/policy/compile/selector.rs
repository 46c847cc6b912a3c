//! The fields of a `source` and of an `operation`.

use super::Home;
use crate::diagnostic::Code;
use crate::policy::node::Node;
use crate::policy::path_template::PathTemplate;
use crate::policy::pointer::Pointer;
use crate::policy::reader::{Object, Reader};
use crate::policy::rule::{Action, OperationField, SourceField};
use crate::policy::values::{Glob, Namespace, Path, Scope, ServiceAccount, Text, Values};
use crate::spiffe_id::{SpiffeId, TrustDomain};

const PRINCIPALS: [&str; 2] = ["principals", "notPrincipals"];
const NAMESPACES: [&str; 2] = ["namespaces", "notNamespaces"];
const SERVICE_ACCOUNTS: [&str; 2] = ["serviceAccounts", "notServiceAccounts"];
const TRUST_DOMAINS: [&str; 2] = ["trustDomains", "notTrustDomains"];
const HOSTS: [&str; 2] = ["hosts", "notHosts"];
const PORTS: [&str; 2] = ["ports", "notPorts"];
const METHODS: [&str; 2] = ["methods", "notMethods"];
const PATHS: [&str; 2] = ["paths", "notPaths"];

/// Istio's limit on `serviceAccounts`.
const MAX_SERVICE_ACCOUNTS: usize = 16;

pub(super) fn read_source(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: &Home<'_>,
) -> Option<Box<[SourceField]>> {
    let fields = selector(r, node, at, &[PRINCIPALS, NAMESPACES, SERVICE_ACCOUNTS, TRUST_DOMAINS])?;
    let uses = |[positive, negative]: [&'static str; 2]| fields.has(positive) || fields.has(negative);
    if uses(SERVICE_ACCOUNTS) && (uses(PRINCIPALS) || uses(NAMESPACES)) {
        let message = "`serviceAccounts` already say the namespace".to_owned();
        let help = "`serviceAccounts` without `principals` and `namespaces` beside it";
        r.report(at, Code::ConflictingFields, message, help);
    }
    // Where the trust domain is left unsaid, the reading that grants less wins.
    let trust_domain_said = fields.has(TRUST_DOMAINS[0]);
    let scopes = match home.action {
        _ if trust_domain_said => [Scope::Any, Scope::Any],
        Action::Allow => [Scope::Local, Scope::Any],
        Action::Deny | Action::Audit => [Scope::Any, Scope::Local],
    };
    let mut source = Vec::new();
    source.extend(values(r, &fields, PRINCIPALS, |r, n, at, _| read_principal(r, n, at)).map(SourceField::Principals));
    source.extend(
        values(r, &fields, NAMESPACES, |r, n, at, negated| {
            tells(r, at, home.context.pattern.tells_namespace(), "namespace")?;
            let name = Glob::new(&r.string(n, at)?);
            Some(Namespace { name, scope: if negated { scopes[1] } else { scopes[0] } })
        })
        .map(SourceField::Namespaces),
    );
    source.extend(
        values(r, &fields, SERVICE_ACCOUNTS, |r, n, at, negated| {
            let pattern = home.context.pattern;
            tells(r, at, pattern.tells_namespace() && pattern.tells_service_account(), "service account")?;
            read_service_account(r, n, at, home.namespace, if negated { scopes[1] } else { scopes[0] })
        })
        .map(SourceField::ServiceAccounts),
    );
    source.extend(
        values(r, &fields, TRUST_DOMAINS, |r, n, at, _| read_trust_domains(r, n, at)).map(SourceField::TrustDomains),
    );
    if let Some(SourceField::ServiceAccounts(Values { any_of, none_of })) =
        source.iter().find(|field| matches!(field, SourceField::ServiceAccounts(_)))
        && any_of.len().max(none_of.len()) > MAX_SERVICE_ACCOUNTS
    {
        let message = "too many service accounts".to_owned();
        r.report(at, Code::InvalidValue, message, &format!("at most {MAX_SERVICE_ACCOUNTS} in one list"));
    }
    Some(source.into())
}

pub(super) fn read_operation(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<[OperationField]>> {
    let fields = selector(r, node, at, &[HOSTS, PORTS, METHODS, PATHS])?;
    let mut operation = Vec::new();
    // The cheapest to fetch and the most telling first: a later field is not asked for when an earlier one fails.
    operation.extend(values(r, &fields, PATHS, |r, n, at, _| read_path(r, n, at)).map(OperationField::Paths));
    operation.extend(
        values(r, &fields, METHODS, |r, n, at, _| Some(Text::new(&r.string(n, at)?))).map(OperationField::Methods),
    );
    operation.extend(
        values(r, &fields, HOSTS, |r, n, at, _| Some(Text::new(&r.string(n, at)?.to_ascii_lowercase())))
            .map(OperationField::Hosts),
    );
    operation.extend(values(r, &fields, PORTS, |r, n, at, _| read_port(r, n, at)).map(OperationField::Ports));
    Some(operation.into())
}

/// An object of these fields, at least one of them: an empty one would read as "anything".
fn selector<'n, 'p>(
    r: &mut Reader,
    node: &'n Node,
    at: &'p Pointer<'p>,
    keys: &[[&'static str; 2]],
) -> Option<Object<'n, 'p>> {
    let keys = keys.concat();
    let fields = r.object(node, at, &keys)?;
    if fields.is_empty() {
        let help = format!("at least one of {}", Reader::quoted(&keys));
        r.report(at, Code::Empty, "nothing is selected".to_owned(), &help);
    }
    Some(fields)
}

/// A field and its `not…` twin; `None` when both are absent. `read` is told which of the two it reads.
fn values<M>(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    [positive, negative]: [&'static str; 2],
    read: impl Fn(&mut Reader, &Node, &Pointer<'_>, bool) -> Option<M>,
) -> Option<Values<M>> {
    let mut list = |key, negated| {
        fields.optional(r, key, |r, node, at| r.some(node, at, |r, node, at| read(r, node, at, negated)))
    };
    let (any_of, none_of) = (list(positive, false), list(negative, true));
    (any_of.is_some() || none_of.is_some()).then(|| Values {
        any_of: any_of.unwrap_or_else(Vec::new).into(),
        none_of: none_of.unwrap_or_else(Vec::new).into(),
    })
}

/// The field is refused where the pattern never yields what it asks for: in a DENY policy it would protect nothing.
fn tells(r: &mut Reader, at: &Pointer<'_>, told: bool, part: &str) -> Option<()> {
    if !told {
        let message = format!("`identity.pattern` tells no {part}");
        r.report(at, Code::NeverMatches, message, "`principals` or `trustDomains`, or a pattern that tells it");
    }
    told.then_some(())
}

fn read_principal(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Text> {
    let value = r.string(node, at)?;
    let text = Text::new(&value);
    let help = "`<trust domain>/<path>`, `prefix*`, `*suffix`, or `*`; without `spiffe://`";
    if value.contains("spiffe://") {
        r.report(at, Code::NeverMatches, format!("`{value}` holds `spiffe://`"), help);
        return None;
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
    if !text.literal().bytes().all(legal) {
        r.report(at, Code::NeverMatches, format!("`{value}` holds a character that no SPIFFE ID holds"), help);
        return None;
    }
    if let Text::Exact(principal) = &text {
        let id = format!("spiffe://{principal}");
        if let Err(error) = SpiffeId::parse(id.as_bytes()) {
            r.report(at, Code::NeverMatches, format!("`{id}` is no SPIFFE ID: {error}"), help);
            return None;
        }
    }
    Some(text)
}

fn read_service_account(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: Option<&str>,
    scope: Scope,
) -> Option<ServiceAccount> {
    let value = r.string(node, at)?;
    let help = "`<namespace>/<service account>`, or `<service account>` of the policy's `namespace`; no wildcard";
    let (namespace, name) = match (value.split_once('/'), home) {
        (Some(parts), _) => parts,
        (None, Some(home)) => (home, &*value),
        (None, None) => {
            r.report(at, Code::InvalidValue, format!("`{value}`: the policy has no namespace"), help);
            return None;
        }
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if [namespace, name].iter().any(|part| part.is_empty() || !part.bytes().all(legal)) {
        r.report(at, Code::InvalidValue, format!("`{value}` names no service account"), help);
        return None;
    }
    Some(ServiceAccount { namespace: namespace.into(), name: name.into(), scope })
}

fn read_trust_domains(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Text> {
    let value = r.string(node, at)?;
    let text = Text::new(&value);
    if text != Text::Present
        && let Err(error) = TrustDomain::parse(text.literal().as_bytes())
    {
        let help = "a trust domain's name, `prefix*`, `*suffix`, or `*`";
        r.report(at, Code::InvalidValue, format!("`{value}`: {error}"), help);
        return None;
    }
    Some(text)
}

fn read_path(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Path> {
    let value = r.string(node, at)?;
    if !PathTemplate::recognizes(&value) {
        return Some(Path::Text(Text::new(&value)));
    }
    match PathTemplate::new(&value) {
        Ok(template) => Some(Path::Template(template)),
        Err(error) => {
            let help = "a template such as `/a/{*}/b/{**}`";
            r.report(at, Code::InvalidValue, format!("`{value}`: {error}"), help);
            None
        }
    }
}

fn read_port(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<u16> {
    let value = r.string(node, at)?;
    let port = value.parse().ok().filter(|port| *port > 0 && value.bytes().all(|byte| byte.is_ascii_digit()));
    if port.is_none() {
        r.report(at, Code::InvalidValue, format!("`{value}` is no port"), "a number from 1 to 65535, as a string");
    }
    port
}
