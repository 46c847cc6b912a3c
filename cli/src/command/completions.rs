//! `spiffe-authz completions`: completion scripts for shells.

use std::io::{self, Write as _};

use clap_complete::Shell;

use crate::exit::Ended;
use crate::stream::stdout;

const NAME: &str = "spiffe-authz";

/// Prints the completion script of a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source <(spiffe-authz completions bash)")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, mut command: clap::Command) -> io::Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, NAME, &mut script);
    let mut script = String::from_utf8(script).map_err(io::Error::other)?;
    if arguments.shell == Shell::Bash {
        // Without this, bash completes no option of a subcommand: two parts of the script spell the hyphen in the name of the
        // command differently (https://github.com/clap-rs/clap/issues/6421).
        script = script.replace("spiffe__subcmd__authz", "spiffe__authz");
    }
    stdout().write_all(script.as_bytes())?;
    Ok(Ended::Well)
}
