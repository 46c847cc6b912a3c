//! `spiffe-authz completions`: what a shell completes.

use std::io;

use clap_complete::Shell;

use crate::exit::Ended;

/// Prints a shell's completion script, such as for `source <(spiffe-authz completions bash)`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[expect(clippy::unnecessary_wraps, reason = "every command ends alike")]
pub(crate) fn run(arguments: &Arguments, mut command: clap::Command) -> io::Result<Ended> {
    clap_complete::generate(arguments.shell, &mut command, "spiffe-authz", &mut io::stdout());
    Ok(Ended::Well)
}
