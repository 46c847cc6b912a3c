//! The `spiffe-authz` command: checks configurations and SPIFFE IDs with the code that decides inside Envoy.

mod check;
mod id;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Checks configurations and SPIFFE IDs with the code that decides inside Envoy.
///
/// Exit status: 0 all is well, 1 could not run, 3 something was found wrong. Results go to standard output.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Arguments),
    Id(id::Arguments),
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
enum Ended {
    Well,
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
        Command::Id(arguments) => id::run(&arguments),
    };
    match result {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::WithFindings) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
