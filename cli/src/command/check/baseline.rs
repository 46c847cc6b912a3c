//! The baseline: findings that people have accepted, so that only new ones are reported.
//!
//! A finding is recognized by its file, its lint, its policy and its message without places, so that it stays accepted
//! when lines or policies move. Each entry accepts one finding.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::settings::read_file;
use super::{Checked, Problem};
use crate::input;
use crate::printable::write_pretty_json;

/// The accepted findings, with their number.
#[derive(Default)]
pub(super) struct Baseline(BTreeMap<Accepted, usize>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaselineFile {
    accepted: Vec<Accepted>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    file: String,
    lint: String,
    /// The name of the policy, unless the finding is about the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    message: String,
}

impl Accepted {
    fn of(file: &Path, problem: &Problem) -> Self {
        Self {
            file: file.to_string_lossy().into_owned(),
            lint: problem.code.to_owned(),
            policy: problem.policy.clone(),
            message: problem
                .message
                .split(' ')
                .filter(|word| !word.starts_with("/policies/"))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

impl Baseline {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns the errors in the file.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let BaselineFile { accepted } = read_file(file)?;
        let mut baseline = Self::default();
        accepted.into_iter().for_each(|accepted| *baseline.0.entry(accepted).or_default() += 1);
        Ok(baseline)
    }

    /// Removes the accepted findings. Returns the number of entries that accepted none.
    pub(super) fn remove_accepted(mut self, checked: &mut [Checked]) -> usize {
        for Checked { file, problems, .. } in checked {
            problems.retain(|problem| {
                let left = self.0.get_mut(&Accepted::of(file, problem)).filter(|left| !problem.is_error && **left > 0);
                left.map(|left| *left -= 1).is_none()
            });
        }
        self.0.values().sum()
    }

    /// Replaces a file with one that accepts all findings.
    ///
    /// # Errors
    /// Returns an error that names the file.
    pub(super) fn write(file: &Path, checked: &[Checked]) -> io::Result<usize> {
        let findings = |Checked { file, problems, .. }: &Checked| -> Vec<Accepted> {
            problems.iter().filter(|problem| !problem.is_error).map(|problem| Accepted::of(file, problem)).collect()
        };
        let mut accepted: Vec<Accepted> = checked.iter().flat_map(findings).collect();
        accepted.sort_unstable();
        let count = accepted.len();
        let mut text = Vec::new();
        write_pretty_json(&mut text, &serde_json::json!(BaselineFile { accepted }))?;
        fs::write(file, text).map_err(|error| input::named(file, &error))?;
        Ok(count)
    }
}
