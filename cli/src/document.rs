//! Configuration documents: JSON in the same way as the filter, or YAML.

use std::io;
use std::path::{Path, PathBuf};

use spiffe_authz::diagnostic::{Code, Diagnostic};
use spiffe_authz::policy::{Layer, Node, PolicySet, Proxy};

use crate::exit::Failure;
use crate::input;
use crate::istio::scope::Scope;
use crate::located::positions::Positions;
use crate::located::{Located, place};
use crate::mesh::Mesh;
use crate::placed::Placed;
use crate::source::{self, Source};

/// A document that compiles.
#[derive(Debug)]
pub(crate) struct Document {
    /// The parsed document.
    pub(crate) root: Node<'static>,
    /// The compiled form.
    pub(crate) policy: PolicySet,
}

impl Document {
    /// Compiles a document for a proxy.
    ///
    /// # Errors
    /// Returns every error in the document, or an error if the policies of the proxy's workload are in another one.
    pub(crate) fn compile(located: &Located, proxy: Proxy<'_>) -> Result<Self, Vec<Placed>> {
        let root = located.to_node();
        match PolicySet::from_node(&root, proxy) {
            Ok(policy) if policy.is_delegated() => Err(vec![Placed::of(delegated(), &Positions::of(located))]),
            Ok(policy) => Ok(Self { root: root.into_owned(), policy }),
            Err(diagnostics) => {
                let positions = Positions::of(located);
                Err(diagnostics.into_iter().map(|diagnostic| Placed::of(diagnostic, &positions)).collect())
            }
        }
    }

    /// Compiles a JSON document for a proxy, with the code and the messages of the filter.
    ///
    /// # Errors
    /// Returns every error in the document.
    pub(crate) fn from_json(text: &[u8], proxy: Proxy<'_>) -> Result<Self, Vec<Diagnostic>> {
        let policy = PolicySet::from_json_for(text, proxy)?;
        // The text compiles, so it is JSON.
        let root = serde_json::from_slice(text).map_or(Node::Null, Node::into_owned);
        Ok(Self { root, policy })
    }

    /// Reads the document or the AuthorizationPolicies in a file or a directory, for commands that decide with them.
    ///
    /// # Errors
    /// Returns every error in the document, or every reason why the policies are not a document for one workload.
    pub(crate) fn load(path: &Path, mesh: &Mesh) -> io::Result<Self> {
        Self::load_with(path, mesh, |_, located, proxy| Self::compile(located, proxy))
    }

    /// Reads the document as [`Self::load`] does, for HTTP and for TCP.
    pub(crate) fn load_for_layers(path: &Path, mesh: &Mesh) -> io::Result<[Self; 2]> {
        Self::load_with(path, mesh, |_, located, proxy| {
            Ok([Self::compile(located, proxy)?, Self::compile(located, proxy)?.on(Layer::Tcp)])
        })
    }

