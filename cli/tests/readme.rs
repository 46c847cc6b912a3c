//! The examples of the command in README.md and docs/ print what the pages show, and links have targets.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMMAND: &str = include_str!("../../docs/reference/command.md");
const POLICIES: &str = include_str!("../../docs/policies.md");

/// The pages with examples of the command, and the number of examples in each.
const PAGES: [(&str, &str, usize); 6] = [
    ("README.md", include_str!("../../README.md"), 1),
    ("docs/get-started.md", include_str!("../../docs/get-started.md"), 2),
    ("docs/deploy.md", include_str!("../../docs/deploy.md"), 1),
    ("docs/policies.md", POLICIES, 8),
    ("docs/review.md", include_str!("../../docs/review.md"), 5),
    ("docs/reference/command.md", COMMAND, 1),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a line in a shell at the root of the repository. Returns whether it succeeds, and what a terminal would show of
/// it, without colors.
fn run(line: &str) -> (bool, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let path = format!("{}:{}", program.parent().expect("a directory").display(), env!("PATH"));
    let output = Command::new("bash")
        .args(["-c", &format!("{{ {line}; }} 2>&1")])
        .current_dir(root())
        .env("PATH", path)
        .output()
        .expect("bash");
    (output.status.success(), String::from_utf8(output.stdout).expect("text"))
}

fn shown_by(line: &str) -> String {
    run(line).1
}

/// Returns the lines of console blocks that start with the command, each with the output that follows it.
fn examples(page: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let examples = blocks.flat_map(|block| block.split("$ ").skip(1));
    examples
        .filter(|example| example.starts_with("spiffe-authz "))
        .map(|example| example.split_once('\n').expect("a line"))
}

#[test]
fn examples_print_what_is_shown() {
    for (name, page, expected_count) in PAGES {
        for (line, expected) in examples(page) {
            // A file that an example writes stays out of the tree.
            let line = &line.replace("> document.json", "> /dev/null");
            let (succeeds, shown) = run(line);
            // An example can show the beginning of the output, or none of it.
            match expected.trim_end().strip_suffix('…') {
                None if expected.trim_end().is_empty() && !line.contains('>') => {
                    assert!(succeeds, "{name}: {line}\n{shown}");
                }
                Some(beginning) => assert!(shown.starts_with(beginning.trim_end()), "{name}: {line}\n{shown}"),
                None => assert_eq!(shown.trim_end(), expected.trim_end(), "{name}: {line}"),
            }
        }
        assert_eq!(examples(page).count(), expected_count, "{name}");
    }
}

#[test]
fn the_readme_shows_the_log_line_that_it_explains() {
    let (_, readme, _) = PAGES[0];
    let line = fs::read_to_string(root().join("examples/policy/denied.log")).expect("a log");
    assert!(readme.contains(&format!("```json\n{line}```\n")), "{line}");
}

#[test]
fn the_document_on_the_page_is_accepted() {
    let (_, section) = POLICIES.split_once("\n## Write a document\n").expect("a heading");
    let document = section.split("```").nth(1).and_then(|block| block.strip_prefix("yaml\n")).expect("a YAML block");
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), document).expect("a file");
    let (succeeds, shown) = run(&format!("spiffe-authz check {}", file.path().display()));
    assert!(succeeds, "{shown}");
}

#[test]
fn every_subcommand_has_a_row() {
    let table = COMMAND.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> = table.filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect();
    let help = shown_by("spiffe-authz --help");
    let (_, commands) = help.split_once("\nCommands:\n").expect("a list");
    let known = commands.lines().take_while(|line| line.starts_with("  "));
    let known = known.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    assert_eq!(documented, known.map(str::to_owned).collect());
}

/// Returns the tracked Markdown files, by their path in the repository.
fn pages() -> Vec<PathBuf> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name();
            if entry.path().is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                collect(&entry.path(), found);
            } else if entry.path().extension().is_some_and(|extension| extension == "md") {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found
}

/// Returns the lines of a page outside code blocks.
fn text(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Returns the anchors of the headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = text(page).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_to_a_file_has_its_target() {
    let mut links = 0;
    for file in pages() {
        let page = fs::read_to_string(&file).expect("text");
        let lines = text(&page).collect::<Vec<_>>().join("\n");
        for link in lines.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { file.clone() } else { file.parent().expect("a folder").join(path) };
            assert!(target.exists(), "{}: {link}", file.display());
            if let Some(anchor) = anchor {
                let known = anchors(&fs::read_to_string(&target).expect("text"));
                assert!(known.contains(anchor), "{}: {link}", file.display());
            }
            links += 1;
        }
    }
    assert!(links > 200, "{links}");
}
