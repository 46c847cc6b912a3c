//! Configuration documents: JSON in the same way as the filter, or YAML.

use std::io;
use std::path::Path;

use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::policy::{Layer, Node, PolicySet};

use crate::exit::Failure;
use crate::{input, yaml};

/// A document that compiles.
#[derive(Debug)]
pub(crate) struct Document {
    /// The parsed document.
    pub(crate) root: Node<'static>,
    /// The compiled form.
    pub(crate) policy: PolicySet,
}

impl Document {
    /// Compiles a document: JSON if the text begins with a brace, YAML otherwise.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub(crate) fn compile(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let trimmed = text.trim_ascii_start();
        if trimmed.is_empty() || trimmed.starts_with(b"{") {
            return Self::from_json(text);
        }
        let root = std::str::from_utf8(text)
            .map_err(|error| error.to_string())
            .and_then(|text| yaml::from_str(text).map(Node::into_owned).map_err(|error| yaml::message(&error)))
            .map_err(not_parsed)?;
        let policy = PolicySet::from_node(&root)?;
        Ok(Self { root, policy })
    }

    /// Compiles a JSON document, with the code and the messages of the filter.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let policy = PolicySet::from_json(text)?;
        let root = serde_json::from_slice(text).map(Node::into_owned).map_err(|error| not_parsed(error.to_string()))?;
        Ok(Self { root, policy })
    }

    /// Reads a document that must compile, for commands that decide with it.
    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        Self::compile(&input::read(file)?)
            .map_err(|diagnostics| io::Error::other(Failure::of_document(&file.display().to_string(), &diagnostics)))
    }

    /// Returns the document with its rules for this layer.
    pub(crate) fn on(self, layer: Layer) -> Self {
        Self { policy: self.policy.on(layer), ..self }
    }
}

fn not_parsed(message: String) -> Vec<Diagnostic> {
    let help = "expected a JSON or YAML object with `trustDomain` and `policies`".to_owned();
    vec![Diagnostic { pointer: String::new(), code: Code::Syntax, message, help }]
}
