//! The `spiffe-authz` command: checks, explains, tests and imports policies with the code of the filter.

mod answer;
mod attributes;
mod base64_text;
mod certificate_file;
mod claims;
mod clock;
mod command;
mod controller;
mod decision;
mod deploy;
mod document;
mod envoy;
mod examine;
mod excerpt;
mod exit;
mod finding;
mod gzip;
mod input;
mod istio;
mod lines;
mod located;
mod logged_request;
mod markdown;
mod mesh;
mod options;
mod placed;
mod printable;
mod progress;
mod report;
mod sarif;
mod source;
mod stream;
mod style;
mod suggestion;
mod xml;
mod yaml;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use command::{
    cert, check, completions, controller as controller_command, diff, doctor, explain, id, import, learn, man, matrix,
    prove, prune, render, replay, rule, schema, secret, test, version, who,
};
use options::Color;

/// Checks, explains, tests and imports policies with the code of the filter
///
/// Results go to standard output, errors to standard error.
#[derive(Parser)]
#[command(
    name = "spiffe-authz",
    version = version::TEXT.as_str(),
    max_term_width = 120,
    after_help = "Exit status:\n  0  no problems, or the request is allowed\n  1  the command could not run\n  \
                  2  the request is denied\n  3  problems were found"
)]
struct Arguments {
    /// Whether the output has colors. `auto` means that it has on a terminal; NO_COLOR and FORCE_COLOR change this
    #[arg(long, value_enum, global = true, default_value = "auto")]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Arguments),
    Explain(explain::Arguments),
    Test(test::Arguments),
    Import(import::Arguments),
    Render(render::Arguments),
    Controller(controller_command::Arguments),
    Replay(replay::Arguments),
    Diff(diff::Arguments),
    Who(who::Arguments),
    Matrix(matrix::Arguments),
    Prove(prove::Arguments),
    Learn(learn::Arguments),
    Prune(prune::Arguments),
    Id(id::Arguments),
    Cert(cert::Arguments),
    Doctor(doctor::Arguments),
    Secret(secret::Arguments),
    Rule(rule::Arguments),
    Schema(schema::Arguments),
    Version(version::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

fn main() -> ExitCode {
    // clap exits with status 2 for an invalid command line. Here, 2 is a denial.
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::of_command_line(&error, |escaped| Arguments::try_parse_from(escaped).err()),
    };
    arguments.color.select();
    // These run until they are stopped.
    if !matches!(arguments.command, Command::Render(_) | Command::Controller(_)) {
        progress::start();
    }
    let result = match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Controller(arguments) => controller_command::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Who(arguments) => who::run(&arguments),
        Command::Matrix(arguments) => matrix::run(&arguments),
        Command::Prove(arguments) => prove::run(&arguments),
        Command::Learn(arguments) => learn::run(&arguments),
        Command::Prune(arguments) => prune::run(&arguments),
        Command::Id(arguments) => id::run(&arguments),
        Command::Cert(arguments) => cert::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Secret(arguments) => secret::run(&arguments),
        Command::Rule(arguments) => rule::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Version(arguments) => version::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
        Command::Man(arguments) => man::run(&arguments, Arguments::command()),
    };
    progress::end();
    match result {
        Ok(ended) => ended.into(),
        Err(error) => exit::report(&error),
    }
}
