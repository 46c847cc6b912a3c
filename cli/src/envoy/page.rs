//! Reads saved pages: the encodings that tools write, and text around the JSON.

use std::io;

use serde_json::Value;

use crate::{gzip, yaml};

/// The size of a decompressed file. Dumps of the largest meshes have a few hundred megabytes.
const MAX_SIZE: u64 = 2 << 30;

/// Returns the error for a page that cannot be read.
pub(crate) fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

/// Returns the text of a page.
///
/// # Errors
/// Returns an error that names the file's format if it is not text.
pub(crate) fn decode(page: &str, bytes: Vec<u8>) -> io::Result<String> {
    decode_text("page", bytes).map_err(|message| invalid(&format!("{page}: {message}")))
}

/// Returns the text of a file in UTF-8 or UTF-16, which can be compressed with gzip. Errors name the file with this noun.
///
/// # Errors
/// Returns the file's format if it is not text.
pub(crate) fn decode_text(noun: &str, bytes: Vec<u8>) -> Result<String, String> {
    let bytes = if gzip::is_gzip(&bytes) { gunzip(&bytes)? } else { bytes };
    let not = |encoding: &str| format!("the {noun} is {encoding} (save the {noun} as UTF-8)");
    let wide = |read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| read([pair[0], pair[1]])).collect();
        String::from_utf16(&units).map_err(|_| not("not valid UTF-16"))
    };
    match bytes.as_slice() {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [b'P', b'K', 3, 4, ..] => Err("expected text, found a ZIP archive (unpack it first)".to_owned()),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(format!("expected text, found zstd (decompress the {noun} first)")),
        [0, ..] | [_, 0, ..] => Err(not("UTF-16 without a byte order mark")),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).map_err(|_| not("not valid UTF-8")),
        _ => String::from_utf8(bytes).map_err(|_| not("neither UTF-8 nor UTF-16")),
    }
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let text = gzip::decompressed(bytes, MAX_SIZE).map_err(|error| format!("gzip: {error}"))?;
    if text.len() as u64 == MAX_SIZE {
        return Err(format!("the decompressed file has more than {MAX_SIZE} bytes"));
    }
    Ok(text)
}

/// Returns the JSON of a page. Text before it, such as messages of kubectl, is skipped; YAML becomes JSON.
///
/// # Errors
/// Returns an error that names the format if the text is neither JSON nor YAML.
pub(crate) fn json(page: &str, text: String) -> io::Result<String> {
    if starts_json(&text) {
        return Ok(text);
    }
    if let Some(json) = json_after_lines(&text) {
        return Ok(json.to_owned());
    }
    let first = text.trim_start().lines().next().unwrap_or_default();
    let looks = if first.is_empty() {
        Some("the page is empty")
    } else if first.starts_with('<') {
        Some("expected JSON, found HTML")
    } else if first.starts_with("-----BEGIN ") {
        Some("expected JSON, found PEM (use `spiffe-authz cert` for certificates)")
    } else if is_table(first) {
        Some("expected JSON, found a table (add `-o json` to the istioctl command)")
    } else {
        None
    };
    if let Some(what) = looks {
        return Err(invalid(&format!("{page}: {what}")));
    }
    let mut value: Value = yaml::from_str(&text)
        .map_err(|error| invalid(&format!("{page}: expected JSON or YAML: {}", yaml::message(&error))))?;
    if value.is_object() || value.is_array() {
        remove_null(&mut value);
        Ok(value.to_string())
    } else {
        Err(invalid(&format!("{page}: expected JSON or YAML, found text that starts with `{}`", shortened(first))))
    }
}

/// Returns the JSON that starts after other lines.
pub(crate) fn json_after_lines(text: &str) -> Option<&str> {
    let mut starts = text.match_indices('\n').map(|(end, _)| end + 1);
    starts.find(|&start| is_json_line(&text[start..])).map(|start| &text[start..])
}

/// Removes the fields without a value, which YAML can have and Envoy's JSON does not.
fn remove_null(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, below| !below.is_null());
            fields.values_mut().for_each(remove_null);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_null),
        _ => {}
    }
}

fn starts_json(text: &str) -> bool {
    is_json_line(text.trim_start())
}

/// Returns `true` if a line starts JSON. The lines of logs start with `[` and a date.
fn is_json_line(line: &str) -> bool {
    let mut characters = line.chars();
    match characters.next() {
        Some('{') => true,
        Some('[') => matches!(characters.next(), Some('\n' | '\r' | '{' | ']')),
        _ => false,
    }
}

