//! The matrix as comma-separated values (RFC 4180), one row for each permission.

use std::io::{self, Write};

use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{Condition, Permission};

use super::kinds;
use super::workloads::{Entry, Workload};
use crate::answer;
use crate::printable::{Printable, say};

const COLUMNS: [&str; 17] = [
    "workload",
    "file",
    "namespace",
    "labels",
    "result",
    "callers",
    "trust domain",
    "every caller",
    "method",
    "path",
    "host",
    "port",
    "other conditions",
    "policy",
    "rule",
    "example",
    "notes",
];

/// The attributes with a column.
const OWN_COLUMNS: [&str; 4] = ["method", "path", "host", "port"];

pub(super) fn write(out: &mut impl Write, entries: &[Entry], layer: Layer) -> io::Result<()> {
    write_row(out, COLUMNS.map(str::to_owned))?;
    for entry in entries {
        let notes = entry.notes().join("; ");
        match entry.permissions() {
            Some(permissions) if !permissions.is_empty() => {
                permissions.iter().try_for_each(|permission| {
                    write_row(out, row(&entry.workload, "allow", &notes, Some(permission), layer))
                })?;
            }
            Some(_) => write_row(out, row(&entry.workload, "no caller", &notes, None, layer))?,
            None => write_row(out, row(&entry.workload, "not decided", &notes, None, layer))?,
        }
    }
    Ok(())
}

fn row(
    workload: &Workload,
    result: &str,
    notes: &str,
    permission: Option<&Permission>,
    layer: Layer,
) -> [String; COLUMNS.len()] {
    let labels: Vec<String> = workload.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let conditions = permission.map_or(&[][..], |permission| &permission.requests.conditions);
    let values = |Condition { values, is_opaque, .. }: &Condition| {
        format!("{}{}", answer::patterns(values), if *is_opaque { " (written by another filter)" } else { "" })
    };
    let of =
        |name: &str| conditions.iter().find(|condition| condition.attribute == name).map(values).unwrap_or_default();
    let others = conditions.iter().filter(|condition| !OWN_COLUMNS.contains(&&*condition.attribute));
    let others: Vec<String> =
        others.map(|condition| format!("{} {}", condition.attribute, values(condition))).collect();
    let of_permission = |text: &dyn Fn(&Permission) -> String| permission.map(text).unwrap_or_default();
    let rule = permission.and_then(|permission| permission.rule.as_ref());
    [
        workload.name(),
        workload.file.clone().unwrap_or_default(),
        workload.namespace.clone().unwrap_or_default(),
        labels.join(", "),
        result.to_owned(),
        of_permission(&|permission| answer::patterns(&permission.requests.callers)),
        of_permission(&kinds),
        of_permission(&|permission| if permission.has_every_caller { "yes" } else { "no" }.to_owned()),
        of("method"),
        of("path"),
        of("host"),
        of("port"),
        others.join(", "),
        rule.map(|(policy, _)| policy.clone()).unwrap_or_default(),
        rule.map(|(_, rule)| rule.to_string()).unwrap_or_default(),
        of_permission(&|permission| answer::request(&permission.witness, layer)),
        notes.to_owned(),
    ]
}

fn write_row(out: &mut impl Write, cells: [String; COLUMNS.len()]) -> io::Result<()> {
    let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
    say!(out, "{}\r", cells.join(","))
}

/// Returns a cell in quotes. A spreadsheet takes a cell for a formula if it begins with one of these characters, also after
/// quotes and spaces.
fn quoted(cell: &str) -> String {
    let cell = Printable(cell).to_string();
    let is_formula = cell.trim_start().starts_with(['=', '+', '-', '@', '|', '%']);
    format!("\"{}{}\"", if is_formula { "'" } else { "" }, cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn no_cell_is_a_formula_and_quotes_are_doubled() {
        for (cell, expected) in [
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1", "\"' =1\""),
            ("\t=1", "\"\\t=1\""),
            ("\r\n=1", "\"\\r\\n=1\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }
}
