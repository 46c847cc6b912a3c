//! `spiffe-authz completions` and `spiffe-authz man`: every subcommand and option, in each shell, in a bash that completes a line,
//! and in the manual pages.

use std::collections::BTreeSet;
use std::process::Command;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// Returns the standard output of a run that must succeed.
fn command(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_subcommand_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    command(&["man", directory.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap().replace('\\', "");
    assert!(page("spiffe-authz.1").contains("spiffe-authz-check(1)"));
    for subcommand in subcommands() {
        let page = page(&format!("spiffe-authz-{subcommand}.1"));
        for option in options(&subcommand) {
            assert!(page.contains(&option), "{subcommand}: {option}");
        }
    }
}

#[test]
fn a_heading_of_options_has_no_others() {
    let mut checked = 0;
    for subcommand in subcommands() {
        let help = command(&[&subcommand, "--help"]);
        let Some((_, section)) = help.split_once("\nOptions for the workload") else { continue };
        let section = section.split("\n\nOptions").next().unwrap().split("\n\nExamples").next().unwrap();
        let options: Vec<&str> = section
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.trim_end_matches(','))
            .collect();
        assert_eq!(options, ["--namespace", "--label", "--target-ref"], "{subcommand}");
        checked += 1;
    }
    assert!(checked >= 6, "{checked}");
}

/// The names of the subcommands in `--help`.
fn subcommands() -> Vec<String> {
    let help = command(&["--help"]);
    let commands = help.split_once("\nCommands:\n").unwrap().1.lines().take_while(|line| line.starts_with("  "));
    let names: Vec<String> = commands
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .filter(|name| name != "help")
        .collect();
    assert!(names.len() >= 11, "{names:?}");
    names
}

/// The long options of a subcommand in `--help`.
fn options(subcommand: &str) -> BTreeSet<String> {
    let help = command(&[subcommand, "--help"]);
    let options = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let is_option = line.starts_with("--") || (line.starts_with('-') && line.contains(", --"));
        let start = is_option.then(|| line.find("--"))??;
        let end = line[start + 2..].find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        Some(line[start..end.map_or(line.len(), |end| start + 2 + end)].to_owned())
    });
    options.collect()
}

#[test]
fn each_shell_gets_every_subcommand_and_option() {
    let subcommands = subcommands();
    for shell in SHELLS {
        let script = command(&["completions", shell]);
        for subcommand in &subcommands {
            assert!(script.contains(subcommand.as_str()), "{shell}: {subcommand}");
            let options = options(subcommand);
            assert!(options.contains("--help"), "{subcommand}: {options:?}");
            for option in options {
                // fish writes the name without the dashes.
                let name = if shell == "fish" { format!("-l {}", &option[2..]) } else { option };
                assert!(script.contains(&name), "{shell}: {subcommand} {name}");
            }
        }
    }
}

/// Returns what bash completes at the end of this line.
fn completed(line: &[&str]) -> BTreeSet<String> {
    let words = line.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let script = format!(
        "eval \"$(\"$1\" completions bash)\"; COMP_WORDS=({words}); COMP_CWORD={last}; \
         function=$(complete -p spiffe-authz | grep -o -- '-F [^ ]*'); \
         ${{function#-F }} spiffe-authz '{current}' '{previous}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        last = line.len() - 1,
        current = line[line.len() - 1],
        previous = line[line.len() - 2],
    );
    let output =
        Command::new("bash").args(["-c", &script, "bash", env!("CARGO_BIN_EXE_spiffe-authz")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_subcommands_options_and_values() {
    let found = completed(&["spiffe-authz", ""]);
    assert!(subcommands().iter().all(|name| found.contains(name)), "{found:?}");
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(completed(&["spiffe-authz", "ex"]), set(&["explain"]));
    assert_eq!(completed(&["spiffe-authz", "check", "--fo"]), set(&["--format"]));
    assert_eq!(
        completed(&["spiffe-authz", "check", "--format", ""]),
        set(&["human", "json", "sarif", "github", "gitlab"])
    );
    for subcommand in subcommands() {
        let found = completed(&["spiffe-authz", &subcommand, "--"]);
        assert!(options(&subcommand).is_subset(&found), "{subcommand}: {found:?}");
    }
}

#[test]
fn other_shells_are_rejected() {
    let output = Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).args(["completions", "csh"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true));
    assert!(SHELLS.iter().all(|shell| message.contains(shell)), "{message}");
}
