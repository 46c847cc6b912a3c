//! The results of tables, in each notation.

use std::io::{self, Write};

use serde_json::json;

use super::Results;
use crate::style::{BAD, GOOD, NOTABLE, styled};

pub(super) fn write_human(out: &mut impl Write, tables: &[Results<'_>], coverage: bool) -> io::Result<()> {
    let (mut passed, mut failed) = (0, 0);
    for table in tables {
        for case in &table.cases {
            if case.differences.is_empty() {
                passed += 1;
                writeln!(out, "{}: {}: {}", table.file.display(), case.name, styled(GOOD, "ok"))?;
            } else {
                failed += 1;
                writeln!(out, "{}: {}: {}", table.file.display(), case.name, styled(BAD, "failed"))?;
                case.differences.iter().try_for_each(|difference| writeln!(out, "  {difference}"))?;
            }
        }
        if coverage {
            writeln!(
                out,
                "{}: {} % of the rules are matched by a case",
                table.file.display(),
                table.coverage.percent()
            )?;
            for (policy, rule) in table.coverage.missing() {
                writeln!(out, "  {} {policy}, rule {rule}", styled(NOTABLE, "not matched:"))?;
            }
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")
}

pub(super) fn write_json(out: &mut impl Write, tables: &[Results<'_>], coverage: bool) -> io::Result<()> {
    for table in tables {
        let cases: Vec<_> = table
            .cases
            .iter()
            .map(|case| json!({"name": case.name, "passed": case.differences.is_empty(), "differences": case.differences}))
            .collect();
        let mut answer = json!({"file": table.file.to_string_lossy(), "cases": cases});
        if coverage {
            let missing: Vec<_> =
                table.coverage.missing().map(|(policy, rule)| json!({"policy": policy, "rule": rule})).collect();
            answer["coverage"] = json!({"percent": table.coverage.percent(), "notMatched": missing});
        }
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

pub(super) fn write_junit(out: &mut impl Write, tables: &[Results<'_>]) -> io::Result<()> {
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, "<testsuites>")?;
    for table in tables {
        let failures = table.cases.iter().filter(|case| !case.differences.is_empty()).count();
        let file = escaped(&table.file.to_string_lossy());
        writeln!(out, r#"  <testsuite name="{file}" tests="{}" failures="{failures}">"#, table.cases.len())?;
        for case in &table.cases {
            let name = escaped(&case.name);
            if case.differences.is_empty() {
                writeln!(out, r#"    <testcase classname="{file}" name="{name}"/>"#)?;
            } else {
                let message = escaped(&case.differences.join("; "));
                writeln!(
                    out,
                    r#"    <testcase classname="{file}" name="{name}"><failure message="{message}"/></testcase>"#
                )?;
            }
        }
        writeln!(out, "  </testsuite>")?;
    }
    writeln!(out, "</testsuites>")
}

/// Text within XML; characters that XML 1.0 section 2.2 does not have are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

pub(super) fn write_tap(out: &mut impl Write, tables: &[Results<'_>]) -> io::Result<()> {
    writeln!(out, "TAP version 14")?;
    let cases = tables.iter().flat_map(|table| table.cases.iter().map(move |case| (table.file, case)));
    writeln!(out, "1..{}", cases.clone().count())?;
    for (number, (file, case)) in (1..).zip(cases) {
        let state = if case.differences.is_empty() { "ok" } else { "not ok" };
        let name =
            format!("{}: {}", file.display(), case.name).replace('\\', "\\\\").replace('#', "\\#").replace('\n', " ");
        writeln!(out, "{state} {number} - {name}")?;
        case.differences.iter().try_for_each(|difference| writeln!(out, "# {}", difference.escape_debug()))?;
    }
    Ok(())
}
