//! Reads the files that arguments name.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use crate::suggestion::similar;

/// Reads a file; `-` is standard input.
///
/// # Errors
/// Returns an error that names the file, and a file of a similar name if it does not exist.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        return Ok(text);
    }
    fs::read(file).map_err(|error| {
        let hint = match similar_file(file) {
            Some(similar) if error.kind() == io::ErrorKind::NotFound => format!(" (did you mean `{similar}`?)"),
            _ => String::new(),
        };
        io::Error::new(error.kind(), format!("{}: {error}{hint}", file.display()))
    })
}

/// Returns the name of a file in the same directory that is similar.
fn similar_file(file: &Path) -> Option<String> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(directory).ok()?.flatten();
    let files = entries.filter(|entry| entry.path().is_file()).filter_map(|entry| entry.file_name().into_string().ok());
    let files: Vec<String> = files.collect();
    let name = file.file_name().and_then(OsStr::to_str)?;
    let closest = similar(name, files.iter().map(String::as_str))?;
    Some(file.with_file_name(closest).display().to_string())
}
