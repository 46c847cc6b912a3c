//! The benchmark of the core alone: `bench/core`, measured by criterion, as a table.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{process, workspace};

/// The target for a decision with 10,000 policies, unless its growth meets the other target.
const MAX_DECISION_NANOSECONDS: f64 = 300.0;
/// The target for the growth of a decision from 10 to 10,000 policies.
const MAX_GROWTH: f64 = 1.1;
const FEW: &str = "10";
const MANY: &str = "10000";

/// Runs the benchmark and prints the table.
pub(crate) fn run() -> Result<()> {
    let measured = workspace::target().join("criterion");
    // Groups of an earlier version would be reported, too.
    if measured.exists() {
        fs::remove_dir_all(&measured)?;
    }
    process::run(&mut process::cargo(&["bench", "--quiet", "--locked", "--package", "spiffe-authz-core-bench"]))?;
    println!("\n| Nanoseconds by number of policies | 10 | 1,000 | 10,000 | target |\n|---|---|---|---|---|");
    let mut groups: Vec<String> = Vec::new();
    for entry in fs::read_dir(&measured)? {
        groups.push(entry?.file_name().to_string_lossy().into_owned());
    }
    groups.sort_unstable();
    for group in groups.iter().filter(|group| group.starts_with("decide") || *group == "compile") {
        let [few, some, many] = [FEW, "1000", MANY].map(|count| nanoseconds(&measured, group, count));
        let (few, some, many) = (few?, some?, many?);
        let target = match group.starts_with("decide") {
            true if many <= MAX_DECISION_NANOSECONDS || many / few <= MAX_GROWTH => "met",
            true => "missed",
            false => "",
        };
        println!("| {group} | {few:.0} | {some:.0} | {many:.0} | {target} |");
    }
    Ok(())
}

/// Reads the median that criterion has written.
fn nanoseconds(measured: &Path, group: &str, count: &str) -> Result<f64> {
    let file = measured.join(group).join(count).join("new/estimates.json");
    let text = fs::read_to_string(&file).with_context(|| format!("{}: cannot read the file", file.display()))?;
    let estimates: Value = serde_json::from_str(&text)?;
    estimates["median"]["point_estimate"].as_f64().context("criterion wrote no median")
}
