//! The results of tables, in each output format.

use std::io::{self, Write};

use serde_json::json;

use super::Results;
use crate::printable::{self, Printable, is_hostile, say, styled};
use crate::style::{BAD, GOOD, NOTABLE};

pub(super) fn write_human(out: &mut impl Write, tables: &[Results<'_>], coverage: bool) -> io::Result<()> {
    let (mut passed, mut failed) = (0, 0);
    for table in tables {
        for case in &table.cases {
            if case.differences.is_empty() {
                passed += 1;
                say!(out, "{}: {}: {}", table.file.display(), case.name, styled(GOOD, "ok"))?;
            } else {
                failed += 1;
                say!(out, "{}: {}: {}", table.file.display(), case.name, styled(BAD, "failed"))?;
                case.differences.iter().try_for_each(|difference| say!(out, "  {}", difference))?;
            }
        }
        if coverage {
            let percent = table.coverage.percent();
            say!(out, "{}: cases match {}% of the rules", table.file.display(), percent)?;
            for (policy, rule) in table.coverage.missing() {
                say!(out, "  {} {}, rule {}", styled(NOTABLE, "not matched:"), policy, rule)?;
            }
        }
    }
    say!(out, "{} passed, {} failed", passed, failed)
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
        printable::write_json(out, &answer)?;
    }
    Ok(())
}

pub(super) fn write_junit(out: &mut impl Write, tables: &[Results<'_>]) -> io::Result<()> {
    say!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    say!(out, "<testsuites>")?;
    for table in tables {
        let failures = table.cases.iter().filter(|case| !case.differences.is_empty()).count();
        let file = escaped(&table.file.to_string_lossy());
        let count = table.cases.len();
        say!(out, r#"  <testsuite name="{}" tests="{}" failures="{}">"#, file, count, failures)?;
        for case in &table.cases {
            let name = escaped(&case.name);
            if case.differences.is_empty() {
                say!(out, r#"    <testcase classname="{}" name="{}"/>"#, file, name)?;
            } else {
                let message = escaped(&case.differences.join("; "));
                say!(
                    out,
                    r#"    <testcase classname="{}" name="{}"><failure message="{}"/></testcase>"#,
                    file,
                    name,
                    message
                )?;
            }
        }
        say!(out, "  </testsuite>")?;
    }
    say!(out, "</testsuites>")
}

/// Escapes a string for an XML attribute. Control characters, and the two others that XML 1.0 section 2.2 excludes, become
/// U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character if is_hostile(character) => escaped.push_str(&format!("&#x{:x};", u32::from(character))),
            character => escaped.push(character),
        }
    }
    escaped
}

pub(super) fn write_tap(out: &mut impl Write, tables: &[Results<'_>]) -> io::Result<()> {
    say!(out, "TAP version 14")?;
    let cases = tables.iter().flat_map(|table| table.cases.iter().map(move |case| (table.file, case)));
    say!(out, "1..{}", cases.clone().count())?;
    for (number, (file, case)) in (1..).zip(cases) {
        let state = if case.differences.is_empty() { "ok" } else { "not ok" };
        let name = format!("{}: {}", Printable(file.display()), Printable(&case.name));
        say!(out, "{} {} - {}", state, number, name.replace('\\', "\\\\").replace('#', "\\#"))?;
        case.differences.iter().try_for_each(|difference| say!(out, "# {}", difference))?;
    }
    Ok(())
}
