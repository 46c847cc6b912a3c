//! The `spiffe-authz` command: lints, explains, tests and imports policies with the code that decides inside Envoy.

mod cert;
mod check;
mod completions;
mod document;
mod explain;
mod id;
mod import;
mod log;
mod replay;
mod report;
mod schema;
mod style;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

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
        Err(error) => {
            let asked_for = !error.use_stderr();
            return match error.print() {
                Ok(()) if asked_for => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
    };
    let result = match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Id(arguments) => id::run(&arguments),
        Command::Cert(arguments) => cert::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    match result {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::WithDenial) => ExitCode::from(2),
        Ok(Ended::WithFindings) => ExitCode::from(3),
        // Whoever reads the results has enough of them, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