    /// Reads the document as [`Self::load`] does, and compiles it with `compile`, which gets the file of the document, or `None` if it was
    /// imported.
    ///
    /// # Errors
    /// Returns the errors of [`Self::load`], or those of `compile`.
    pub(crate) fn load_with<T>(
        path: &Path,
        mesh: &Mesh,
        compile: impl Fn(Option<&Path>, &Located, Proxy<'_>) -> Result<T, Vec<Placed>>,
    ) -> io::Result<T> {
        let sources = read(path)?;
        let is_named = !path.is_dir();
        let documents: Vec<(&Path, &Located)> = sources
            .iter()
            .flat_map(|(file, source)| source.documents(is_named).into_iter().map(|document| (&**file, document)))
            .collect();
        let has_policies = sources.iter().any(|(_, source)| source.has_policies());
        match &*documents {
            [] if has_policies => {
                let document = import(path, &sources, mesh)?;
                compile(None, &document, Proxy::Unknown).map_err(|errors| rejected(path, &errors))
            }
            [] => Err(missing(path, &sources)),
            [(file, document)] if !has_policies => mesh
                .with_proxy(|proxy| compile(Some(file), document, proxy))
                .map_err(|errors| rejected(file, &with_options_of_scope(errors))),
            several => {
                let places = several.iter().map(|(file, document)| place(file.display(), Some(document.position)));
                let places = places.collect::<Vec<_>>().join(", ");
                let others = if has_policies { ", and AuthorizationPolicies" } else { "" };
                Err(io::Error::other(format!(
                    "{}: expected one document, or AuthorizationPolicies only; found {} at {places}{others} (copy one of them \
                     to a file of its own)",
                    path.display(),
                    if several.len() == 1 { "a document".to_owned() } else { format!("{} documents", several.len()) },
                )))
            }
        }
    }

    /// Returns the full name of each policy that applies and its number of rules, in order.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (String, usize)> {
        let policies = self.root.list("policies");
        self.policy.positions().filter_map(|position| policies.get(position)).map(|policy| {
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

/// Returns the error for a workload whose policies are in another document.
fn delegated() -> Diagnostic {
    Diagnostic {
        pointer: "/scope/delegatedNamespaces".to_owned(),
        code: Code::InvalidValue,
        message: "the policies of the workload are in another document".to_owned(),
        help: "use the document of its namespace, or the AuthorizationPolicies".to_owned(),
    }
}

/// Reads the file, or the files of a directory.
///
/// # Errors
/// Returns an error if a file cannot be read, or if the filter would reject the form of its documents.
pub(crate) fn read(path: &Path) -> io::Result<Vec<(PathBuf, Source)>> {
    let mut unreadable = Vec::new();
    let files = input::expand(&[path.to_owned()], &mut unreadable);
    if let Some((path, error)) = unreadable.first() {
        return Err(input::named(path, error));
    }
    let mut sources = Vec::new();
    for file in files {
        let source = Source::read(&file)?.map_err(|(_, unusable)| rejected(&file, &[unusable]))?;
        if !source.rejected.is_empty() {
            return Err(rejected(&file, &source.rejected));
        }
        sources.push((file, source));
    }
    Ok(sources)
}

/// Returns the error for a path without a document.
pub(crate) fn missing(path: &Path, sources: &[(PathBuf, Source)]) -> io::Error {
    let Placed { position, diagnostic } = match sources {
        [(_, source)] => source.without_document(),
        _ => source::without_document(),
    };
    let message = format!("{} ({})", diagnostic.message, diagnostic.help);
    Failure::of_file(&path.display().to_string(), &[(position, message)])
}

/// Imports the AuthorizationPolicies of files to a document for one workload, which must not allow more than the policies.
fn import(path: &Path, sources: &[(PathBuf, Source)], mesh: &Mesh) -> io::Result<Located> {
    let resources = Source::resources(sources.iter().map(|(_, source)| source));
    let named = |error: io::Error| input::named(path, &error);
    let import = mesh.import(resources, Scope::Unspecified, Vec::new(), true).map_err(named)?;
    if import.lost > 0 {
        return Err(io::Error::other(Failure::of_policies(&path.display().to_string(), &import.remarks)));
    }
    if let Some(conflict) = import.conflict {
        return Err(named(io::Error::other(conflict)));
    }
    if import.policies.is_empty() {
        let message = "no AuthorizationPolicy applies to the workload, so every accepted caller would be allowed";
        return Err(named(io::Error::other(message)));
    }
    Ok(import.document)
}

/// Returns the error for a file whose documents have errors.
pub(crate) fn rejected(file: &Path, placed: &[Placed]) -> io::Error {
    io::Error::other(Failure::of_document(&file.display().to_string(), placed))
}

/// Adds the options that name the workload to the help of the errors about it.
fn with_options_of_scope(mut errors: Vec<Placed>) -> Vec<Placed> {
    for Placed { diagnostic, .. } in &mut errors {
        if diagnostic.code == Code::ScopeUnresolved {
            diagnostic.help = format!("use `--namespace` and `--label`, or {}", diagnostic.help);
        }
    }
    errors
}
