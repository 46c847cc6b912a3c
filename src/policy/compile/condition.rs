//! The conditions of a rule: `when`.

use super::Home;
use super::selector::{
    Scopes, read_addresses, read_namespaces, read_ports, read_principals, read_request_principals,
    read_service_accounts, read_texts, read_trust_domains, values,
};
use crate::diagnostic::Code;
use crate::policy::names::VALUES;
use crate::policy::node::Node;
use crate::policy::pointer::Pointer;
use crate::policy::reader::Reader;
use crate::policy::rule::{Field, JWT_PAYLOAD, MetadataValue};
use crate::policy::values::{Reading, Text};
use crate::request::AddressOf;

/// What may stand as `key`, for a diagnostic.
const KEYS: &str = "`request.headers[<name>]`, `source.ip`, `remote.ip`, `source.principal`, `source.namespace`, \
                    `source.serviceAccount`, `source.trustDomain`, `request.auth.principal`, \
                    `request.auth.audiences`, `request.auth.presenter`, `request.auth.claims[<claim>]`, \
                    `destination.ip`, `destination.port`, `connection.sni`, \
                    `experimental.envoy.filters.<filter>[<key>]`";

/// Whether a condition of these says which trust domains are meant.
pub(super) fn say_trust_domain(node: &Node) -> bool {
    let says = |condition: &Node| {
        condition.field("key").and_then(Node::text) == Some("source.trustDomain")
            && condition.field(VALUES[0]).is_some()
    };
    node.items().iter().any(says)
}

pub(super) fn read_condition(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: &Home<'_>,
    trust_domain_said: bool,
) -> Option<Field> {
    let fields = r.object(node, at, &["key", VALUES[0], VALUES[1]])?;
    let key = fields.required(r, "key", |r, node, at| r.string(node, at))?;
    if !fields.has(VALUES[0]) && !fields.has(VALUES[1]) {
        let message = "without values nothing is asked".to_owned();
        r.report(&at.key(VALUES[0]), Code::MissingField, message, "`values`, `notValues`, or both");
        return None;
    }
    let scopes = Scopes::of(home.action, trust_domain_said);
    let claim = |r: &mut Reader, path: &[&str]| {
        let path = JWT_PAYLOAD.iter().chain(path).map(|name| Box::from(*name)).collect();
        let wanted = |text| MetadataValue::TextOrInList(text);
        let read = |r: &mut Reader, n: &Node, at: &Pointer<'_>, _| Some(wanted(Text::new(&r.string(n, at)?)));
        values(r, &fields, VALUES, read).map(|values| Field::Metadata(path, values))
    };
    match Key::parse(&key) {
        Key::Plain("source.ip") => read_addresses(r, &fields, VALUES, AddressOf::Source),
        Key::Plain("remote.ip") => read_addresses(r, &fields, VALUES, AddressOf::Remote),
        Key::Plain("destination.ip") => read_addresses(r, &fields, VALUES, AddressOf::Destination),
        Key::Plain("destination.port") => read_ports(r, &fields, VALUES),
        Key::Plain("source.principal") => read_principals(r, &fields, VALUES),
        Key::Plain("source.namespace") => read_namespaces(r, &fields, VALUES, home, scopes),
        Key::Plain("source.serviceAccount") => read_service_accounts(r, &fields, VALUES, home, scopes),
        Key::Plain("source.trustDomain") => read_trust_domains(r, &fields, VALUES),
        Key::Plain("request.auth.principal") => read_request_principals(r, &fields, VALUES),
        Key::Plain("request.auth.audiences") => claim(r, &["aud"]),
        Key::Plain("request.auth.presenter") => claim(r, &["azp"]),
        Key::Plain("connection.sni") => read_texts(r, &fields, VALUES).map(Field::ServerNames),
        Key::Of("request.headers", name) if is_header_name(name) => read_texts(r, &fields, VALUES)
            .map(|values| Field::Header(name.to_ascii_lowercase().into(), values, Reading::of(home.action))),
        Key::Of("request.auth.claims", path) => claim(r, &claim_path(path)),
        Key::Of(filter, path) if filter.starts_with("experimental.envoy.filters.") => {
            let filter = filter.strip_prefix("experimental.").unwrap_or(filter);
            let read = |r: &mut Reader, n: &Node, at: &Pointer<'_>, _| Some(metadata_value(&r.string(n, at)?));
            let path = [filter].into_iter().chain(claim_path(path)).map(Box::from).collect();
            values(r, &fields, VALUES, read).map(|values| Field::Metadata(path, values))
        }
        _ => {
            r.report(&at.key("key"), Code::InvalidValue, format!("there is no key `{key}`"), &format!("one of {KEYS}"));
            None
        }
    }
}

enum Key<'k> {
    Plain(&'k str),
    /// `a[b]`, with `b` not empty.
    Of(&'k str, &'k str),
}

impl<'k> Key<'k> {
    fn parse(key: &'k str) -> Self {
        match key.split_once('[').and_then(|(of, rest)| Some((of, rest.strip_suffix(']')?))) {
            Some((of, name)) if !name.is_empty() => Self::Of(of, name),
            _ => Self::Plain(key),
        }
    }
}

/// RFC 9110 section 5.1, and Envoy's pseudo-headers.
fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    name.strip_prefix(':').unwrap_or(name).bytes().all(token)
}

/// `a][b` to its parts; whatever is not nested keys is one key as a whole, as in Istio.
fn claim_path(inner: &str) -> Vec<&str> {
    let parts: Vec<&str> = inner.split("][").collect();
    if parts.iter().all(|part| !part.is_empty() && !part.contains(['[', ']'])) { parts } else { vec![inner] }
}

/// `[v]` asks for a list with `v`, everything else for text.
fn metadata_value(value: &str) -> MetadataValue {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(item) => MetadataValue::InList(Text::new(item)),
        None => MetadataValue::Text(Text::new(value)),
    }
}
