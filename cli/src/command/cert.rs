//! `spiffe-authz cert`: is this leaf certificate an X509-SVID?

use std::io::{self, Write as _};
use std::path::PathBuf;

use anstream::stdout;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use spiffe_authz::certificate::{Check, Svid, examine};

use crate::document;
use crate::envoy::page;
use crate::exit::Ended;
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::style::{BAD, GOOD};

const BEGIN: &str = "-----BEGIN ";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// The first byte of DER.
const SEQUENCE: u8 = 0x30;

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
        let bytes =
            readable(document::read(file)?).map_err(|what| io::Error::other(format!("{}: {what}", file.display())))?;
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
                        say!(out, "  valid from {} through {}", svid.not_before(), svid.not_after())?;
                        say!(out, "  serial number {}", hex(svid.serial_number()))?;
                        if let Some(key) = svid.authority_key_id() {
                            say!(out, "  authority key ID {}", hex(key))?;
                        }
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
                    "spiffeId": verdict.as_ref().ok().map(|svid| svid.spiffe_id().as_str()),
                    "notBefore": verdict.as_ref().ok().map(Svid::not_before),
                    "notAfter": verdict.as_ref().ok().map(Svid::not_after),
                    "serialNumber": verdict.as_ref().ok().map(|svid| hex(svid.serial_number())),
                    "authorityKeyId": verdict.as_ref().ok().and_then(|svid| svid.authority_key_id().map(hex)),
                    "rules": checks,
                });
                write_json(&mut out, &answer)?;
            }
        }
    }
    Ok(ended)
}

/// Returns hexadecimal digits, as `identity.revoked` takes them.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a certificate in PEM or DER from the forms in which people have it: indented PEM, base64 around PEM or DER, as
/// in Kubernetes Secrets, and UTF-16.
///
/// # Errors
/// Returns what the file is, if it is something else with a known form.
fn readable(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(bytes);
    }
    // The rules report that other bytes are not a certificate.
    let Ok(text) = page::decode("certificate", bytes.clone()) else { return Ok(bytes) };
    if text.contains(CERTIFICATE) {
        return Ok(unindented(&text).into_bytes());
    }
    if let Some((_, label)) = text.split_once(BEGIN) {
        let label = label.split("-----").next().unwrap_or_default();
        return Err(format!("this is {}, not a certificate: its PEM label is `{label}`", of_label(label)));
    }
    let joined: String = text.split_whitespace().collect();
    if joined.starts_with("eyJ") && joined.contains('.') {
        return Err("this is a JWT, not a certificate; a JWT-SVID has no X.509 rules".to_owned());
    }
    match STANDARD.decode(&joined) {
        Ok(decoded) if decoded.first() == Some(&SEQUENCE) => Ok(decoded),
        // Only once: base64 in base64 is not a form that tools write.
        Ok(decoded) if decoded.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes()) => {
            let inner = String::from_utf8_lossy(&decoded).into_owned();
            if inner.contains(CERTIFICATE) { Ok(unindented(&inner).into_bytes()) } else { readable(decoded) }
        }
        _ => Ok(bytes),
    }
}

/// Returns the lines without the spaces and quotation marks around them, which YAML adds.
fn unindented(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_matches(['"', '\'']));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the content of a PEM block with this label (RFC 7468).
fn of_label(label: &str) -> &'static str {
    match label {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => "a signing request",
        "X509 CRL" => "a revocation list",
        "PUBLIC KEY" | "RSA PUBLIC KEY" => "a public key",
        "TRUSTED CERTIFICATE" => "a certificate with OpenSSL's trust settings",
        "PKCS7" | "CMS" => "a PKCS #7 container",
        _ if label.ends_with("PRIVATE KEY") => "a private key",
        _ => "another object",
    }
}

/// The leaf of a PEM chain, without what stands around it; anything else as it is.
pub(crate) fn first_certificate(bytes: &[u8]) -> &[u8] {
    const BEGIN: &[u8] = CERTIFICATE.as_bytes();
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let find = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
    let Some(start) = find(bytes, BEGIN) else { return bytes };
    let rest = &bytes[start..];
    find(rest, END).map_or(rest, |end| &rest[..end + END.len()])
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::readable;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

    #[test]
    fn forms_of_pem_are_read() {
        let wide: Vec<u8> = format!("\u{feff}{PEM}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [
            PEM.as_bytes().to_vec(),
            PEM.replace('\n', "\n    ").into_bytes(),
            PEM.replace('\n', "\r\n").into_bytes(),
            STANDARD.encode(PEM).into_bytes(),
            STANDARD.encode(PEM).into_bytes().chunks(10).collect::<Vec<_>>().join(&b'\n'),
            wide,
        ] {
            assert_eq!(String::from_utf8(readable(bytes).unwrap()).unwrap(), PEM);
        }
        assert_eq!(readable(vec![0x30, 0x03, 0xff]), Ok(vec![0x30, 0x03, 0xff]));
        assert_eq!(readable(b"MAMC".to_vec()).unwrap()[0], 0x30);
    }

    #[test]
    fn other_objects_are_named() {
        for (text, what) in [
            ("-----BEGIN EC PRIVATE KEY-----", "a private key"),
            ("-----BEGIN CERTIFICATE REQUEST-----", "a signing request"),
            ("-----BEGIN X509 CRL-----", "a revocation list"),
            ("-----BEGIN OPENSSH KEY-----", "`OPENSSH KEY`"),
            ("eyJhbGciOiJSUzI1NiJ9.e30.x", "a JWT"),
        ] {
            let error = readable(text.as_bytes().to_vec()).unwrap_err();
            assert!(error.contains(what), "{error}");
            let wrapped = readable(STANDARD.encode(text).into_bytes());
            assert!(text.starts_with("eyJ") || wrapped.is_err_and(|error| error.contains(what)), "{text}");
        }
        for bytes in [&b""[..], b"hello", b"\xff\xff"] {
            assert_eq!(readable(bytes.to_vec()), Ok(bytes.to_vec()));
        }
    }
}
