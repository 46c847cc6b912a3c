//! The settings of `check`: which lints it reports, and with which severity.
//!
//! They come from options, and from a file in YAML or JSON with the same names. An option replaces the setting of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer};
use spiffe_authz::lint::{Lint, Severity};

use crate::exit::Failure;
use crate::input;
use crate::located::{self, SyntaxError};
use crate::suggestion::{hint, similar};

/// The options.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Reports only these lints
    #[arg(long, value_name = "LINT", value_delimiter = ',', value_parser = LintName::parse)]
    select: Vec<LintName>,
    /// Does not report these lints
    #[arg(long, value_name = "LINT", value_delimiter = ',', value_parser = LintName::parse)]
    ignore: Vec<LintName>,
    /// The severity of a lint: `note`, `warning` or `error`
    #[arg(long, value_name = "LINT=SEVERITY", value_delimiter = ',', value_parser = parse_severity)]
    severity: Vec<(LintName, SeverityName)>,
    /// A file with `select`, `ignore`, `severity` and `baseline`; options have precedence
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file of accepted findings, which are not reported
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
    /// Writes all findings to the file of accepted findings, and reports none
    #[arg(long)]
    pub(super) update_baseline: bool,
}

/// The settings of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    select: Vec<LintName>,
    ignore: Vec<LintName>,
    severity: BTreeMap<LintName, SeverityName>,
    /// The path, from the directory of the file.
    baseline: Option<PathBuf>,
}

/// The lints that `check` reports, with their severities.
#[derive(Default)]
pub(super) struct Settings {
    select: Vec<LintName>,
    ignore: Vec<LintName>,
    severity: BTreeMap<LintName, SeverityName>,
    /// The file of accepted findings.
    pub(super) baseline: Option<PathBuf>,
}

impl Settings {
    /// Reads the file, and applies the options.
    ///
    /// # Errors
    /// Returns the errors in the file.
    pub(super) fn read(options: &Options) -> io::Result<Self> {
        let config = match &options.config {
            None => ConfigFile::default(),
            Some(file) => {
                let config: ConfigFile = read_file(file)?;
                let directory = file.parent().unwrap_or(Path::new(""));
                ConfigFile { baseline: config.baseline.map(|baseline| directory.join(baseline)), ..config }
            }
        };
        let or = |option: &Vec<LintName>, setting| if option.is_empty() { setting } else { option.clone() };
        let mut severity = config.severity;
        severity.extend(options.severity.iter().copied());
        let settings = Self {
            select: or(&options.select, config.select),
            ignore: or(&options.ignore, config.ignore),
            severity,
            baseline: options.baseline.clone().or(config.baseline),
        };
        if options.update_baseline && settings.baseline.is_none() {
            return Err(io::Error::other("`--update-baseline` needs a file (add `--baseline FILE`)"));
        }
        Ok(settings)
    }

    /// Returns the severity with which a lint is reported, or `None` if it is not reported.
    pub(super) fn severity(&self, lint: Lint) -> Option<Severity> {
        let lint = LintName(lint);
        let is_selected = self.select.is_empty() || self.select.contains(&lint);
        (is_selected && !self.ignore.contains(&lint))
            .then(|| self.severity.get(&lint).map_or(lint.0.severity(), |severity| severity.0))
    }
}

/// Reads a file with one value in YAML or JSON.
///
/// # Errors
/// Returns an error with the file and the position.
pub(super) fn read_file<T: DeserializeOwned>(file: &Path) -> io::Result<T> {
    let name = file.display().to_string();
    let text = input::read_text(file).map_err(|error| input::named(file, &error))?;
    let values = located::parse_all(&text)
        .map_err(|SyntaxError { position, message }| Failure::of_file(&name, &[(position, message)]))?;
    match &*values {
        [value] => value.read().map_err(|error| Failure::of_file(&name, &[(error.position, error.message)])),
        values => {
            let message = format!("expected one object, found {} (use a file of its own)", values.len());
            Err(Failure::of_file(&name, &[(None, message)]))
        }
    }
}

/// A lint, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LintName(pub(super) Lint);

impl LintName {
    fn parse(name: &str) -> Result<Self, Unknown> {
        by_name(name, "lint", Lint::all(), Lint::slug).map(Self)
    }
}

impl PartialOrd for LintName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LintName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.slug().cmp(other.0.slug())
    }
}

impl<'de> Deserialize<'de> for LintName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[derive(Debug, Clone, Copy)]
struct SeverityName(Severity);

impl SeverityName {
    fn parse(name: &str) -> Result<Self, Unknown> {
        by_name(name, "severity", Severity::all(), Severity::slug).map(Self)
    }
}

impl<'de> Deserialize<'de> for SeverityName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn parse_severity(text: &str) -> Result<(LintName, SeverityName), Unknown> {
    let (lint, severity) = text
        .split_once('=')
        .ok_or_else(|| Unknown("expected a lint and a severity, such as `any-caller=error`".to_owned()))?;
    Ok((LintName::parse(lint)?, SeverityName::parse(severity)?))
}

/// A name that nothing has.
#[derive(Debug)]
struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

fn by_name<T: Copy>(
    name: &str,
    kind: &str,
    all: impl Iterator<Item = T>,
    slug: impl Fn(T) -> &'static str,
) -> Result<T, Unknown> {
    let all: Vec<T> = all.collect();
    let known: Vec<&str> = all.iter().map(|value| slug(*value)).collect();
    let unknown = || {
        let hint = match similar(name, known.iter().copied()) {
            None if kind == "lint" => "`spiffe-authz rule` lists all".to_owned(),
            _ => hint(name, &known),
        };
        Unknown(format!("unknown {kind} `{name}` ({hint})"))
    };
    all.iter().copied().find(|value| slug(*value) == name).ok_or_else(unknown)
}
