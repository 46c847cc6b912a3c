//! The fields of a `source` and of an `operation`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Home;
use crate::diagnostic::Code;
use crate::policy::names::{
    HOSTS, IP_BLOCKS, METHODS, NAMESPACES, PATHS, PORTS, PRINCIPALS, REMOTE_IP_BLOCKS, REQUEST_PRINCIPALS,
    SERVICE_ACCOUNTS, TRUST_DOMAINS, Twin,
};
use crate::policy::node::Node;
use crate::policy::path_template::PathTemplate;
use crate::policy::pointer::Pointer;
use crate::policy::reader::{Object, Reader};
use crate::policy::rule::{Action, Field};
use crate::policy::values::{Glob, Namespace, Path, Reading, RequestPrincipal, Scope, ServiceAccount, Text, Values};
use crate::request::AddressOf;
use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Istio's limit on `serviceAccounts`.
const MAX_SERVICE_ACCOUNTS: usize = 16;

/// The readings of `namespaces` and `serviceAccounts`, and of their `not…` twins.
#[derive(Clone, Copy)]
pub(super) struct Scopes {
    positive: Scope,
    negative: Scope,
}

impl Scopes {
    /// Where the trust domain is left unsaid, the reading that grants less wins.
    pub(super) const fn of(action: Action, trust_domain_said: bool) -> Self {
        match action {
            _ if trust_domain_said => Self { positive: Scope::Any, negative: Scope::Any },
            Action::Allow => Self { positive: Scope::Local, negative: Scope::Any },
            Action::Deny | Action::Audit => Self { positive: Scope::Any, negative: Scope::Local },
        }
    }

    const fn pick(self, negated: bool) -> Scope {
        if negated { self.negative } else { self.positive }
    }
}

pub(super) fn read_source(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: &Home<'_>,
    trust_domain_said: bool,
) -> Option<Box<[Field]>> {
    let fields = selector(
        r,
        node,
        at,
        &[PRINCIPALS, REQUEST_PRINCIPALS, NAMESPACES, SERVICE_ACCOUNTS, TRUST_DOMAINS, IP_BLOCKS, REMOTE_IP_BLOCKS],
    )?;
    let uses = |[positive, negative]: Twin| fields.has(positive) || fields.has(negative);
    if uses(SERVICE_ACCOUNTS) && (uses(PRINCIPALS) || uses(NAMESPACES)) {
        let message = "`serviceAccounts` already say the namespace".to_owned();
        let help = "`serviceAccounts` without `principals` and `namespaces` beside it";
        r.report(at, Code::ConflictingFields, message, help);
    }
    let scopes = Scopes::of(home.action, trust_domain_said || fields.has(TRUST_DOMAINS[0]));
    Some(
        [
            read_principals(r, &fields, PRINCIPALS),
            read_namespaces(r, &fields, NAMESPACES, home, scopes),
            read_service_accounts(r, &fields, SERVICE_ACCOUNTS, home, scopes),
            read_trust_domains(r, &fields, TRUST_DOMAINS),
            read_addresses(r, &fields, IP_BLOCKS, AddressOf::Source),
            read_addresses(r, &fields, REMOTE_IP_BLOCKS, AddressOf::Remote),
            read_request_principals(r, &fields, REQUEST_PRINCIPALS),
        ]
        .into_iter()
        .flatten()
        .collect(),
    )
}

pub(super) fn read_principals(r: &mut Reader, fields: &Object<'_, '_>, twin: Twin) -> Option<Field> {
    values(r, fields, twin, |r, n, at, _| read_principal(r, n, at)).map(Field::Principals)
}

pub(super) fn read_request_principals(r: &mut Reader, fields: &Object<'_, '_>, twin: Twin) -> Option<Field> {
    values(r, fields, twin, |r, n, at, _| {
        let value = r.string(n, at)?;
        if !value.contains(['/', '*']) {
            let message = format!("`{value}` asks for an empty subject");
            r.report(at, Code::NeverMatches, message, "`<issuer>/<subject>`, a `*` at one end, or `*`");
            return None;
        }
        Some(RequestPrincipal::new(&value))
    })
    .map(Field::RequestPrincipals)
}

pub(super) fn read_namespaces(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    twin: Twin,
    home: &Home<'_>,
    scopes: Scopes,
) -> Option<Field> {
    values(r, fields, twin, |r, n, at, negated| {
        tells(r, at, home.context.pattern.tells_namespace(), "namespace")?;
        Some(Namespace { name: Glob::new(&r.string(n, at)?), scope: scopes.pick(negated) })
    })
    .map(Field::Namespaces)
}

pub(super) fn read_service_accounts(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    twin: Twin,
    home: &Home<'_>,
    scopes: Scopes,
) -> Option<Field> {
    let pattern = home.context.pattern;
    let accounts = values(r, fields, twin, |r, n, at, negated| {
        tells(r, at, pattern.tells_namespace() && pattern.tells_service_account(), "service account")?;
        read_service_account(r, n, at, home.namespace, scopes.pick(negated))
    })?;
    if accounts.any_of.len().max(accounts.none_of.len()) > MAX_SERVICE_ACCOUNTS {
        let message = "too many service accounts".to_owned();
        r.report(fields.place(), Code::InvalidValue, message, &format!("at most {MAX_SERVICE_ACCOUNTS} in one list"));
    }
    Some(Field::ServiceAccounts(accounts))
}

