//! The benchmark of the core alone: `bench/core`, measured by criterion, as a table.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{process, workspace};

/// The target for a decision with 10,000 policies.
const MAX_DECISION_NANOSECONDS: f64 = 200.0;
/// The target for its growth since 10 policies.
const MAX_GROWTH: f64 = 1.1;
const FEW: &str = "10";
const MANY: &str = "10000";

/// Runs the benchmark and prints the table.
pub(crate) fn run() -> Result<()> {
    process::run(&mut process::cargo(&["bench", "--quiet", "--locked", "--package", "spiffe-authz-core-bench"]))?;
    let measured = workspace::target().join("criterion");
    println!("\n| Nanoseconds by number of policies | 10 | 1,000 | 10,000 |\n|---|---|---|---|");
    for group in ["decide, no policy matches", "decide, all name the caller", "compile"] {
        let [few, some, many] = [FEW, "1000", MANY].map(|count| nanoseconds(&measured, group, count));
        let (few, some, many) = (few?, some?, many?);
        println!("| {group} | {few:.0} | {some:.0} | {many:.0} |");
        if group.starts_with("decide") {
            let growth = many / few;
            let met = |met| if met { "met" } else { "missed" };
            eprintln!(
                "{group}: at most {MAX_DECISION_NANOSECONDS} ns: {}; at most {MAX_GROWTH} times the cost of 10 policies: {} ({growth:.2})",
                met(many <= MAX_DECISION_NANOSECONDS),
                met(growth <= MAX_GROWTH)
            );
        }
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
