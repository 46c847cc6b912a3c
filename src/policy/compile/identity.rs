//! The field `identity`: the source of identities, and the identities that are accepted.

use std::time::Duration;

use super::pointer::Pointer;
use super::reader::{Object, Reader};
use super::trust_domains::read_trust_domain;
use crate::certificate::without_leading_zeros;
use crate::diagnostic::Code;
use crate::identity::{Expired, IdentitySource, Lifetime, Pattern, PeerRequirement, Revoked};
use crate::policy::field::{PATTERN, PEER};
use crate::policy::node::Node;
use crate::spiffe_id::SpiffeId;
use crate::timestamp::parse_duration;

const FROM: &str = "from";
const TRUSTED_PROXIES: &str = "trustedProxies";
const REQUIRE_VALIDATED: &str = "requireValidated";
const EXPIRED: &str = "expired";
const MAX_AGE: &str = "maxAge";
const REVOKED: &str = "revoked";

const SPIFFE_IDS: &str = "spiffeIds";
const TRUST_DOMAINS: &str = "trustDomains";
const SERIAL_NUMBERS: &str = "serialNumbers";
const AUTHORITY_KEY_IDS: &str = "authorityKeyIds";

/// The settings in the field `identity`.
pub(super) struct Settings {
    pub(super) pattern: Pattern,
    pub(super) source: IdentitySource,
    pub(super) peer: PeerRequirement,
    pub(super) lifetime: Lifetime,
    pub(super) revoked: Revoked,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pattern: Pattern::istio(),
            source: IdentitySource::Tls { require_validated: false },
            peer: PeerRequirement::default(),
            lifetime: Lifetime::default(),
            revoked: Revoked::default(),
        }
    }
}

/// The values of `from`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Tls,
    PeerPrincipal,
    Xfcc,
}

