//! Reads certificates in the formats of files: PEM, DER, base64, and UTF-16.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::envoy::page;

const BEGIN: &str = "-----BEGIN ";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// The first byte of DER.
const SEQUENCE: u8 = 0x30;

/// Converts a file to PEM or DER. It can also contain indented PEM, base64 of PEM or DER, as in Kubernetes Secrets, or UTF-16.
///
/// # Errors
/// Returns a message that names the content if it is something else with a known format.
pub(crate) fn readable(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
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
        return Err(format!("expected a certificate, found {} (PEM label `{label}`)", of_label(label)));
    }
    let joined: String = text.split_whitespace().collect();
    if joined.starts_with("eyJ") && joined.contains('.') {
        return Err("expected a certificate, found a JWT (a JWT-SVID is not an X509-SVID)".to_owned());
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

/// Returns the first certificate of a PEM chain, which is the leaf, without the text around it; other bytes are returned
/// unchanged.
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
