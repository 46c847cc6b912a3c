//! The `spiffe-authz` command: lints, explains, tests and imports policies with the code that decides inside Envoy.

mod cert;
mod check;
mod clock;
mod completions;
mod doctor;
mod document;
mod envoy;
mod explain;
mod failure;
mod finding;
mod id;
mod import;
mod log;
mod printable;
mod replay;
mod report;
mod schema;
mod secret;
mod style;
mod test;
mod yaml;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use spiffe_authz::lint::Severity;

/// Lints, explains, tests and imports policies with the code that decides inside Envoy.
///
/// Exit status: 0 all is well or the request is allowed, 1 could not run, 2 the request is denied, 3 something was found
/// wrong. Results go to standard output, diagnostics to standard error.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Arguments),
    Explain(explain::Arguments),
    Test(test::Arguments),
    Import(import::Arguments),
    Replay(replay::Arguments),
    Id(id::Arguments),
    Cert(cert::Arguments),
    Doctor(doctor::Arguments),
    Secret(secret::Arguments),
    Schema(schema::Arguments),
    Completions(completions::Arguments),
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object per result.
    Json,
}

/// From which weight on a finding makes the exit status 3.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Worth knowing.
    Note,
    /// Probably not what is meant.
    Warning,
    /// Lets in, or keeps out, others than it seems to.
    Error,
    /// Never for a finding.
    Never,
}

impl Level {
    fn is_reached(self, severity: Severity) -> bool {
        match self {
            Self::Note => true,
            Self::Warning => severity >= Severity::Warning,
            Self::Error => severity >= Severity::Error,
            Self::Never => false,
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    WithDenial,
    WithFindings,
}

fn main() -> ExitCode {
    // clap's own status for a wrong command line is 2, which here is a denial.
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::of_command_line(&error),
    };
    let result = match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Id(arguments) => id::run(&arguments),
        Command::Cert(arguments) => cert::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Secret(arguments) => secret::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    match result {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::WithDenial) => ExitCode::from(2),
        Ok(Ended::WithFindings) => ExitCode::from(3),
        // Whoever reads the results has enough of them, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
