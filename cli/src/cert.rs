//! `spiffe-authz cert`: is this leaf certificate an X509-SVID?

use std::io::{self, Write as _};
use std::path::PathBuf;

use anstream::stdout;
use serde_json::json;
use spiffe_authz::certificate::{Check, Svid, examine};

use crate::printable::{say, styled, write_json};
use crate::style::{BAD, GOOD};
use crate::{Ended, Format, document};

/// Holds leaf certificates against the rules for an X509-SVID, as the filter does.
///
/// Of a PEM file with a chain, the first certificate is the leaf. Signatures and dates are not looked at: Envoy does.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Certificates in PEM or DER; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How results are written.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mut out = stdout().lock();
    let mut ended = Ended::Well;
    for file in &arguments.files {
        let bytes = document::read(file)?;
        let leaf = first_certificate(&bytes);
        let verdict = Svid::parse(leaf);
        let checks = examine(leaf);
        if verdict.is_err() {
            ended = Ended::WithFindings;
        }
        match arguments.format {
            Format::Human => {
                match &verdict {
                    Ok(svid) => {
                        say!(out, "{}: {}: {}", file.display(), styled(GOOD, "an X509-SVID"), svid.spiffe_id())?;
                    }
                    Err(error) => say!(out, "{}: {}: {}", file.display(), styled(BAD, "no X509-SVID"), error)?,
                }
                for Check { rule, section, result } in &checks {
                    match result {
                        Ok(()) => say!(out, "  {} {} ({})", styled(GOOD, "holds "), rule, section)?,
                        Err(error) => say!(out, "  {} {} ({}): {}", styled(BAD, "broken"), rule, section, error)?,
                    }
                }
            }
            Format::Json => {
                let checks: Vec<_> = checks
                    .iter()
                    .map(|check| {
                        let reason = check.result.err().map(|error| error.reason().slug());
                        json!({"rule": check.rule, "section": check.section, "holds": check.result.is_ok(), "reason": reason})
                    })
                    .collect();
                let answer = json!({
                    "file": file.to_string_lossy(),
                    "valid": verdict.is_ok(),
                    "reason": verdict.as_ref().err().map(|error| error.reason().slug()),
                    "spiffeId": verdict.as_ref().ok().map(Svid::spiffe_id),
                    "rules": checks,
                });
                write_json(&mut out, &answer)?;
            }
        }
    }
    Ok(ended)
}

/// The leaf of a PEM chain, without what stands around it; anything else as it is.
pub(crate) fn first_certificate(bytes: &[u8]) -> &[u8] {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let find = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
    let Some(start) = find(bytes, BEGIN) else { return bytes };
    let rest = &bytes[start..];
    find(rest, END).map_or(rest, |end| &rest[..end + END.len()])
}
