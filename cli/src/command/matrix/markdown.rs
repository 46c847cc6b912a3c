//! The matrix as Markdown: a table for each workload.

use std::io::{self, Write};

use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{CallerKind, Condition, Permission};

use super::workloads::Entry;
use super::{counts, operation, rule};
use crate::answer;
use crate::markdown::{code, escaped};
use crate::printable::say;

pub(super) fn write(out: &mut impl Write, entries: &[Entry], layer: Layer) -> io::Result<()> {
    say!(out, "**{}**", counts(entries))?;
    for entry in entries {
        say!(out, "")?;
        say!(out, "### {}", code(&entry.workload.name()))?;
        say!(out, "")?;
        let notes = entry.notes();
        notes.iter().try_for_each(|note| say!(out, "* {}", escaped(note)))?;
        let permissions = entry.permissions().unwrap_or_default();
        if permissions.is_empty() {
            continue;
        }
        if !notes.is_empty() {
            say!(out, "")?;
        }
        say!(out, "| Callers | Trust domain | Requests | Rule | Example |")?;
        say!(out, "|---|---|---|---|---|")?;
        for permission in permissions {
            say!(
                out,
                "| {} | {} | {} | {} | {} |",
                callers(permission),
                kinds(permission),
                requests(permission, layer),
                code(&rule(permission)),
                code(&answer::request(&permission.witness, layer))
            )?;
        }
    }
    Ok(())
}

/// Returns the callers. Every caller is bold.
fn callers(permission: &Permission) -> String {
    let callers = code(&answer::patterns(&permission.requests.callers));
    if permission.has_every_caller { format!("**{callers}**") } else { callers }
}

/// Returns the kinds of callers. Those outside the local trust domain are bold.
fn kinds(permission: &Permission) -> String {
    let kinds = permission.kinds.iter().map(|kind| match kind {
        CallerKind::Local => kind.slug().to_owned(),
        CallerKind::Alias | CallerKind::Federated | CallerKind::Anonymous => format!("**{}**", kind.slug()),
    });
    kinds.collect::<Vec<_>>().join(" and ")
}

fn requests(permission: &Permission, layer: Layer) -> String {
    let conditions = &permission.requests.conditions;
    if conditions.is_empty() {
        return operation(&permission.requests, layer);
    }
    let conditions = conditions.iter().map(|Condition { attribute, values, is_opaque }| {
        let note = if *is_opaque { " (written by another filter)" } else { "" };
        format!("{}: {}{note}", code(attribute), code(&answer::patterns(values)))
    });
    conditions.collect::<Vec<_>>().join("<br>")
}
