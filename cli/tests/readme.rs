//! What README.md says of the command is what the command does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const README: &str = include_str!("../../README.md");

fn section() -> &'static str {
    let (_, rest) = README.split_once("\n## The command\n").expect("a heading");
    rest.split("\n## ").next().expect("a section")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a line of a shell at the root of the repository; what a terminal would show of it, without colours.
fn shown_by(line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let path = format!("{}:{}", program.parent().expect("a directory").display(), env!("PATH"));
    let output = Command::new("bash")
        .args(["-c", &format!("{{ {line}; }} 2>&1")])
        .current_dir(root())
        .env("PATH", path)
        .output()
        .expect("bash");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn examples_print_what_is_shown() {
    let mut examples = 0;
    for block in section().split("```console\n").skip(1) {
        let block = block.split("```").next().expect("a block");
        for example in block.split("$ ").skip(1) {
            let (line, expected) = example.split_once('\n').expect("a line");
            // What goes to a file stays out of the tree.
            let line = &line.replace("> document.json", "> /dev/null");
            // An example may show the beginning only.
            let shown = shown_by(line);
            match expected.trim_end().strip_suffix('…') {
                Some(beginning) => assert!(shown.starts_with(beginning.trim_end()), "{line}\n{shown}"),
                None => assert_eq!(shown.trim_end(), expected.trim_end(), "{line}"),
            }
            examples += 1;
        }
    }
    assert!(examples >= 6, "{examples}");
}

#[test]
fn every_subcommand_has_a_row() {
    let table = section().lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> = table.filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect();
    let help = shown_by("spiffe-authz --help");
    let (_, commands) = help.split_once("\nCommands:\n").expect("a list");
    let known = commands.lines().take_while(|line| line.starts_with("  "));
    let known = known.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    assert_eq!(documented, known.map(str::to_owned).collect());
}
