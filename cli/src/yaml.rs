//! YAML with limits that suit the policies of a mesh, and its errors in the form of all messages.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_saphyr::{DuplicateKeyPolicy, Error, MessageFormatter as _, Options, UserMessageFormatter, budget, options};

use crate::printable::{is_hostile, write_pretty_json};
use crate::suggestion::hint;

/// The number of objects and lists in each other, in YAML and JSON. It is the limit of `serde_json`, which the filter uses.
pub(crate) const DEPTH: usize = 128;

/// Parses one document.
pub(crate) fn from_str<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Error> {
    serde_saphyr::from_str_with_options(text, limits())
}

/// Parses several documents. Repeated fields of an object are kept.
pub(crate) fn from_multiple<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    let mut options = limits();
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    serde_saphyr::from_multiple_with_options(text, options)
}

/// Writes a value without characters that control a terminal.
///
/// # Errors
/// Returns an error if the value has no form in YAML.
pub(crate) fn write<T: Serialize>(out: &mut Vec<u8>, value: &T) -> io::Result<()> {
    let text = to_string(value).map_err(io::Error::other)?;
    if text.contains(|character| character != '\n' && is_hostile(character)) {
        // JSON is YAML, too, and has an escape for every character.
        return write_pretty_json(out, value);
    }
    out.extend(text.as_bytes());
    Ok(())
}

/// Returns the text of a value.
///
/// # Errors
/// Returns an error if the value has no form in YAML.
pub(crate) fn to_string<T: Serialize>(value: &T) -> Result<String, serde_saphyr::ser::Error> {
    // Long strings stay on one line, so that they can be found.
    serde_saphyr::to_string_with_options(value, serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX })
}

/// Returns the place and the description of an error, on one line.
pub(crate) fn message(error: &Error) -> String {
    let text = description(error);
    match error.location() {
        Some(place) => format!("line {}, column {}: {text}", place.line(), place.column()),
        None => text,
    }
}

/// Returns the description of an error, on one line.
pub(crate) fn description(error: &Error) -> String {
    match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown field `{field}` ({})", hint(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("unknown value `{variant}` ({})", hint(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => format!("missing field `{field}`"),
        Error::DuplicateMappingKey { key: Some(name), .. } => {
            format!("duplicate field `{name}` (remove one of the two)")
        }
        Error::Budget { breach: budget::BudgetBreach::Depth { .. }, .. } => too_deep(),
        other => match UserMessageFormatter.format_message(other) {
            // The scanner has a limit of its own, and can reach it first.
            text if text == "recursion limit exceeded" => too_deep(),
            text => text.into_owned(),
        },
    }
}

/// Returns the description of the error at an object or a list that is too deep.
pub(crate) fn too_deep() -> String {
    format!("expected at most {DEPTH} objects and lists in each other")
}

/// Returns limits for the tens of thousands of policies of a mesh. The expansion of aliases stays bounded.
fn limits() -> Options {
    options! {
        budget: budget! { max_nodes: 20_000_000, max_events: 40_000_000, max_documents: 100_000, max_depth: DEPTH },
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{from_str, message};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "lowercase")]
    struct Table {
        #[expect(dead_code, reason = "only errors are tested")]
        cases: Vec<Verdict>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Verdict {
        Allow,
        Deny,
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        for (text, expected) in [
            ("cases: []\ncaces: []", "line 2, column 1: unknown field `caces` (did you mean `cases`?)"),
            ("x: 1", "line 1, column 1: unknown field `x` (expected `cases`)"),
            ("cases: [allow, dney]", "line 1, column 16: unknown value `dney` (did you mean `deny`?)"),
            ("{}", "line 1, column 1: missing field `cases`"),
        ] {
            assert_eq!(message(&from_str::<Table>(text).unwrap_err()), expected);
        }
        let broken = message(&from_str::<Table>("cases\n- allow").unwrap_err());
        assert!(broken.starts_with("line ") && broken.lines().count() == 1, "{broken}");
    }
}
