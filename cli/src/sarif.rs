//! Logs in SARIF 2.1.0.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::{Value, json};

/// Returns a log with these rules and results.
pub(crate) fn log(rules: &[Value], results: &[Value]) -> Value {
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            // Section 3.14.27.
            "columnKind": "unicodeCodePoints",
            "tool": {"driver": {"name": "spiffe-authz", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": results,
        }],
    })
}

/// Returns a number that identifies a result by its parts: FNV-1a.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let text = parts.join("\0");
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns the name of a file without `./`, as other programs expect it.
pub(crate) fn relative(file: &Path) -> &Path {
    file.strip_prefix(".").unwrap_or(file)
}

/// Returns the name of a file as a relative reference (RFC 3986, section 4.2).
pub(crate) fn uri(file: &Path) -> String {
    let mut uri = String::new();
    for &byte in file.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::uri;

    #[test]
    fn file_names_are_percent_encoded() {
        assert_eq!(uri(Path::new("a/p\u{e4} th%.yaml")), "a/p%C3%A4%20th%25.yaml");
    }
}
