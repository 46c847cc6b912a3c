//! YAML, as the command reads it.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Options, budget, options};

/// One document.
pub(crate) fn from_str<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Error> {
    serde_saphyr::from_str_with_options(text, of_a_mesh())
}

/// Several documents.
pub(crate) fn from_multiple<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    serde_saphyr::from_multiple_with_options(text, of_a_mesh())
}

/// Returns the first line of an error. The others repeat the text.
pub(crate) fn message(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Room for the policies of a whole mesh, tens of thousands; what an alias may grow to stays bounded.
fn of_a_mesh() -> Options {
    options! {
        budget: budget! { max_nodes: 20_000_000, max_events: 40_000_000, max_documents: 100_000 },
    }
}
