//! The usage of rules, in each output format.

use std::io::{self, Write};

use serde_json::json;

use super::{Pruned, Rule, Usage};
use crate::located::place;
use crate::logged_request::Counts;
use crate::printable::{self, say, styled};
use crate::style::{BAD, NOTABLE};

fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

pub(super) fn write_human(out: &mut impl Write, pruned: &Pruned) -> io::Result<()> {
    let Pruned { rules, counts, period, connections, without_caller } = pruned;
    for rule in rules {
        let Rule { info, place: found, undecided, .. } = rule;
        let (word, rest) = match rule.usage() {
            Usage::Used => continue,
            Usage::Unused => (styled(BAD, "unused"), String::new()),
            Usage::Guard => (styled(NOTABLE, "no match"), " (it can be for requests that must not occur)".to_owned()),
            Usage::NotDecided => {
                let requests = counted(*undecided, "request");
                let rest = format!(" ({requests} can match, depending on attributes that the log lacks)");
                (styled(NOTABLE, "not decided"), rest)
            }
        };
        let at = found.as_ref().map(|(file, position)| format!("{}: ", place(file, Some(*position))));
        let mode = if info.mode.slug() == "shadow" { "shadow " } else { "" };
        say!(
            out,
            "{}{}: {}{} {}, rule {}{}",
            at.unwrap_or_default(),
            word,
            mode,
            info.action.name(),
            info.policy,
            info.rule,
            rest
        )?;
    }
    let total = u64::try_from(rules.len()).unwrap_or(u64::MAX);
    let kinds = [
        (Usage::Used, "used"),
        (Usage::Unused, "unused"),
        (Usage::Guard, "without a match"),
        (Usage::NotDecided, "not decided"),
    ];
    let kinds = kinds.into_iter().filter_map(|(usage, word)| {
        let count = rules.iter().filter(|rule| rule.usage() == usage).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let of_kinds = if kinds.is_empty() { kinds } else { format!(": {kinds}") };
    let http = counted(counts.requests.saturating_sub(*connections), "request");
    let tcp = if *connections == 0 { String::new() } else { format!(" and {}", counted(*connections, "connection")) };
    let without = match without_caller {
        0 => String::new(),
        count => format!("; {count} of callers without an accepted identity"),
    };
    say!(out, "{}{}; {}{}{}{}{}", counted(total, "rule"), of_kinds, http, tcp, period.text(), without, counts.text())
}

pub(super) fn write_json(out: &mut impl Write, pruned: &Pruned) -> io::Result<()> {
    let Pruned { rules, counts, period, connections, without_caller } = pruned;
    let rules = rules.iter().map(|rule| {
        let Rule { info, place, matched, undecided } = rule;
        json!({
            "policy": info.policy, "rule": info.rule, "action": info.action.name(), "mode": info.mode.slug(),
            "file": place.as_ref().map(|(file, _)| file), "line": place.as_ref().map(|(_, position)| position.line),
            "usage": rule.usage().slug(), "matched": matched, "undecided": undecided,
        })
    });
    let Counts { requests, other, not_understood, suppressed } = counts;
    printable::write_json(
        out,
        &json!({
            "rules": rules.collect::<Vec<_>>(), "requests": requests.saturating_sub(*connections),
            "connections": connections, "withoutCaller": without_caller, "period": period.as_json(),
            "lines": {"withoutRequest": other, "notUnderstood": not_understood, "suppressed": suppressed},
        }),
    )
}