pub(super) fn read_identity(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Settings> {
    let fields =
        r.object(node, at, &[PATTERN, FROM, TRUSTED_PROXIES, PEER, REQUIRE_VALIDATED, EXPIRED, MAX_AGE, REVOKED])?;
    let pattern = fields.optional(r, PATTERN, read_pattern);
    let words = [("tls", From::Tls), ("peerPrincipal", From::PeerPrincipal), ("xfcc", From::Xfcc)];
    let from = fields.optional(r, FROM, |r, node, at| r.one_of(node, at, &words));
    let from = if fields.node(FROM).is_some() { from? } else { From::Tls };
    let proxies = if from == From::Xfcc {
        fields.required(r, TRUSTED_PROXIES, |r, n, at| r.some(n, at, read_proxy))
    } else {
        if fields.node(TRUSTED_PROXIES).is_some() {
            let message = "`trustedProxies` is only allowed with `from: xfcc`".to_owned();
            let help = "set `from: xfcc`, or remove the field";
            r.report(&at.key(TRUSTED_PROXIES), Code::ConflictingFields, message, help);
        }
        None
    };
    let peer = fields.optional(r, PEER, |r, node, at| {
        r.one_of(node, at, &[PeerRequirement::Required, PeerRequirement::Optional].map(|peer| (peer.name(), peer)))
    });
    let require_validated = fields.optional(r, REQUIRE_VALIDATED, Reader::boolean).unwrap_or(false);
    if from == From::PeerPrincipal && require_validated {
        let message = "`requireValidated` cannot be combined with `from: peerPrincipal`".to_owned();
        let help = "use it with `from: tls` or `from: xfcc`";
        r.report(&at.key(REQUIRE_VALIDATED), Code::ConflictingFields, message, help);
    }
    if from != From::Tls {
        // With `xfcc`, the certificate of the connection belongs to the proxy.
        for field in [EXPIRED, MAX_AGE] {
            report_without_certificate(r, &fields, field);
        }
    }
    let expired = fields
        .optional(r, EXPIRED, |r, node, at| r.one_of(node, at, &[("deny", Expired::Deny), ("allow", Expired::Allow)]));
    let max_age = fields.optional(r, MAX_AGE, read_duration);
    let revoked = fields.optional(r, REVOKED, |r, node, at| read_revoked(r, node, at, from));
    let default = Settings::default();
    Some(Settings {
        pattern: pattern.unwrap_or(default.pattern),
        source: match from {
            From::Tls => IdentitySource::Tls { require_validated },
            From::PeerPrincipal => IdentitySource::PeerPrincipal,
            From::Xfcc => IdentitySource::Xfcc { trusted_proxies: proxies?.into(), require_validated },
        },
        peer: peer.unwrap_or(default.peer),
        lifetime: Lifetime { expired: expired.unwrap_or_default(), max_age },
        revoked: revoked.unwrap_or_default(),
    })
}

fn report_without_certificate(r: &mut Reader, fields: &Object<'_, '_>, field: &'static str) {
    if fields.has(field) {
        let message = format!("`{field}` is only allowed with `from: tls`");
        let help = "remove it: the other sources do not contain the caller's certificate";
        r.report(&fields.place().key(field), Code::ConflictingFields, message, help);
    }
}

fn read_duration(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Duration> {
    let text = r.string(node, at)?;
    let duration = parse_duration(&text);
    if duration.is_none() {
        r.report(
            at,
            Code::InvalidValue,
            format!("`{text}` is not a duration"),
            "use a duration such as `90s`, `30m`, `24h` or `7d`",
        );
    }
    duration
}

fn read_revoked(r: &mut Reader, node: &Node, at: &Pointer<'_>, from: From) -> Option<Revoked> {
    let names = [SPIFFE_IDS, TRUST_DOMAINS, SERIAL_NUMBERS, AUTHORITY_KEY_IDS];
    let fields = r.object(node, at, &names)?;
    if fields.is_empty() {
        let help = format!("add at least one of {}", Reader::quoted(&names));
        r.report(at, Code::Empty, "`revoked` is empty".to_owned(), &help);
    }
    if from != From::Tls {
        for field in [SERIAL_NUMBERS, AUTHORITY_KEY_IDS] {
            report_without_certificate(r, &fields, field);
        }
    }
    let spiffe_ids = fields.optional(r, SPIFFE_IDS, |r, n, at| r.some(n, at, read_spiffe_id));
    let trust_domains = fields.optional(r, TRUST_DOMAINS, |r, n, at| r.some(n, at, read_trust_domain));
    let serial_numbers = fields.optional(r, SERIAL_NUMBERS, |r, n, at| r.some(n, at, read_serial_number));
    let authority_key_ids = fields.optional(r, AUTHORITY_KEY_IDS, |r, n, at| r.some(n, at, read_hex));
    Some(Revoked {
        spiffe_ids: spiffe_ids.into_iter().flatten().collect(),
        trust_domains: trust_domains.into_iter().flatten().collect(),
        serial_numbers: serial_numbers.into_iter().flatten().collect(),
        authority_key_ids: authority_key_ids.into_iter().flatten().collect(),
    })
}

fn read_spiffe_id(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let id = r.string(node, at)?;
    let wrong = match SpiffeId::parse(id.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(parsed) if parsed.path().is_empty() => "this is the ID of a trust domain".to_owned(),
        Ok(_) => return Some(id),
    };
    let help =
        "use a SPIFFE ID, such as `spiffe://example.org/ns/default/sa/sleep`; for a trust domain, use `trustDomains`";
    r.report(at, Code::InvalidValue, format!("`{id}`: {wrong}"), help);
    None
}

fn read_serial_number(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<[u8]>> {
    Some(without_leading_zeros(&read_hex(r, node, at)?).into())
}

/// Reads hexadecimal digits, with or without a colon after every two, as OpenSSL prints them.
fn read_hex(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<[u8]>> {
    let text = r.string(node, at)?;
    let parse = |digits: &str| -> Option<Box<[u8]>> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = digits.as_bytes().chunks_exact(2);
        if digits.is_empty() || !pairs.remainder().is_empty() {
            return None;
        }
        pairs.map(|pair| pair.iter().try_fold(0_u8, |byte, ascii| Some(byte << 4 | digit(*ascii)?))).collect()
    };
    let bytes = if text.contains(':') {
        let parts = text.split(':').map(|part| parse(part).filter(|bytes| bytes.len() == 1));
        parts.collect::<Option<Vec<_>>>().map(|bytes| bytes.concat().into())
    } else {
        parse(&text)
    };
    if bytes.is_none() {
        let help = "use an even number of hexadecimal digits, such as `0a1b2c` or `0A:1B:2C`";
        r.report(at, Code::InvalidValue, format!("`{text}` is not a number in hexadecimal digits"), help);
    }
    bytes
}

fn read_pattern(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Pattern> {
    let text = r.string(node, at)?;
    Pattern::parse(&text)
        .map_err(|error| {
            let help = "use `istio`, `any`, or a template such as `/{cluster}/ns/{namespace}/sa/{serviceAccount}`";
            r.report(at, Code::InvalidValue, format!("`{text}`: {error}"), help);
        })
        .ok()
}

/// Reads a principal without wildcards, and returns its SPIFFE ID.
fn read_proxy(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let principal = r.string(node, at)?;
    let id = format!("spiffe://{principal}");
    let wrong = match SpiffeId::parse(id.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(parsed) if parsed.path().is_empty() => "this is a trust domain, and not a workload".to_owned(),
        Ok(_) => return Some(id.into()),
    };
    let help =
        "use a SPIFFE ID without `spiffe://` and without wildcards, such as `example.org/ns/istio-system/sa/gateway`";
    r.report(at, Code::InvalidValue, format!("`{principal}`: {wrong}"), help);
    None
}
