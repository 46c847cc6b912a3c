//! Reads configuration documents: JSON as the filter does, or YAML.

use std::io::{self, Read as _};
use std::path::Path;

use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::policy::{Layer, Node, PolicySet};

use crate::exit::Failure;
use crate::yaml;

/// A document that compiles.
pub(crate) struct Document {
    /// As it is written.
    pub(crate) root: Node<'static>,
    /// As it decides.
    pub(crate) policy: PolicySet,
}

impl Document {
    /// The same document, asked on this layer.
    pub(crate) fn on(self, layer: Layer) -> Self {
        Self { policy: self.policy.on(layer), ..self }
    }
}

/// Reads a file; `-` is standard input.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        return Ok(text);
    }
    std::fs::read(file).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

/// Compiles a document: JSON where the text begins with a brace, YAML otherwise.
pub(crate) fn compile(text: &[u8]) -> Result<Document, Vec<Diagnostic>> {
    let trimmed = text.trim_ascii_start();
    let parsed = if trimmed.is_empty() || trimmed.starts_with(b"{") {
        // The filter's own way, also to say what is wrong.
        PolicySet::from_json(text)?;
        serde_json::from_slice(text).map(Node::into_owned).map_err(|error| error.to_string())
    } else {
        std::str::from_utf8(text)
            .map_err(|error| error.to_string())
            .and_then(|text| yaml::from_str(text).map(Node::into_owned).map_err(|error| yaml::message(&error)))
    };
    let root: Node<'static> = parsed.map_err(|message| {
        let help = "JSON or YAML of an object with `trustDomain` and `policies`".to_owned();
        vec![Diagnostic { pointer: String::new(), code: Code::Syntax, message, help }]
    })?;
    let policy = PolicySet::from_node(&root)?;
    Ok(Document { root, policy })
}

/// Reads a document that must compile, for commands that decide by it.
pub(crate) fn load(file: &Path) -> io::Result<Document> {
    compile(&read(file)?).map_err(|diagnostics| {
        io::Error::other(Failure::of_document(format!("{} is refused", file.display()), &diagnostics))
    })
}
