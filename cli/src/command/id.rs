//! `spiffe-authz id`: the parts of SPIFFE IDs, or the error in them.

use std::ffi::OsString;
use std::io::{self, BufRead as _, Write};
use std::os::unix::ffi::OsStrExt as _;

use serde::Serialize;
use spiffe_authz::identity::{IdentityReason, Pattern};
use spiffe_authz::spiffe_id::{SpiffeId, SpiffeIdError};

use crate::exit::Ended;
use crate::options::Format;
use crate::printable::{say, write_json};
use crate::stream::stdout;

/// Parses SPIFFE IDs and prints their parts, or the position of the error
///
/// An ID must be valid according to the SPIFFE-ID specification. With `--pattern`, its path must also have this form. The
/// bytes of an argument are checked unchanged.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz id spiffe://example.org/ns/default/sa/sleep
  spiffe-authz id --pattern istio -

Exit status:
  0  every ID is valid
  1  the command could not run
  3  an ID is invalid")]
pub(crate) struct Arguments {
    /// SPIFFE IDs; `-` reads them from standard input, one on each line
    #[arg(required = true)]
    ids: Vec<OsString>,
    /// The form of the path: `istio`, `any`, or a template such as `/{cluster}/ns/{namespace}/sa/{serviceAccount}` [default:
    /// any]
    #[arg(long, value_parser = |text: &str| Pattern::parse(text))]
    pattern: Option<Pattern>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// The result for one ID.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    id: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<&'a str>,
    #[serde(skip)]
    error: Option<String>,
}

impl<'a> Answer<'a> {
    fn of(bytes: &'a [u8], pattern: Option<&Pattern>) -> Self {
        let id = String::from_utf8_lossy(bytes).into_owned();
        let parsed = match SpiffeId::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => return Self { id, ..Self::invalid(error) },
        };
        let trust_domain = Some(parsed.trust_domain().as_str());
        let any_form = Pattern::any();
        let pattern = pattern.unwrap_or(&any_form);
        match pattern.read(parsed.path()) {
            Some(workload) => Self {
                id,
                valid: true,
                trust_domain,
                namespace: workload.namespace,
                service_account: workload.service_account,
                ..Self::default()
            },
            None => Self {
                id,
                reason: Some(IdentityReason::WrongPattern.slug()),
                trust_domain,
                error: Some(format!("the path does not have the form `{pattern}`")),
                ..Self::default()
            },
        }
    }

    fn invalid(error: SpiffeIdError) -> Self {
        Self {
            reason: Some(error.reason().slug()),
            offset: Some(error.offset()),
            error: Some(error.to_string()),
            ..Self::default()
        }
    }

    fn write_human(&self, out: &mut impl Write) -> io::Result<()> {
        if let (Some(reason), Some(error)) = (self.reason, &self.error) {
            return say!(out, "{}: {}: {}", self.id, reason, error);
        }
        let mut parts = String::new();
        for (name, part) in [
            ("trust domain", self.trust_domain),
            ("namespace", self.namespace),
            ("service account", self.service_account),
        ] {
            if let Some(part) = part {
                parts.push_str(&format!(", {name} {part}"));
            }
        }
        say!(out, "{}: valid{}", self.id, parts)
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mut out = stdout();
    let mut ended = Ended::Well;
    let mut ids: Vec<Vec<u8>> = Vec::new();
    let mut has_none = false;
    for id in &arguments.ids {
        if id == "-" {
            let lines = io::stdin().lock().split(b'\n').collect::<io::Result<Vec<_>>>()?;
            let count = ids.len();
            ids.extend(lines.into_iter().filter(|line| !line.trim_ascii().is_empty()));
            has_none |= ids.len() == count;
        } else {
            ids.push(id.as_bytes().to_vec());
        }
    }
    for id in &ids {
        let answer = Answer::of(id, arguments.pattern.as_ref());
        if !answer.valid {
            ended = Ended::WithFindings;
        }
        match arguments.format {
            Format::Human => answer.write_human(&mut out)?,
            Format::Json => write_json(&mut out, &answer)?,
        }
    }
    if has_none {
        return Err(io::Error::other("standard input: no SPIFFE ID (expected one on each line)"));
    }
    Ok(ended)
}