pub(super) fn read_trust_domains(r: &mut Reader, fields: &Object<'_, '_>, twin: Twin) -> Option<Field> {
    values(r, fields, twin, |r, n, at, _| read_trust_domain(r, n, at)).map(Field::TrustDomains)
}

pub(super) fn read_addresses(r: &mut Reader, fields: &Object<'_, '_>, twin: Twin, of: AddressOf) -> Option<Field> {
    values(r, fields, twin, |r, n, at, _| read_network(r, n, at)).map(|networks| Field::Addresses(of, networks))
}

pub(super) fn read_ports(r: &mut Reader, fields: &Object<'_, '_>, twin: Twin) -> Option<Field> {
    values(r, fields, twin, |r, n, at, _| read_port(r, n, at)).map(Field::Ports)
}

pub(super) fn read_texts(r: &mut Reader, fields: &Object<'_, '_>, twin: Twin) -> Option<Values<Text>> {
    values(r, fields, twin, |r, n, at, _| Some(Text::new(&r.string(n, at)?)))
}

pub(super) fn read_operation(r: &mut Reader, node: &Node, at: &Pointer<'_>, action: Action) -> Option<Box<[Field]>> {
    let reading = Reading::of(action);
    let fields = selector(r, node, at, &[HOSTS, PORTS, METHODS, PATHS])?;
    let mut operation = Vec::new();
    // The cheapest to fetch and the most telling first: a later field is not asked for when an earlier one fails.
    operation.extend(
        values(r, &fields, PATHS, |r, n, at, negated| read_path(r, n, at, reading.needs_every(negated)))
            .map(|values| Field::Paths(values, reading)),
    );
    operation.extend(read_texts(r, &fields, METHODS).map(Field::Methods));
    operation.extend(
        values(r, &fields, HOSTS, |r, n, at, negated| read_host(r, n, at, reading.needs_every(negated)))
            .map(|values| Field::Hosts(values, reading)),
    );
    operation.extend(read_ports(r, &fields, PORTS));
    Some(operation.into())
}

/// An object of these fields, at least one of them: an empty one would read as "anything".
fn selector<'n, 'p>(r: &mut Reader, node: &'n Node<'n>, at: &'p Pointer<'p>, keys: &[Twin]) -> Option<Object<'n, 'p>> {
    let keys = keys.concat();
    let fields = r.object(node, at, &keys)?;
    if fields.is_empty() {
        let help = format!("at least one of {}", Reader::quoted(&keys));
        r.report(at, Code::Empty, "nothing is selected".to_owned(), &help);
    }
    Some(fields)
}

/// A field and its `not…` twin; `None` when both are absent. `read` is told which of the two it reads.
pub(super) fn values<M>(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    [positive, negative]: Twin,
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

fn read_trust_domain(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Text> {
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

/// `every`: every reading of the request's host must match, and one of them has neither user information nor a trailing dot.
fn read_host(r: &mut Reader, node: &Node, at: &Pointer<'_>, every: bool) -> Option<Text> {
    let text = Text::new(&r.string(node, at)?.to_ascii_lowercase());
    let host = text.literal();
    let dotted = !matches!(text, Text::Prefix(_)) && (host.ends_with('.') || host.contains(".:"));
    if every && (host.contains('@') || dotted) {
        let help = "a host without user information and trailing dot";
        r.report(at, Code::NeverMatches, format!("`{host}` does not match the host without them"), help);
        return None;
    }
    Some(text)
}

/// `every`: every reading of the request's path must match, and one of them has no parameters.
fn read_path(r: &mut Reader, node: &Node, at: &Pointer<'_>, every: bool) -> Option<Path> {
    let value = r.string(node, at)?;
    if value.contains(['?', '#']) {
        let message = format!("`{value}` contains a query or a fragment, and the path does not");
        r.report(at, Code::NeverMatches, message, "a path without `?` and `#`");
        return None;
    }
    if every && value.contains(';') {
        let message = format!("`{value}` does not match the path without its parameters");
        r.report(at, Code::NeverMatches, message, "a path without `;`");
        return None;
    }
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

fn read_network(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<IpNet> {
    let value = r.string(node, at)?;
    let network = value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from)).map(canonical);
    if network.is_none() {
        r.report(at, Code::InvalidValue, format!("`{value}` is no address and no network"), "`10.0.0.1`, `10.0.0.0/8`");
    }
    network
}

/// A network of IPv4 addresses in IPv6 (`::ffff:0:0/96`) as the network of IPv4, because addresses are compared so.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(MAPPED_BITS)),
        IpNet::V4(_) => None,
    };
    let ipv4 = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    ipv4.map_or(network, IpNet::V4)
}
