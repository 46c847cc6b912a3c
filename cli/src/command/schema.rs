//! `spiffe-authz schema`: the JSON Schema of the document.

use std::io::{self, Write as _};

use crate::exit::Ended;
use crate::stream::stdout;

/// Prints the JSON Schema (draft 2020-12) of the document, for editors
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz schema > spiffe-authz.schema.json")]
pub(crate) struct Arguments {}

const SCHEMA: &str = include_str!("../configuration.schema.json");

pub(crate) fn run(Arguments {}: &Arguments) -> io::Result<Ended> {
    stdout().write_all(SCHEMA.as_bytes())?;
    Ok(Ended::Well)
}
