//! Values that are probably a mistake.

use super::outline::FieldUse;
use crate::policy::field::Field;

/// Returns the reason why this value is probably a mistake, and the form to write instead.
pub(super) fn reason(used: &FieldUse<'_>, value: &str) -> Option<String> {
    if let Some(placeholder) = placeholder(value) {
        return Some(format!("`{value}` contains the placeholder `{placeholder}` (render the template first)"));
    }
    match used.field {
        Field::Methods => method(value),
        Field::Paths => path(value).or_else(|| regular_expression(value)),
        Field::Hosts
        | Field::Header
        | Field::ServerName
        | Field::Claim
        | Field::Metadata
        | Field::RequestPrincipals => regular_expression(value),
        _ => None,
    }
}

/// Placeholders of Helm, envsubst, Kustomize and documentation.
fn placeholder(value: &str) -> Option<&str> {
    let delimiters = [("{{", "}}"), ("${", "}"), ("$(", ")"), ("<", ">")];
    delimiters.into_iter().find_map(|(open, close)| {
        let start = value.find(open)?;
        let rest = value.get(start..)?;
        let end = rest.find(close)?.checked_add(close.len())?;
        rest.get(..end)
    })
}

fn method(value: &str) -> Option<String> {
    if matches!(value, "ANY" | "ALL" | "any" | "all") {
        return Some(format!("`{value}` is not a method of HTTP (remove the field to match every method)"));
    }
    let upper = value.to_ascii_uppercase();
    (value != upper).then(|| format!("`{value}` is in lower case, and methods are case-sensitive (use `{upper}`)"))
}

/// Forms that a proxy removes from paths, and Envoy too, if it normalizes them as Istio configures it.
fn path(value: &str) -> Option<String> {
    let lower = value.to_ascii_lowercase();
    let has_dots = value.split('/').any(|segment| matches!(segment, "." | ".."));
    let found = if value.contains("//") {
        "two slashes in a row"
    } else if has_dots {
        "a segment `.` or `..`"
    } else if ["%2f", "%5c", "%2e"].iter().any(|encoded| lower.contains(encoded)) {
        "an encoded slash, backslash or dot"
    } else if value.contains('\\') {
        "a backslash"
    } else {
        return None;
    };
    Some(format!("`{value}` contains {found}, which path normalization removes or rejects (use the normalized path)"))
}

fn regular_expression(value: &str) -> Option<String> {
    let signs = ["[0-9", "[a-z", "[A-Z", "[^", "(?", ".+", "\\d", "\\w", "\\.", ")?", "]+"];
    // `api.example.*` is a prefix.
    let is_prefix = |before: &str| before.ends_with(|last: char| last.is_ascii_alphanumeric());
    let has_any = value.match_indices(".*").any(|(start, any)| {
        let (before, after) = (value.get(..start), value.get(start.saturating_add(any.len())..));
        after != Some("") || !before.is_some_and(is_prefix)
    });
    let is_alternative = value.contains('(') && value.contains('|') && value.contains(')');
    let is_anchored = value.starts_with('^') || (value.ends_with('$') && value.len() > 1);
    (is_anchored || is_alternative || has_any || signs.iter().any(|sign| value.contains(sign))).then(|| {
        format!("`{value}` looks like a regular expression, and is compared literally (use `*`, or `{{*}}` in a path)")
    })
}
