//! The inputs that fuzzing begins with: the tables of `tests/corpus` in the form that each target reads, and the files of
//! `fuzz/seeds`.

use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Returns the seeds of a target, which is `spiffe_id`, `certificate`, `xfcc`, `metadata`, `document` or `decide`.
///
/// # Errors
/// Returns an error if a table cannot be read.
pub fn seeds(target: &str) -> Result<Vec<Vec<u8>>> {
    let mut seeds = files(&directory().join("seeds").join(target))?;
    for table in tables()? {
        let configuration = &table["configuration"];
        let requests = || table["cases"].as_array().into_iter().flatten().map(|case| &case["request"]);
        match target {
            "spiffe_id" => seeds.extend(requests().filter_map(|request| Some(bytes(request["peer"].as_str()?)))),
            "xfcc" => seeds.extend(requests().filter_map(|request| header(&request["headers"]))),
            "metadata" => seeds.extend(requests().filter_map(metadata)),
            "document" => seeds.push(bytes(&configuration.to_string())),
            "decide" => seeds.extend(requests().map(|request| bytes(&format!("{configuration}\0{request}")))),
            _ => {}
        }
    }
    seeds.sort();
    seeds.dedup();
    Ok(seeds)
}

/// Returns the inputs that fuzzing has found for a target.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub fn found(target: &str) -> Result<Vec<Vec<u8>>> {
    files(&directory().join("found").join(target))
}

fn directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Returns the contents of a folder. A missing folder is empty.
fn files(folder: &Path) -> Result<Vec<Vec<u8>>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

fn tables() -> Result<Vec<Value>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory().join("../tests/corpus"))? {
        paths.push(entry?.path());
    }
    paths.sort();
    let json = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| Ok(serde_json::from_str(&fs::read_to_string(path)?)?)).collect()
}

fn header(headers: &Value) -> Option<Vec<u8>> {
    let headers = headers.as_object()?;
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-client-cert"))?;
    let lines: Vec<&str> = match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        line => line.as_str().into_iter().collect(),
    };
    Some(bytes(&lines.join("\n")))
}

/// The dynamic metadata of a request, as Envoy serializes it.
fn metadata(request: &Value) -> Option<Vec<u8>> {
    let mut filters = request["metadata"].as_object().cloned().unwrap_or_default();
    if let Some(claims) = request.get("claims") {
        filters.insert("envoy.filters.http.jwt_authn".to_owned(), serde_json::json!({"payload": claims}));
    }
    (!filters.is_empty()).then(|| filters.iter().flat_map(|(name, value)| entry(name, &fields(value))).collect())
}

/// google.protobuf.Struct: field 1 is a map.
fn fields(value: &Value) -> Vec<u8> {
    let entries = value.as_object().into_iter().flatten();
    entries.flat_map(|(name, value)| entry(name, &message(value))).collect()
}

/// google.protobuf.Value.
fn message(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![0x08, 0],
        Value::Number(number) => [vec![0x11], number.as_f64().unwrap_or(0.0).to_le_bytes().to_vec()].concat(),
        Value::String(text) => delimited(3, text.as_bytes()),
        Value::Bool(value) => vec![0x20, u8::from(*value)],
        Value::Object(_) => delimited(5, &fields(value)),
        Value::Array(items) => {
            delimited(6, &items.iter().flat_map(|item| delimited(1, &message(item))).collect::<Vec<_>>())
        }
    }
}

/// An entry of a map, which is field 1 of its message.
fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    delimited(1, &[delimited(1, name.as_bytes()), delimited(2, value)].concat())
}

/// A field of wire type 2.
fn delimited(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap_or_default());
    field.extend(content);
    field
}
