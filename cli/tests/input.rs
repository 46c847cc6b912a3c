//! Input that the command does not understand, next to input that it does: every command fails.

use std::io::Write as _;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The outcome of a command.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs a command in a directory with these files, with this standard input.
fn run_with(arguments: &[&str], files: &[(&str, &[u8])], input: &[u8]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let file = directory.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"))
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command can end before it reads its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran { status: output.status.code(), out, err }
}

/// Runs a command in a directory with these files.
fn run(arguments: &[&str], files: &[(&str, &str)]) -> Ran {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    run_with(arguments, &files, b"")
}

/// A document without problems.
const GOOD: &str = "trustDomain: example.org\npolicies: []\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn every_member_of_a_gzip_file_is_read() {
    let members = [gzip(GOOD), gzip("polcies: []\n")].concat();
    let Ran { status, out, .. } = run_with(&["check", "a.yaml.gz"], &[("a.yaml.gz", &members)], b"");
    assert_eq!(status, Some(3), "{out}");
    assert!(out.starts_with("a.yaml.gz:3:1: /polcies: error: unknown-field: "), "{out}");
    let rest = [gzip(GOOD), b"polcies: []\n".to_vec()].concat();
    let Ran { status, err, .. } = run_with(&["check", "a.yaml.gz"], &[("a.yaml.gz", &rest)], b"");
    assert_eq!((status, &*err), (Some(1), "error: a.yaml.gz: gzip: invalid gzip header\n"));
}
