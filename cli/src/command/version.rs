//! `spiffe-authz version`: the version, the commit, and the supported releases of Envoy.

use std::io::{self, Write as _};
use std::sync::LazyLock;

use serde_json::json;

use super::doctor::SUPPORTED;
use crate::exit::Ended;
use crate::options::Format;
use crate::printable::{say, write_json};
use crate::stream::stdout;

/// The version of this package.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of the build, if the environment of the compiler contains it.
const COMMIT: Option<&str> = option_env!("SPIFFE_AUTHZ_COMMIT");

/// Prints the version, the commit, and the supported releases of Envoy
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// The version with the commit and the supported releases of Envoy, on one line.
pub(crate) static TEXT: LazyLock<String> = LazyLock::new(|| {
    let commit = COMMIT.map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    format!("{VERSION} ({commit}for Envoy {})", releases().join(", "))
});

fn releases() -> Vec<String> {
    SUPPORTED.map(|(major, minor)| format!("{major}.{minor}")).to_vec()
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mut out = stdout();
    match arguments.format {
        Format::Human => say!(out, "spiffe-authz {}", *TEXT)?,
        Format::Json => {
            let version = json!({"name": "spiffe-authz", "version": VERSION, "commit": COMMIT, "envoy": releases()});
            write_json(&mut out, &version)?;
        }
    }
    Ok(Ended::Well)
}
