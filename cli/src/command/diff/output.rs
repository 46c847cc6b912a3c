//! The changes between two documents, in each output format.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{Answer, Change, ChangeKind, Condition, Difference, Requests};

use crate::answer::{self, answer_json, patterns, request, text};
use crate::decision::request_json;
use crate::markdown::code;
use crate::printable::{say, styled};
use crate::sarif;
use crate::style::{BAD, GOOD, NOTABLE};

pub(super) fn write_human(out: &mut impl Write, difference: &Difference, layer: Layer) -> io::Result<()> {
    for Change { kind, requests, witness, old, new } in &difference.changes {
        let style = match kind {
            ChangeKind::Granted => BAD,
            ChangeKind::Revoked => NOTABLE,
            ChangeKind::Reason => GOOD,
        };
        say!(out, "{}: {} -> {}", styled(style, kind.slug()), text(old), text(new))?;
        answer::write_requests(out, requests, witness, layer)?;
    }
    notes(difference).iter().try_for_each(|note| say!(out, "{}: {}", styled(NOTABLE, "note"), note))?;
    say!(out, "{}", counts(&difference.changes))
}

/// Returns what the changes do not contain.
fn notes(Difference { limits, unseen, .. }: &Difference) -> Vec<String> {
    let limits = limits.iter().map(|limit| format!("not every value is considered: {limit}"));
    let unseen = unseen.iter().map(|field| format!("`{field}` differs, which no request shows"));
    limits.chain(unseen).collect()
}

/// Returns the number of changes of each kind.
fn counts(changes: &[Change]) -> String {
    let word = if changes.len() == 1 { "change" } else { "changes" };
    let kinds = ChangeKind::ALL.into_iter().filter_map(|kind| {
        let count = changes.iter().filter(|change| change.kind == kind).count();
        (count > 0).then(|| format!("{count} {}", kind.slug()))
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let of_kinds = if kinds.is_empty() { kinds } else { format!(": {kinds}") };
    format!("{} {word}{of_kinds}", changes.len())
}

/// The rules that a change is based on, each with its document.
fn because<'c>(Change { old, new, .. }: &'c Change) -> impl Iterator<Item = (&'static str, &'c (String, u32))> {
    let rule = |name, Answer { rule, .. }: &'c Answer| Some((name, rule.as_ref()?));
    [rule("old", old), rule("new", new)].into_iter().flatten()
}

pub(super) fn as_json(difference: &Difference, layer: Layer) -> Value {
    let changes = difference.changes.iter().map(|change| {
        let Change { kind, requests, witness, old, new } = change;
        let because = because(change)
            .map(|(document, (policy, rule))| json!({"document": document, "policy": policy, "rule": rule}));
        let mut object = json!({
            "change": kind.slug(), "witness": request_json(witness, layer), "old": answer_json(old),
            "new": answer_json(new), "because": because.collect::<Vec<_>>(),
        });
        answer::add_requests(&mut object, requests);
        object
    });
    let changes: Vec<Value> = changes.collect();
    json!({"changes": changes, "limits": difference.limits, "unseen": difference.unseen})
}

pub(super) fn write_markdown(out: &mut impl Write, difference: &Difference, layer: Layer) -> io::Result<()> {
    say!(out, "**{}**", counts(&difference.changes))?;
    if !difference.changes.is_empty() {
        say!(out, "")?;
        say!(out, "| Change | Callers | Requests | Old verdict | New verdict | Example |")?;
        say!(out, "|---|---|---|---|---|---|")?;
    }
    for Change { kind, requests, witness, old, new } in &difference.changes {
        let Requests { callers, conditions } = requests;
        let conditions = conditions
            .iter()
            .map(|Condition { attribute, values, .. }| format!("{}: {}", code(attribute), code(&patterns(values))));
        let conditions: Vec<String> = conditions.collect();
        let conditions = if conditions.is_empty() { "every request".to_owned() } else { conditions.join("<br>") };
        say!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            kind.slug(),
            code(&patterns(callers)),
            conditions,
            code(&text(old)),
            code(&text(new)),
            code(&request(witness, layer))
        )?;
    }
    let notes = notes(difference);
    if !notes.is_empty() {
        say!(out, "")?;
    }
    notes.iter().try_for_each(|note| say!(out, "* {}", note))
}

/// Returns a log in SARIF, whose results are in the file of the new document.
pub(super) fn as_sarif(difference: &Difference, file: &Path, layer: Layer) -> Value {
    let rules: Vec<Value> = ChangeKind::ALL
        .into_iter()
        .map(|kind| {
            let (summary, level) = match kind {
                ChangeKind::Granted => ("The change allows requests that were denied.", "warning"),
                ChangeKind::Revoked => ("The change denies requests that were allowed.", "warning"),
                ChangeKind::Reason => ("The change denies requests for another reason.", "note"),
            };
            json!({
                "id": kind.slug(), "shortDescription": {"text": summary},
                "help": {"text": "See docs/review.md."}, "defaultConfiguration": {"level": level},
            })
        })
        .collect();
    let mut seen = std::collections::HashMap::<u64, u32>::new();
    let results: Vec<Value> = difference
        .changes
        .iter()
        .map(|Change { kind, requests, witness, old, new }| {
            let conditions = requests
                .conditions
                .iter()
                .map(|Condition { attribute, values, .. }| format!(", {attribute} {}", patterns(values)));
            let conditions: String = conditions.collect();
            let message = format!(
                "{} -> {}: callers {}{conditions}; example: {}",
                text(old),
                text(new),
                patterns(&requests.callers),
                request(witness, layer)
            );
            let hash = sarif::hash(&[kind.slug(), &message]);
            let count = seen.entry(hash).or_default();
            *count += 1;
            json!({
                "ruleId": kind.slug(), "level": if *kind == ChangeKind::Reason { "note" } else { "warning" },
                "message": {"text": message},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": sarif::uri(sarif::relative(file))}}}],
                "partialFingerprints": {"change/v1": format!("{hash:016x}:{count}")},
            })
        })
        .collect();
    sarif::log(&rules, &results)
}
