//! Configuration documents: JSON in the same way as the filter, or YAML.

use std::io;
use std::path::Path;

use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::policy::{Layer, Node, PolicySet};

use crate::exit::Failure;
use crate::located::{Located, Position};
use crate::source::{Source, Unusable};
use crate::suggestion;

/// A document that compiles.
#[derive(Debug)]
pub(crate) struct Document {
    /// The parsed document.
    pub(crate) root: Node<'static>,
    /// The compiled form.
    pub(crate) policy: PolicySet,
}

/// A diagnostic with its position in the file, as far as it is known.
pub(crate) struct Placed {
    pub(crate) position: Option<Position>,
    pub(crate) diagnostic: Diagnostic,
}

impl Document {
    /// Compiles a document.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub(crate) fn compile(located: &Located) -> Result<Self, Vec<Placed>> {
        let root = located.to_node();
        match PolicySet::from_node(&root) {
            Ok(policy) => Ok(Self { root: root.into_owned(), policy }),
            Err(diagnostics) => {
                Err(diagnostics.into_iter().map(|diagnostic| Placed::of(diagnostic, located)).collect())
            }
        }
    }

    /// Compiles a JSON document, with the code and the messages of the filter.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let policy = PolicySet::from_json(text)?;
        // The text compiles, so it is JSON.
        let root = serde_json::from_slice(text).map_or(Node::Null, Node::into_owned);
        Ok(Self { root, policy })
    }

    /// Reads the document in a file, which must compile, for commands that decide with it.
    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        let name = file.display().to_string();
        let rejected = |placed: &[Placed]| io::Error::other(Failure::of_document(&name, placed));
        let source = match Source::read(file)? {
            Ok(source) => source,
            Err((_, unusable)) => return Err(rejected(&[unusable.into()])),
        };
        if !source.rejected.is_empty() {
            let errors: Vec<Placed> = source.rejected.into_iter().map(Placed::from).collect();
            return Err(rejected(&errors));
        }
        match &*source.documents(true) {
            [] => Err(io::Error::other(source.without_document().text(&name))),
            [document] => Self::compile(document).map_err(|errors| rejected(&errors)),
            several => {
                let lines: Vec<String> = several.iter().map(|document| document.position.line.to_string()).collect();
                Err(io::Error::other(format!(
                    "{name}: expected one document, found {} at the lines {} (copy one of them to a file of its own)",
                    several.len(),
                    lines.join(", ")
                )))
            }
        }
    }

    /// Returns the document with its rules for this layer.
    pub(crate) fn on(self, layer: Layer) -> Self {
        Self { policy: self.policy.on(layer), ..self }
    }
}

impl Placed {
    /// Returns a diagnostic with its position in a document, and with a suggestion.
    pub(crate) fn of(diagnostic: Diagnostic, located: &Located) -> Self {
        let position = located.position_at(&diagnostic.pointer, suggestion::is_about_name(&diagnostic));
        let help = suggestion::of_diagnostic(&diagnostic);
        Self { position: Some(position), diagnostic: Diagnostic { help, ..diagnostic } }
    }

    /// Returns the file, the position and the diagnostic on one line.
    pub(crate) fn text(&self, file: &str) -> String {
        let Self { position, diagnostic } = self;
        match position {
            Some(position) => format!("{file}:{position}: {diagnostic}"),
            None => format!("{file}: {diagnostic}"),
        }
    }
}

impl From<Unusable> for Placed {
    fn from(Unusable { position, diagnostic }: Unusable) -> Self {
        Self { position, diagnostic }
    }
}
