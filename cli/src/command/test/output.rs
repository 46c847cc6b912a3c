//! The results of tables, in each output format.

use std::io::{self, Write};

use serde_json::json;
use spiffe_authz::policy::Layer;

use super::{Arguments, CaseResult, Details, Results};
use crate::decision::request_json;
use crate::exit::errors_in_words;
use crate::located::place;
use crate::printable::{self, Printable, say, styled};
use crate::style::{BAD, GOOD, NOTABLE};
use crate::xml::{escaped, write_line};

/// Returns the message about a coverage that is too low.
fn insufficient(percent: u32, threshold: Option<u8>) -> String {
    format!("coverage {percent} % is below {} %", threshold.unwrap_or_default())
}

/// Returns the lines that describe a case after its differences.
fn details(Details { request, layer, decision, .. }: &Details) -> [String; 2] {
    let caller = request.peer.as_deref().unwrap_or("a caller without an identity");
    let what = match layer {
        Layer::Http => format!("{} {}", request.method, request.path),
        Layer::Tcp => "a connection".to_owned(),
    };
    [format!("request   {what} from {caller}"), format!("decision  {decision}")]
}

pub(super) fn write_human(out: &mut impl Write, tables: &[Results], arguments: &Arguments) -> io::Result<()> {
    let threshold = arguments.coverage_threshold;
    let (mut passed, mut failed) = (0, 0);
    for table in tables {
        let file = table.file.display();
        for CaseResult { name, position, differences, details: shown } in &table.cases {
            if differences.is_empty() {
                passed += 1;
                if !arguments.quiet {
                    say!(out, "{}: {}: {}", file, name, styled(GOOD, "ok"))?;
                }
            } else {
                failed += 1;
                say!(out, "{}: {}: {}", place(&file, Some(*position)), name, styled(BAD, "failed"))?;
                differences.iter().try_for_each(|difference| say!(out, "  {}", difference))?;
            }
            shown.iter().flat_map(details).try_for_each(|line| say!(out, "  {}", line))?;
        }
        if arguments.verbose {
            say!(out, "{}: {} s", file, format!("{:.3}", table.seconds))?;
        }
        if let Some(coverage) = &table.coverage {
            say!(out, "{}: cases match {}% of the rules", file, coverage.percent())?;
            for (policy, rule) in coverage.missing() {
                say!(out, "  {} {}, rule {}", styled(NOTABLE, "not matched:"), policy, rule)?;
            }
        }
        if let Some(percent) = table.insufficient(threshold) {
            say!(out, "{}: {}: {}", file, styled(BAD, "failed"), insufficient(percent, threshold))?;
        }
    }
    let errors = tables.iter().filter(|table| table.error.is_some()).count();
    let errors = if errors == 0 { String::new() } else { format!(", {} in tables", errors_in_words(errors)) };
    let low = tables.iter().filter(|table| table.insufficient(threshold).is_some()).count();
    let low = if low == 0 { String::new() } else { ", coverage too low".to_owned() };
    say!(out, "{} passed, {} failed{}{}", passed, failed, low, errors)
}

pub(super) fn write_json(out: &mut impl Write, tables: &[Results], threshold: Option<u8>) -> io::Result<()> {
    for table in tables {
        let cases: Vec<_> = table
            .cases
            .iter()
            .map(|result| {
                let CaseResult { name, position, differences, .. } = result;
                let mut case = json!({
                    "name": name, "passed": differences.is_empty(), "differences": differences, "line": position.line,
                    "column": position.column,
                });
                if let Some(Details { request, layer, json, .. }) = result.failure() {
                    case["request"] = request_json(request, *layer);
                    case["decision"] = json.clone();
                }
                case
            })
            .collect();
        let mut answer = json!({"file": table.file.to_string_lossy(), "cases": cases});
        if let Some(coverage) = &table.coverage {
            let missing: Vec<_> =
                coverage.missing().map(|(policy, rule)| json!({"policy": policy, "rule": rule})).collect();
            answer["coverage"] = json!({"percent": coverage.percent(), "notMatched": missing});
            if let Some(threshold) = threshold {
                answer["coverage"]["threshold"] = json!(threshold);
                answer["coverage"]["sufficient"] = json!(table.insufficient(Some(threshold)).is_none());
            }
        }
        if let Some(error) = &table.error {
            answer["error"] = json!(error);
        }
        printable::write_json(out, &answer)?;
    }
    Ok(())
}

pub(super) fn write_junit(out: &mut impl Write, tables: &[Results], threshold: Option<u8>) -> io::Result<()> {
    say!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    say!(out, "<testsuites>")?;
    for table in tables {
        let low = table.insufficient(threshold);
        let (failures, errors) = (table.failed() + usize::from(low.is_some()), usize::from(table.error.is_some()));
        let file = escaped(&table.file.to_string_lossy());
        let count = table.cases.len() + usize::from(low.is_some()) + errors;
        let time = format!("{:.3}", table.seconds);
        say!(
            out,
            r#"  <testsuite name="{}" tests="{}" failures="{}" errors="{}" time="{}">"#,
            file,
            count,
            failures,
            errors,
            time
        )?;
        let with = |out: &mut _, name: &str, line: Option<u32>, element: &str, message: &str, text: &[String]| {
            let line = line.map(|line| format!(r#" line="{line}""#)).unwrap_or_default();
            let text = text.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("; ");
            let start = format!(r#"    <testcase classname="{file}" name="{}" file="{file}"{line}>"#, escaped(name));
            write_line(
                out,
                &format!(r#"{start}<{element} message="{}">{text}</{element}></testcase>"#, escaped(message)),
            )
        };
        for result in &table.cases {
            let CaseResult { name, position, differences, .. } = result;
            if let Some(failure) = result.failure() {
                let message = differences.join("; ");
                with(out, name, Some(position.line), "failure", &message, &details(failure))?;
            } else {
                say!(out, r#"    <testcase classname="{}" name="{}"/>"#, file, escaped(name))?;
            }
        }
        if let Some(percent) = low {
            with(out, "coverage", None, "failure", &insufficient(percent, threshold), &[])?;
        }
        if let Some(error) = &table.error {
            with(out, "table", None, "error", error, &[])?;
        }
        say!(out, "  </testsuite>")?;
    }
    say!(out, "</testsuites>")
}

pub(super) fn write_tap(out: &mut impl Write, tables: &[Results], threshold: Option<u8>) -> io::Result<()> {
    let mut points: Vec<(String, bool, Vec<String>)> = Vec::new();
    for table in tables {
        let name = |name: &str| format!("{}: {}", Printable(table.file.display()), Printable(name));
        for result in &table.cases {
            let CaseResult { name: case, position, differences, .. } = result;
            let mut notes = differences.clone();
            if let Some(failure) = result.failure() {
                notes.extend(details(failure));
                notes.push(format!("at        {}", place(table.file.display(), Some(*position))));
            }
            points.push((name(case), differences.is_empty(), notes));
        }
        if let Some(percent) = table.insufficient(threshold) {
            points.push((name("coverage"), false, vec![insufficient(percent, threshold)]));
        }
        if let Some(error) = &table.error {
            points.push((name("table"), false, vec![error.clone()]));
        }
    }
    say!(out, "TAP version 14")?;
    say!(out, "1..{}", points.len())?;
    for (number, (name, passed, notes)) in (1..).zip(points) {
        let state = if passed { "ok" } else { "not ok" };
        say!(out, "{} {} - {}", state, number, name.replace('\\', "\\\\").replace('#', "\\#"))?;
        notes.iter().try_for_each(|note| say!(out, "# {}", note))?;
    }
    Ok(())
}
