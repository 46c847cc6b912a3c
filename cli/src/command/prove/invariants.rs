//! The file of invariants.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use spiffe_authz::policy::{Node, PolicySet, Proxy};

use crate::document::Document;
use crate::exit::Failure;
use crate::input;
use crate::located::positions::Positions;
use crate::located::{self, Field, Located, Position};
use crate::placed::Placed;
use crate::suggestion;

/// The fields of an invariant.
const FIELDS: [&str; 4] = ["name", "namespace", "never", "always"];
/// The actions of the policies with which the rules of `never` and `always` are compiled.
const ACTIONS: [(&str, &str); 2] = [("never", "DENY"), ("always", "ALLOW")];
/// The fields of a document that are about its own policies.
const OWN_FIELDS: [&str; 4] = ["policies", "scope", "outputs", "ignoreLints"];

/// The invariants of a file.
pub(super) struct Invariants {
    file: PathBuf,
    root: Located,
    /// For each invariant, `never` or `always`, and the action for its rule.
    kinds: Vec<(&'static str, &'static str)>,
}

impl Invariants {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns every error in the form of the file. [`Self::for_document`] reports those in the rules.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let text = input::read_text(file).map_err(|error| input::named(file, &error))?;
        let name = file.display().to_string();
        let values =
            located::parse_all(&text).map_err(|error| Failure::of_file(&name, &[(error.position, error.message)]))?;
        let [root] = <[Located; 1]>::try_from(values).map_err(|_| {
            let message = "expected one YAML or JSON object with `invariants`".to_owned();
            Failure::of_file(&name, &[(None, message)])
        })?;
        let mut errors: Vec<(Option<Position>, String)> = Vec::new();
        unknown_fields(&root, &["invariants"], &mut errors);
        let list = root.field("invariants");
        if list.is_none_or(|list| list.items().is_empty()) {
            errors.push((Some(root.position), "expected a list `invariants` with at least one entry".to_owned()));
        }
        let mut kinds = Vec::new();
        for invariant in list.map_or(&[][..], Located::items) {
            unknown_fields(invariant, &FIELDS, &mut errors);
            match ACTIONS.map(|kind| invariant.field(kind.0).map(|_| kind)) {
                [Some(kind), None] | [None, Some(kind)] => kinds.push(kind),
                _ => errors.push((Some(invariant.position), "expected either `never` or `always`".to_owned())),
            }
        }
        if errors.is_empty() {
            Ok(Self { file: file.to_owned(), root, kinds })
        } else {
            Err(Failure::of_file(&name, &errors))
        }
    }

    /// Compiles the invariants with the trust domains and the pattern of a document. Each one is a policy.
    ///
    /// # Errors
    /// Returns every error in the rules.
    pub(super) fn for_document(&self, document: &Document) -> io::Result<PolicySet> {
        let mut fields: Vec<(Cow<'_, str>, Node<'_>)> = match &document.root {
            Node::Object(fields) => fields.clone(),
            _ => Vec::new(),
        };
        fields.retain(|(name, _)| !OWN_FIELDS.contains(&&**name));
        let items = self.root.field("invariants").map_or(&[][..], Located::items);
        let policies = items.iter().zip(&self.kinds).map(|(invariant, (kind, action))| {
            let mut policy = Vec::new();
            for Field { name, value, .. } in invariant.fields() {
                if name == kind {
                    policy.push(("rules".into(), Node::List(vec![value.to_node()])));
                } else {
                    policy.push((name.as_str().into(), value.to_node()));
                }
            }
            policy.push(("action".into(), Node::String((*action).into())));
            Node::Object(policy)
        });
        fields.push(("policies".into(), Node::List(policies.collect())));
        PolicySet::from_node(&Node::Object(fields), Proxy::Unknown).map_err(|diagnostics| {
            let positions = Positions::of(&self.root);
            let placed: Vec<Placed> = diagnostics
                .into_iter()
                .map(|mut diagnostic| {
                    diagnostic.pointer = self.pointer(&diagnostic.pointer);
                    Placed::of(diagnostic, &positions)
                })
                .collect();
            io::Error::other(Failure::of_document(&self.file.display().to_string(), &placed))
        })
    }

    /// Returns the pointer in the file for one in the compiled document.
    fn pointer(&self, pointer: &str) -> String {
        let Some(rest) = pointer.strip_prefix("/policies") else { return pointer.to_owned() };
        let mut parts = rest.splitn(3, '/');
        let (position, rest) = (parts.nth(1).unwrap_or_default(), parts.next().unwrap_or_default());
        let kind = position.parse::<usize>().ok().and_then(|position| self.kinds.get(position));
        let rest = match (kind, rest.strip_prefix("rules/0")) {
            (Some((kind, _)), Some(in_rule)) => format!("{kind}{in_rule}"),
            _ => rest.to_owned(),
        };
        let joined = ["invariants", position, &rest].into_iter().filter(|part| !part.is_empty());
        joined.map(|part| format!("/{part}")).collect()
    }
}

fn unknown_fields(object: &Located, known: &[&str], errors: &mut Vec<(Option<Position>, String)>) {
    for Field { name, position, .. } in object.fields() {
        if !known.contains(&&**name) {
            let hint = suggestion::hint(name, known);
            errors.push((Some(*position), format!("unknown field `{name}` ({hint})")));
        }
    }
}
