//! Configuration documents: JSON in the same way as the filter, or YAML.

use std::io;
use std::path::Path;

use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::policy::{Layer, Node, PolicySet, Proxy};

use crate::exit::Failure;
use crate::located::Located;
use crate::located::positions::Positions;
use crate::placed::Placed;
use crate::source::Source;

/// A document that compiles.
#[derive(Debug)]
pub(crate) struct Document {
    /// The parsed document.
    pub(crate) root: Node<'static>,
    /// The compiled form.
    pub(crate) policy: PolicySet,
}

impl Document {
    /// Compiles a document.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub(crate) fn compile(located: &Located) -> Result<Self, Vec<Placed>> {
        let root = located.to_node();
        match PolicySet::from_node(&root, Proxy::Unknown) {
            Ok(policy) => Ok(Self { root: root.into_owned(), policy }),
            Err(diagnostics) => {
                let positions = Positions::of(located);
                Err(diagnostics.into_iter().map(|diagnostic| Placed::of(diagnostic, &positions)).collect())
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
        Self::load_with(file, Self::compile)
    }

    /// Reads the document in a file for HTTP, and for TCP.
    pub(crate) fn load_for_layers(file: &Path) -> io::Result<[Self; 2]> {
        Self::load_with(file, |located| Ok([Self::compile(located)?, Self::compile(located)?.on(Layer::Tcp)]))
    }

    fn load_with<T>(file: &Path, compile: impl Fn(&Located) -> Result<T, Vec<Placed>>) -> io::Result<T> {
        let name = file.display().to_string();
        let rejected = |placed: &[Placed]| io::Error::other(Failure::of_document(&name, placed));
        let source = match Source::read(file)? {
            Ok(source) => source,
            Err((_, unusable)) => return Err(rejected(&[unusable])),
        };
        if !source.rejected.is_empty() {
            return Err(rejected(&source.rejected));
        }
        match &*source.documents(true) {
            [] => {
                let Placed { position, diagnostic } = source.without_document();
                let message = format!("{} ({})", diagnostic.message, diagnostic.help);
                Err(Failure::of_file(&name, &[(position, message)]))
            }
            [document] => compile(document).map_err(|errors| rejected(&errors)),
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

    /// Returns the full name of each policy and its number of rules, in order.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (String, usize)> {
        self.root.list("policies").iter().map(|policy| {
            let text = |name| policy.field(name).and_then(Node::text);
            let name = text("name").unwrap_or_default();
            let full = text("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
            (full, policy.list("rules").len())
        })
    }

    /// Returns the document with its rules for this layer.
    pub(crate) fn on(self, layer: Layer) -> Self {
        Self { policy: self.policy.on(layer), ..self }
    }
}
