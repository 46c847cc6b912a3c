//! Values that no request has.

use super::outline::{FieldUse, Settings};
use crate::policy::field::{Field, Key};
use crate::policy::is_token_byte;
use crate::spiffe_id::{SpiffeId, is_segment_byte};

/// Claims that are never a string or a list of strings.
///
/// Source: RFC 7519 section 4.1 (`exp`, `nbf`, `iat`); OpenID Connect Core 1.0 sections 2 and 5.1 (`auth_time`, `updated_at`,
/// `email_verified`, `phone_number_verified`).
const NUMBERS_AND_BOOLEANS: [&str; 7] =
    ["exp", "nbf", "iat", "auth_time", "updated_at", "email_verified", "phone_number_verified"];

/// Returns the reason why no request matches this value, and the form to write instead.
pub(super) fn reason(used: &FieldUse<'_>, value: &str) -> Option<String> {
    match used.field {
        Field::Namespaces => namespace(value),
        Field::Methods => method(value),
        Field::Paths => path(value),
        Field::Hosts => host(value),
        Field::RequestPrincipals => request_principal(value),
        Field::Claim => claim(used.name),
        _ => None,
    }
}

/// Namespaces are path segments of SPIFFE IDs (SPIFFE-ID section 2.2).
fn namespace(value: &str) -> Option<String> {
    if value.contains('/') {
        return Some(format!("`{value}` is not a namespace (use `principals` for a whole principal)"));
    }
    if matches!(value, "." | "..") || !value.bytes().all(|byte| byte == b'*' || is_segment_byte(byte)) {
        return Some(format!(
            "`{value}` contains characters that no namespace contains (list each namespace by itself)"
        ));
    }
    None
}

/// Methods are tokens (RFC 9110 section 9.1).
fn method(value: &str) -> Option<String> {
    if value.contains('/') {
        return Some(format!(
            "`{value}` is not an HTTP method (for gRPC, use the method `POST` and the path `{value}`)"
        ));
    }
    (!value.bytes().all(is_token_byte)).then(|| format!("`{value}` is not an HTTP method (use a method such as `GET`)"))
}

fn path(value: &str) -> Option<String> {
    if !value.starts_with(['/', '*']) && !value.starts_with(is_placeholder) {
        return Some(format!("`{value}` does not start with a slash (use `/{value}`)"));
    }
    let hidden = |character: char| character.is_ascii_control() || character == ' ';
    value
        .contains(hidden)
        .then(|| format!("`{value}` contains a space or a control character (use its percent-encoding)"))
}

/// A value that begins like this is probably a placeholder or a regular expression, which is reported as such.
const fn is_placeholder(character: char) -> bool {
    matches!(character, '^' | '$' | '(' | '<' | '{' | '[' | '%')
}

fn host(value: &str) -> Option<String> {
    if value.contains("://") {
        let name = value.split_once("://").map_or(value, |(_, name)| name);
        return Some(format!("`{value}` contains a scheme (use `{name}`)"));
    }
    if value.contains('/') {
        let name = value.split('/').next().unwrap_or(value);
        return Some(format!("`{value}` contains a path (use the host `{name}`, and `paths`)"));
    }
    None
}

fn request_principal(value: &str) -> Option<String> {
    let issuer = value.strip_suffix('/').filter(|issuer| !issuer.starts_with('*'))?;
    Some(format!("`{value}` has no subject (use `{issuer}/*` for every subject of the issuer)"))
}

fn claim(key: &str) -> Option<String> {
    let path: Vec<&str> = Key::parse(key)?.name.split("][").collect();
    let (name, nested) = path.split_first()?;
    if nested.iter().any(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some(format!("a list has no index in `{key}` (omit it: a value matches each item of the list)"));
    }
    (nested.is_empty() && NUMBERS_AND_BOOLEANS.contains(name))
        .then(|| format!("the claim `{name}` is a number or a boolean (only strings and lists of strings match)"))
}

/// Returns the reason why the identity settings reject every caller with this principal.
pub(super) fn out_of_pattern(value: &str, settings: &Settings<'_>) -> Option<String> {
    if value.starts_with('*') || value.ends_with('*') {
        return None;
    }
    let id = format!("spiffe://{value}");
    let id = SpiffeId::parse(id.as_bytes()).ok().filter(|id| !id.path().is_empty())?;
    let pattern = &settings.pattern;
    let is_accepted = pattern.read(id.path()).is_some();
    (!is_accepted).then(|| format!("`{value}` does not match `identity.pattern`, which is `{pattern}`"))
}
