//! The options that several subcommands have.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anstream::ColorChoice;
use anstream::adapter::strip_bytes;
use clap::ValueEnum;
use spiffe_authz::lint::Severity;
use spiffe_authz::policy::Layer;

use crate::input;
use crate::stream::stdout;

/// The output format.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Human-readable text
    Human,
    /// One JSON object per result
    Json,
}

/// The layer of a decision.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayerOption {
    /// An HTTP request
    Http,
    /// A TCP connection
    Tcp,
}

impl From<LayerOption> for Layer {
    fn from(name: LayerOption) -> Self {
        match name {
            LayerOption::Http => Self::Http,
            LayerOption::Tcp => Self::Tcp,
        }
    }
}

/// Whether the output has colors.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// Colors on a terminal
    Auto,
    /// Colors in files and pipes, too
    Always,
    /// No colors
    Never,
}

impl Color {
    /// Selects the colors of everything that is written from now on.
    pub(crate) fn select(self) {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        match self {
            Self::Always => ColorChoice::Always.write_global(),
            Self::Never => ColorChoice::Never.write_global(),
            // anstream reads NO_COLOR and CLICOLOR_FORCE.
            Self::Auto if is_set("FORCE_COLOR") && !is_set("NO_COLOR") => ColorChoice::Always.write_global(),
            Self::Auto => {}
        }
    }
}

/// The destination of results.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// The file for the results, which is replaced; `-` is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Output {
    /// Returns the file, or `None` for standard output.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|file| *file != Path::new("-"))
    }

    /// Writes results, which can have styles. A file gets them without styles.
    ///
    /// # Errors
    /// Returns an error that names the file.
    pub(crate) fn write(&self, results: &[u8]) -> io::Result<()> {
        let Some(file) = self.file() else {
            return stdout().write_all(results);
        };
        let plain: Vec<u8> = strip_bytes(results).into_vec();
        fs::write(file, plain).map_err(|error| input::named(file, &error))
    }

    /// Writes text. A file is replaced in one step, so that a program that watches it never reads a part.
    ///
    /// # Errors
    /// Returns an error that names the file.
    pub(crate) fn replace(&self, text: &[u8]) -> io::Result<()> {
        let Some(file) = self.file() else {
            return stdout().write_all(text);
        };
        let mut name = file.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        fs::write(&part, text).and_then(|()| fs::rename(&part, file)).map_err(|error| input::named(file, &error))
    }
}

/// The lowest severity of a finding for which the exit status is 3.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Notes, warnings and errors
    Note,
    /// Warnings and errors
    Warning,
    /// Errors
    Error,
    /// No finding
    Never,
}

impl Level {
    /// Returns `true` if a finding of this severity makes the exit status 3.
    pub(crate) fn is_reached(self, severity: Severity) -> bool {
        match self {
            Self::Note => true,
            Self::Warning => severity >= Severity::Warning,
            Self::Error => severity >= Severity::Error,
            Self::Never => false,
        }
    }
}
