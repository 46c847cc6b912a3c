//! The matrix as a Mermaid flowchart: callers on the left, workloads on the right, and the requests on the edges.

use std::collections::BTreeMap;
use std::io::{self, Write};

use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{CallerKind, Permission};

use super::workloads::Entry;
use super::{kinds, operation};
use crate::answer;
use crate::printable::{Printable, say};

/// The number of edges that Mermaid draws with its defaults.
const MAX_EDGES: usize = 500;
/// The most characters of a part of a label. The other formats have the whole value.
const MAX_LENGTH: usize = 120;

/// A node of callers.
struct Callers {
    text: String,
    class: &'static str,
}

pub(super) fn write(out: &mut impl Write, entries: &[Entry], layer: Layer) -> io::Result<()> {
    let mut nodes: Vec<Callers> = Vec::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    // The requests of each pair of callers and a workload, in the order of the document.
    let mut edges: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    for (workload, entry) in entries.iter().enumerate() {
        for permission in entry.permissions().unwrap_or_default() {
            let text = format!("{}<br/>({})", label(&callers(permission)), kinds(permission));
            let number = *numbers.entry(text.clone()).or_insert_with(|| {
                nodes.push(Callers { text, class: class(permission) });
                nodes.len() - 1
            });
            edges.entry((number, workload)).or_default().push(label(&operation(&permission.requests, layer)));
        }
    }
    say!(out, "flowchart LR")?;
    if edges.len() > MAX_EDGES {
        say!(out, "  %% {} edges: set maxEdges of Mermaid, which draws {} by default.", edges.len(), MAX_EDGES)?;
    }
    for (number, Callers { text, class }) in nodes.iter().enumerate() {
        say!(out, "  c{}[\"{}\"]:::{}", number, text, class)?;
    }
    for (number, entry) in entries.iter().enumerate() {
        let notes: String = entry.notes().iter().map(|note| format!("<br/>{}", label(note))).collect();
        let class = if entry.is_complete() { "workload" } else { "undecided" };
        say!(out, "  w{}([\"{}{}\"]):::{}", number, label(&entry.workload.name()), notes, class)?;
    }
    for ((callers, workload), requests) in &edges {
        say!(out, "  c{} -->|\"{}\"| w{}", callers, requests.join("<br/>"), workload)?;
    }
    say!(out, "  classDef workload fill:#eef2f7,stroke:#52606d,color:#1f2933")?;
    say!(out, "  classDef local fill:#e6f0e8,stroke:#1d5b2c,color:#1f2933")?;
    say!(out, "  classDef federated fill:#fff3d6,stroke:#b7791f,stroke-width:2px,color:#1f2933")?;
    say!(out, "  classDef anonymous fill:#fde2e1,stroke:#b42318,stroke-width:2px,color:#1f2933")?;
    say!(out, "  classDef everyone fill:#fde2e1,stroke:#b42318,stroke-width:3px,stroke-dasharray:6 3,color:#1f2933")?;
    say!(out, "  classDef alias fill:#e6e0f5,stroke:#5b3fa0,color:#1f2933")?;
    say!(out, "  classDef undecided fill:#ffffff,stroke:#b42318,stroke-dasharray:4 4,color:#b42318")
}

fn callers(permission: &Permission) -> String {
    answer::patterns(&permission.requests.callers)
}

/// Returns the class of a node of callers.
fn class(permission: &Permission) -> &'static str {
    let has = |kind| permission.kinds.contains(&kind);
    if permission.has_every_caller {
        "everyone"
    } else if has(CallerKind::Anonymous) {
        "anonymous"
    } else if has(CallerKind::Federated) {
        "federated"
    } else if has(CallerKind::Alias) {
        "alias"
    } else {
        "local"
    }
}

/// Returns text for a label in quotes, in which Mermaid reads `#…;` as a character. Only characters without a meaning stay.
fn label(text: &str) -> String {
    let text = Printable(text).to_string();
    let mut label = String::new();
    for character in text.chars().take(MAX_LENGTH) {
        if character.is_alphanumeric() || " /.,-_=()".contains(character) {
            label.push(character);
        } else {
            label.push_str(&format!("#{};", u32::from(character)));
        }
    }
    if text.chars().count() > MAX_LENGTH {
        label.push('…');
    }
    label
}

#[cfg(test)]
mod tests {
    use super::{MAX_LENGTH, label};

    #[test]
    fn a_label_has_no_markup() {
        assert_eq!(label("example.org/ns/a/sa/*"), "example.org/ns/a/sa/#42;");
        assert_eq!(
            label("\"]; click <b>`#\n\u{202e}"),
            concat!("#34;#93;#59; click #60;b#62;#96;#35;", "#92;n#92;u#123;202e#125;")
        );
        assert_eq!(label(&"a".repeat(MAX_LENGTH + 1)).chars().count(), MAX_LENGTH + 1);
    }
}
