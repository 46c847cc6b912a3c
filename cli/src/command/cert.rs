//! `spiffe-authz cert`: the rules for X509-SVIDs that leaf certificates pass or violate.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use spiffe_authz::certificate::{Check, Svid, examine};

use crate::certificate_file::{first_certificate, readable};
use crate::exit::{self, Ended};
use crate::input;
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::stream::stdout;
use crate::style::{BAD, GOOD};

/// Checks leaf certificates against the rules for X509-SVIDs
///
/// The filter applies the same rules. In a PEM file with a chain, the first certificate is the leaf. Signatures and dates are
/// not checked, because Envoy validates them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz cert svid.pem

Exit status:
  0  every certificate is an X509-SVID
  1  the command could not run
  3  a certificate is not an X509-SVID")]
pub(crate) struct Arguments {
    /// Certificates in PEM or DER; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let mut out = stdout();
    let mut ended = Ended::Well;
    for file in &arguments.files {
        let bytes = input::read(file).and_then(|bytes| {
            readable(bytes).map_err(|what| io::Error::other(format!("{}: {what}", input::name(file))))
        });
        match bytes {
            Ok(bytes) => {
                let is_svid = write(&mut out, file, first_certificate(&bytes), arguments.format)?;
                if !is_svid && ended == Ended::Well {
                    ended = Ended::WithFindings;
                }
            }
            // One unreadable file does not hide the problems of the others.
            Err(error) => {
                exit::report(&error);
                ended = Ended::WithError;
            }
        }
    }
    Ok(ended)
}

/// Writes the rules that the leaf in a file passes or violates. Returns `true` if it is an X509-SVID.
fn write(out: &mut impl io::Write, file: &Path, leaf: &[u8], format: Format) -> io::Result<bool> {
    let verdict = Svid::parse(leaf);
    let checks = examine(leaf);
    match format {
        Format::Human => {
            match &verdict {
                Ok(svid) => {
                    say!(out, "{}: {}: {}", file.display(), styled(GOOD, "an X509-SVID"), svid.spiffe_id())?;
                    say!(out, "  valid from {} through {}", svid.not_before(), svid.not_after())?;
                    say!(out, "  serial number {}", hex(svid.serial_number()))?;
                    if let Some(key) = svid.authority_key_id() {
                        say!(out, "  authority key ID {}", hex(key))?;
                    }
                }
                Err(error) => say!(out, "{}: {}: {}", file.display(), styled(BAD, "not an X509-SVID"), error)?,
            }
            for Check { rule, section, result } in &checks {
                match result {
                    Ok(()) => say!(out, "  {} {} ({})", styled(GOOD, "passed"), rule, section)?,
                    Err(error) => say!(out, "  {} {} ({}): {}", styled(BAD, "failed"), rule, section, error)?,
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
                "spiffeId": verdict.as_ref().ok().map(|svid| svid.spiffe_id().as_str()),
                "notBefore": verdict.as_ref().ok().map(Svid::not_before),
                "notAfter": verdict.as_ref().ok().map(Svid::not_after),
                "serialNumber": verdict.as_ref().ok().map(|svid| hex(svid.serial_number())),
                "authorityKeyId": verdict.as_ref().ok().and_then(|svid| svid.authority_key_id().map(hex)),
                "rules": checks,
            });
            write_json(out, &answer)?;
        }
    }
    Ok(verdict.is_ok())
}

/// Returns hexadecimal digits, in the form of `identity.revoked`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