/// Returns `true` for the heading of a table: at least two words of capitals.
fn is_table(first: &str) -> bool {
    let is_title = |word: &str| word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase());
    first.split_whitespace().filter(|word| is_title(word)).count() >= 2
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Returns what a JSON value is, if it is a document that people confuse with a page of Envoy.
pub(crate) fn what_is(value: &Value) -> Option<String> {
    if let Some(kind) = value["kind"].as_str().filter(|_| value["apiVersion"].is_string()) {
        return Some(format!("a Kubernetes {kind}"));
    }
    let has = |fields: &[&str]| fields.iter().all(|field| !value[field].is_null());
    let known: [(&[&str], &str); 6] = [
        (&["workloads", "services"], "ztunnel's dump"),
        (&["certificates"], "Envoy's page `certs`"),
        (&["stats"], "Envoy's page `stats`"),
        (&["cluster_statuses"], "Envoy's page `clusters`"),
        (&["listener_statuses"], "Envoy's page `listeners`"),
        (&["command_line_options"], "Envoy's page `server_info`"),
    ];
    known.iter().find(|(fields, _)| has(fields)).map(|(_, name)| (*name).to_owned())
}

/// Turns the names that istioctl writes, such as `tlsCertificate`, into Envoy's.
pub(crate) fn to_snake_case(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // The fields of a structure are the document of a filter.
            if fields.get("@type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("protobuf.Struct")) {
                return;
            }
            for (name, mut below) in std::mem::take(fields) {
                to_snake_case(&mut below);
                fields.insert(snake(&name), below);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(to_snake_case),
        _ => {}
    }
}

fn snake(name: &str) -> String {
    if !name.chars().all(|letter| letter.is_ascii_alphanumeric())
        || !name.starts_with(|first: char| first.is_ascii_lowercase())
    {
        return name.to_owned();
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;

    use super::{decode, json as json_of, to_snake_case};

    fn read(bytes: &[u8]) -> Result<serde_json::Value, String> {
        let text = decode("page", bytes.to_vec()).and_then(|text| json_of("page", text));
        text.map(|text| serde_json::from_str(&text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn encodings_are_read() {
        let text = "{\"a\": \"é\"}";
        let expected = Ok(json!({"a": "é"}));
        let wide = |write: fn(u16) -> [u8; 2]| -> Vec<u8> {
            std::iter::once('\u{feff}').chain(text.chars()).flat_map(|letter| write(letter as u16)).collect()
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            wide(u16::to_le_bytes),
            wide(u16::to_be_bytes),
            gzip.finish().unwrap(),
        ] {
            assert_eq!(read(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn text_before_the_json_is_skipped() {
        for text in [
            "Defaulted container \"istio-proxy\" out of: istio-proxy\n{\"a\": 1}",
            "[2026-01-01 00:00:00] a log line\n{\n\"a\": 1}\n",
            "a: 1",
            "---\na: 1\nb:\n",
        ] {
            assert_eq!(read(text.as_bytes()), Ok(json!({"a": 1})), "{text}");
        }
    }

    #[test]
    fn other_files_are_named() {
        for (bytes, what) in [
            (&b""[..], "empty"),
            (b"<!DOCTYPE html>", "HTML"),
            (b"-----BEGIN CERTIFICATE-----", "PEM"),
            (b"NAME   TYPE   STATUS\na b c", "table"),
            (b"PK\x03\x04", "ZIP"),
            (b"{\0", "UTF-16 without a byte order mark"),
            (b"\xff\xff", "neither UTF-8 nor UTF-16"),
            (b"\x1f\x8b\x00", "gzip"),
            (b"hello", "found text that starts with `hello`"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.starts_with("page: ") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn names_are_turned_and_documents_are_not() {
        let mut value = json!({
            "filterChains": [{"typedConfig": {"@type": "a/google.protobuf.Struct", "trustDomain": "a"}}],
            "envoy.filters.http.rBAC": {"fooBar": 1}
        });
        to_snake_case(&mut value);
        let expected = json!({
            "filter_chains": [{"typed_config": {"@type": "a/google.protobuf.Struct", "trustDomain": "a"}}],
            "envoy.filters.http.rBAC": {"foo_bar": 1}
        });
        assert_eq!(value, expected);
    }
}
