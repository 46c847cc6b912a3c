//! Reads the files that arguments name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use crate::envoy::page::decode_text;
use crate::gzip;
use crate::suggestion::similar;

/// Returns the name of a file in errors.
pub(crate) fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Returns an error with the name of the file before it.
pub(crate) fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", name(file)))
}

/// Reads a file; `-` is standard input.
///
/// # Errors
/// Returns an error that names the file, and a file of a similar name if it does not exist.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    read_bytes(file).map_err(|error| named(file, &error))
}

/// Reads a file; `-` is standard input. The error does not name the file.
fn read_bytes(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        return Ok(text);
    }
    fs::read(file).map_err(|error| with_hint(file, error))
}

/// Returns the error of a file, with a file of a similar name if it does not exist.
fn with_hint(file: &Path, error: io::Error) -> io::Error {
    match similar_file(file) {
        Some(similar) if error.kind() == io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), format!("{error} (did you mean `{similar}`?)"))
        }
        _ => error,
    }
}

/// Reads a text file in UTF-8 or UTF-16, which can be compressed with gzip; `-` is standard input. The error does not name
/// the file.
pub(crate) fn read_text(file: &Path) -> io::Result<String> {
    decode_text("file", read_bytes(file)?).map_err(|message| io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Opens a log, which can be compressed with gzip; `-` is standard input.
///
/// # Errors
/// Returns an error that names the file.
pub(crate) fn open_log(file: &Path) -> io::Result<Box<dyn BufRead>> {
    let open = || -> io::Result<Box<dyn Read>> {
        if file == Path::new("-") {
            return Ok(Box::new(io::stdin()));
        }
        let opened = File::open(file);
        Ok(Box::new(opened.map_err(|error| with_hint(file, error))?))
    };
    open().and_then(gzip::reader).map_err(|error| named(file, &error))
}

/// Returns the files that arguments name: for a directory, its YAML and JSON files in the order of their paths. Adds
/// each directory, and each link to a file, that cannot be read.
pub(crate) fn expand(files: &[PathBuf], unreadable: &mut Vec<(PathBuf, io::Error)>) -> Vec<PathBuf> {
    let mut expanded = Vec::new();
    for file in files {
        if file.is_dir() {
            let mut found = Vec::new();
            collect(file, &mut found, unreadable);
            found.sort();
            expanded.extend(found);
        } else {
            expanded.push(file.clone());
        }
    }
    expanded
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>, unreadable: &mut Vec<(PathBuf, io::Error)>) {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            unreadable.push((directory.to_owned(), error));
            return;
        }
    };
    for entry in entries {
        let path = entry.path();
        // Directories that tools hide, such as `.git`, have no input. A link to a directory could lead to itself.
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_configuration = || {
            let extension = path.extension().and_then(OsStr::to_str);
            extension.is_some_and(|extension| ["yaml", "yml", "json"].contains(&extension))
        };
        if is_directory && !is_hidden {
            collect(&path, found, unreadable);
        } else if is_configuration() {
            match fs::metadata(&path) {
                Ok(kind) if kind.is_file() => found.push(path),
                Ok(_) => {}
                // The link leads nowhere.
                Err(error) => unreadable.push((path, error)),
            }
        }
    }
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
