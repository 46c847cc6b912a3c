//! The conditions of a rule: `when`.

use super::Home;
use super::pointer::Pointer;
use super::reader::Reader;
use super::source::{
    Scopes, read_namespaces, read_principals, read_request_principals, read_service_accounts, read_trust_domains,
};
use super::values::{addresses, ports, texts, values};
use crate::diagnostic::Code;
use crate::host::AddressOf;
use crate::policy::field::{Field, KEY, Key, VALUES};
use crate::policy::node::Node;
use crate::policy::rule::{JWT_PAYLOAD, Matcher, MetadataValue};
use crate::policy::values::{Reading, Text, is_token_byte};

pub(super) fn read_condition(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: &Home<'_>,
    conditions_name_trust_domain: bool,
) -> Option<Matcher> {
    let fields = r.object(node, at, &[KEY, VALUES[0], VALUES[1]])?;
    let text = fields.required(r, KEY, |r, node, at| r.string(node, at))?;
    if !fields.has(VALUES[0]) && !fields.has(VALUES[1]) {
        let message = "the condition has no values".to_owned();
        r.report(&at.key(VALUES[0]), Code::MissingField, message, "add `values`, `notValues`, or both");
        return None;
    }
    let Some(key) = Key::parse(&text).filter(|key| key.field != Field::Header || is_header_name(key.name)) else {
        let help = format!("expected one of {}", Key::list());
        r.report(&at.key(KEY), Code::InvalidValue, format!("unknown key `{text}`"), &help);
        return None;
    };
    let scopes = Scopes::of(home.action, conditions_name_trust_domain);
    let claim = |r: &mut Reader, path: &[&str]| {
        let path = JWT_PAYLOAD.iter().chain(path).map(|name| Box::from(*name)).collect();
        let read = |r: &mut Reader, n: &Node, at: &Pointer<'_>, _| {
            Some(MetadataValue::TextOrInList(Text::new(&r.string(n, at)?)))
        };
        values(r, &fields, VALUES, read).map(|values| Matcher::Metadata(path, values))
    };
    match key.field {
        Field::IpBlocks => addresses(r, &fields, VALUES, AddressOf::Source),
        Field::RemoteIpBlocks => addresses(r, &fields, VALUES, AddressOf::Remote),
        Field::DestinationIp => addresses(r, &fields, VALUES, AddressOf::Destination),
        Field::Ports => ports(r, &fields, VALUES),
        Field::Principals => read_principals(r, &fields, VALUES),
        Field::Namespaces => read_namespaces(r, &fields, VALUES, home, scopes),
        Field::ServiceAccounts => read_service_accounts(r, &fields, VALUES, home, scopes),
        Field::TrustDomains => read_trust_domains(r, &fields, VALUES),
        Field::RequestPrincipals => read_request_principals(r, &fields, VALUES),
        Field::Audiences => claim(r, &["aud"]),
        Field::Presenter => claim(r, &["azp"]),
        Field::Claim => claim(r, &claim_path(key.name)),
        Field::ServerName => texts(r, &fields, VALUES).map(Matcher::ServerNames),
        Field::Header => texts(r, &fields, VALUES)
            .map(|values| Matcher::Header(key.name.to_ascii_lowercase().into(), values, Reading::of(home.action))),
        Field::Metadata => {
            let read = |r: &mut Reader, n: &Node, at: &Pointer<'_>, _| Some(metadata_value(&r.string(n, at)?));
            let path = [key.filter].into_iter().chain(claim_path(key.name)).map(Box::from).collect();
            values(r, &fields, VALUES, read).map(|values| Matcher::Metadata(path, values))
        }
        // `Key::parse` returns no field without a key.
        Field::Hosts | Field::Methods | Field::Paths => None,
    }
}

/// Returns `true` for the name of a header (RFC 9110 section 5.1) or of a pseudo-header.
fn is_header_name(name: &str) -> bool {
    name.strip_prefix(':').unwrap_or(name).bytes().all(is_token_byte)
}

/// Splits `a][b` into its keys. As in Istio, text that is not a list of keys is one key.
fn claim_path(inner: &str) -> Vec<&str> {
    let parts: Vec<&str> = inner.split("][").collect();
    if parts.iter().all(|part| !part.is_empty() && !part.contains(['[', ']'])) { parts } else { vec![inner] }
}

/// Parses `[v]`, which matches a list that contains `v`, or `v`, which matches a string.
fn metadata_value(value: &str) -> MetadataValue {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(item) => MetadataValue::InList(Text::new(item)),
        None => MetadataValue::Text(Text::new(value)),
    }
}
