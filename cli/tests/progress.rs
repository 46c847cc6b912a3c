//! The progress of a command that takes long, on a terminal of `script`.

use std::fs;
use std::process::Command;

const LINE: &str =
    r#"{"verdict":"allow","peer":"spiffe://example.org/ns/default/sa/sleep","method":"GET","path":"/a"}"#;
const DOCUMENT: &str = r#"{"trustDomain":"example.org","policies":[]}"#;

/// Runs a command of a shell whose standard output and standard error are a terminal. Returns its output.
fn on_terminal(command: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policy.json"), DOCUMENT).unwrap();
    fs::write(directory.path().join("access.log"), format!("{LINE}\n{LINE}\n")).unwrap();
    let command = command.replace("spiffe-authz", env!("CARGO_BIN_EXE_spiffe-authz"));
    let mut script = Command::new("script");
    let output =
        script.current_dir(directory.path()).args(["--quiet", "--return", "--command", &command, "/dev/null"]).output();
    String::from_utf8(output.expect("script of util-linux").stdout).unwrap()
}

#[test]
fn a_slow_command_shows_its_progress_and_removes_it() {
    let replay = "spiffe-authz replay --policy policy.json -";
    let shown = on_terminal(&format!("(cat access.log; sleep 4; cat access.log) | {replay}"));
    let progress = "\r\u{1b}[Kworking: 2 lines, ";
    assert!(shown.contains(progress), "{shown:?}");
    let (_, last) = shown.rsplit_once("working: ").unwrap();
    let (_, output) = last.split_once("\r\u{1b}[K").expect("the progress is not removed");
    assert!(output.contains("4 requests"), "{shown:?}");
}

#[test]
fn a_fast_command_shows_none() {
    let shown = on_terminal("spiffe-authz replay --policy policy.json access.log");
    assert!(shown.contains("2 requests") && !shown.contains("working"), "{shown:?}");
}
