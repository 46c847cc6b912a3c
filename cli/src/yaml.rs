//! YAML with limits that suit the policies of a mesh.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Options, budget, options};

/// Parses one document.
pub(crate) fn from_str<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Error> {
    serde_saphyr::from_str_with_options(text, limits())
}

/// Parses several documents.
pub(crate) fn from_multiple<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    serde_saphyr::from_multiple_with_options(text, limits())
}

/// Returns the first line of an error. The other lines repeat the document.
pub(crate) fn message(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Returns limits for the tens of thousands of policies of a mesh. The expansion of aliases stays bounded.
fn limits() -> Options {
    options! {
        budget: budget! { max_nodes: 20_000_000, max_events: 40_000_000, max_documents: 100_000 },
    }
}
