//! The `spiffe-authz` command: lints, explains, tests and imports policies with the code that decides inside Envoy.

mod certificate_file;
mod clock;
mod command;
mod decision;
mod document;
mod envoy;
mod examine;
mod exit;
mod finding;
mod istio;
mod logged_request;
mod options;
mod printable;
mod report;
mod style;
mod yaml;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use command::{cert, check, completions, doctor, explain, id, import, replay, schema, secret, test};

/// Lints, explains, tests and imports policies with the code that decides inside Envoy.
///
/// Exit status: 0 all is well or the request is allowed, 1 could not run, 2 the request is denied, 3 something was found
/// wrong. Results go to standard output, diagnostics to standard error.
#[derive(Parser)]
#[command(version)]
struct Arguments {
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

fn main() -> ExitCode {
    // clap's own status for a wrong command line is 2, which here is a denial.
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::of_command_line(&error, |escaped| Arguments::try_parse_from(escaped).err()),
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
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
    };
    match result {
        Ok(ended) => ended.into(),
        // The reader of the results has enough of them, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
