//! The matrix as text: a block for each workload.

use std::io::{self, Write};

use spiffe_authz::policy::Layer;

use super::workloads::Entry;
use super::{counts, kinds, operation, rule, stands_out};
use crate::answer;
use crate::printable::{say, styled};
use crate::style::{GOOD, HEADING, NOTABLE};

/// The minimum width of the kinds of callers.
const WIDTH: usize = 11;

pub(super) fn write(out: &mut impl Write, entries: &[Entry], layer: Layer) -> io::Result<()> {
    for entry in entries {
        say!(out, "{}", styled(HEADING, &entry.workload.name()))?;
        for note in entry.notes() {
            say!(out, "  {}: {}", styled(NOTABLE, "note"), note)?;
        }
        for permission in entry.permissions().unwrap_or_default() {
            let style = if stands_out(permission) { NOTABLE } else { GOOD };
            let kinds = format!("{:WIDTH$}", kinds(permission));
            say!(out, "  {} {}", styled(style, &kinds), answer::patterns(&permission.requests.callers))?;
            say!(out, "  {} {}", " ".repeat(WIDTH), operation(&permission.requests, layer))?;
            say!(out, "  {} {}", " ".repeat(WIDTH), format!("by {}", rule(permission)))?;
        }
        say!(out, "")?;
    }
    say!(out, "{}", counts(entries))
}
