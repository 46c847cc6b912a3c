//! `spiffe-authz man`: the manual pages.

use std::io;
use std::path::PathBuf;

use crate::exit::Ended;
use crate::input;

/// Writes the manual pages to a directory
///
/// There is a page for the command, and one for each subcommand: `man spiffe-authz-check`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz man /usr/local/share/man/man1")]
pub(crate) struct Arguments {
    /// The directory, which must exist
    directory: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, command: clap::Command) -> io::Result<Ended> {
    let directory = &arguments.directory;
    clap_mangen::generate_to(command, directory).map_err(|error| input::named(directory, &error))?;
    Ok(Ended::Well)
}
