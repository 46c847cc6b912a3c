//! `spiffe-authz check`: does the filter take this configuration?

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::policy::Policy;

use crate::{Ended, Format};

/// Compiles configuration documents as the filter does, and prints every mistake.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Configuration documents in JSON; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How results are written.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mut out = io::stdout().lock();
    let mut ended = Ended::Well;
    for file in &arguments.files {
        let diagnostics = Policy::from_json(&read(file)?).err().unwrap_or_default();
        if !diagnostics.is_empty() {
            ended = Ended::WithFindings;
        }
        match arguments.format {
            Format::Human => write_human(&mut out, file, &diagnostics)?,
            Format::Json => write_json(&mut out, file, &diagnostics)?,
        }
    }
    Ok(ended)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        return Ok(text);
    }
    std::fs::read(file).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

fn write_human(out: &mut impl Write, file: &Path, diagnostics: &[Diagnostic]) -> io::Result<()> {
    if diagnostics.is_empty() {
        return writeln!(out, "{}: ok", file.display());
    }
    diagnostics.iter().try_for_each(|diagnostic| writeln!(out, "{}: {diagnostic}", file.display()))
}

fn write_json(out: &mut impl Write, file: &Path, diagnostics: &[Diagnostic]) -> io::Result<()> {
    let diagnostics: Vec<_> = diagnostics
        .iter()
        .map(|Diagnostic { pointer, code, message, help }| {
            json!({"pointer": pointer, "code": code.slug(), "message": message, "help": help})
        })
        .collect();
    writeln!(
        out,
        "{}",
        json!({"file": file.to_string_lossy(), "ok": diagnostics.is_empty(), "diagnostics": diagnostics})
    )
}
