//! Finds documents and test tables in files: bare, in Kubernetes resources, and in configurations of Envoy.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::de::IgnoredAny;
use spiffe_authz::diagnostic::{Code, Diagnostic};

use crate::input;
use crate::istio::fields::{IS_TEMPLATE, TEMPLATE};
use crate::located::{self, Field, Located, Position, SyntaxError, Value};

/// The next step after a file without a document.
const EXPECTED: &str = "expected a JSON or YAML object with `trustDomain` and `policies`";
/// The resources with a document as an object, and the path to it.
const PLUGINS: [(&str, &[&str]); 2] =
    [("WasmPlugin", &["spec", "pluginConfig"]), ("TrafficExtension", &["spec", "wasm", "pluginConfig"])];
/// The fields of a configuration or a dump of Envoy.
const ENVOY: [&str; 7] =
    ["static_resources", "dynamic_resources", "admin", "configs", "resources", "filter_chains", "@type"];
/// The fields by which a document is recognized inside something else.
const DOCUMENT: [&str; 2] = ["trustDomain", "policies"];

/// A file with everything in it that the commands use.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text, for excerpts.
    pub(crate) text: String,
    /// The documents, which can have errors.
    pub(crate) documents: Vec<Located>,
    /// Objects that are probably documents with errors in the names of their fields.
    pub(crate) unknown: Vec<Located>,
    /// The test tables.
    pub(crate) tables: Vec<Located>,
    /// The position of the first AuthorizationPolicy.
    pub(crate) authorization_policy: Option<Position>,
}

/// An error in the notation of a file, or a file without a document.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) position: Option<Position>,
    pub(crate) diagnostic: Diagnostic,
}

impl Unusable {
    /// Returns the file, the position and the message on one line.
    pub(crate) fn text(&self, file: &str) -> String {
        let Self { position, diagnostic } = self;
        let at = position.map_or_else(|| file.to_owned(), |position| format!("{file}:{position}"));
        format!("{at}: {} ({})", diagnostic.message, diagnostic.help)
    }
}

impl Source {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, and in the inner result if it is neither YAML nor JSON.
    pub(crate) fn read(file: &Path) -> io::Result<Result<Self, (String, Unusable)>> {
        let text = input::read_text(file)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
        let values = match parse(file, &text) {
            Ok(values) => values,
            Err(unusable) => return Ok(Err((text, unusable))),
        };
        let mut source =
            Self { text, documents: Vec::new(), unknown: Vec::new(), tables: Vec::new(), authorization_policy: None };
        let mut texts = BTreeSet::new();
        for value in values {
            source.add(value, &mut texts);
        }
        Ok(Ok(source))
    }

    /// Returns the documents. If a file that the user named has none, its objects count as documents, so that the compiler
    /// reports what is wrong with them.
    pub(crate) fn documents(&self, is_named: bool) -> &[Located] {
        let has_other = !self.tables.is_empty() || self.authorization_policy.is_some();
        if is_named && self.documents.is_empty() && !has_other { &self.unknown } else { &self.documents }
    }

    /// Returns the error for a file without a document.
    pub(crate) fn without_document(&self) -> Unusable {
        let diagnostic = |code, message: &str, help: &str| Diagnostic {
            pointer: String::new(),
            code,
            message: message.to_owned(),
            help: help.to_owned(),
        };
        if let Some(position) = self.authorization_policy {
            let message = "this is an AuthorizationPolicy of Istio, and not a document";
            let help = "convert it with `spiffe-authz import`";
            return Unusable { position: Some(position), diagnostic: diagnostic(Code::Unsupported, message, help) };
        }
        if let Some(table) = self.tables.first() {
            let message = "this is a test table, and not a document";
            let help = "run it with `spiffe-authz test`";
            return Unusable {
                position: Some(table.position),
                diagnostic: diagnostic(Code::Unsupported, message, help),
            };
        }
        Unusable { position: None, diagnostic: diagnostic(Code::Syntax, "the file has no document", EXPECTED) }
    }

    fn add(&mut self, value: Located, texts: &mut BTreeSet<String>) {
        let text = |name: &str| value.field(name).and_then(Located::text);
        let (kind, version) = (text("kind"), text("apiVersion"));
        let Some((kind, version)) = kind.zip(version) else {
            self.add_bare(value, texts);
            return;
        };
        if kind.ends_with("List") && value.field("items").is_some() {
            for item in value.field("items").map_or(&[][..], Located::items) {
                self.add(item.clone(), texts);
            }
            return;
        }
        if kind == "AuthorizationPolicy" && version.starts_with("security.istio.io/") {
            self.authorization_policy.get_or_insert(value.position);
            return;
        }
        if let Some((_, path)) = PLUGINS.iter().find(|(plugin, _)| *plugin == kind) {
            let document = path.iter().try_fold(&value, |value, name| value.field(name));
            self.documents.extend(document.filter(|document| is_document(document)).cloned());
            return;
        }
        self.search(&value, texts);
    }

    fn add_bare(&mut self, value: Located, texts: &mut BTreeSet<String>) {
        let has = |name: &str| value.fields().iter().any(|field| field.name == name);
        if has("cases") && !has("trustDomain") {
            self.tables.push(value);
        } else if is_document(&value) {
            self.documents.push(value);
        } else {
            let count = self.documents.len();
            self.search(&value, texts);
            if self.documents.len() == count && !ENVOY.iter().any(|name| has(name)) {
                self.unknown.push(value);
            }
        }
    }

    /// Adds the documents in the `StringValue`s of a configuration. A dump repeats them, so each of them counts once.
    fn search(&mut self, value: &Located, texts: &mut BTreeSet<String>) {
        match &value.value {
            Value::List(items) => items.iter().for_each(|item| self.search(item, texts)),
            Value::Object(fields) => {
                let is_string = value
                    .field("@type")
                    .and_then(Located::text)
                    .is_some_and(|kind| kind.ends_with("/google.protobuf.StringValue"));
                match value.field("value").filter(|_| is_string) {
                    Some(string) => self.add_text(string, texts),
                    None => fields.iter().for_each(|field| self.search(&field.value, texts)),
                }
            }
            _ => {}
        }
    }

    fn add_text(&mut self, string: &Located, texts: &mut BTreeSet<String>) {
        let Some(text) = string.text().filter(|text| DOCUMENT.iter().any(|name| text.contains(name))) else { return };
        if !texts.insert(text.to_owned()) {
            return;
        }
        let indentation = self.block_indentation(string.position);
        for mut document in located::parse_all(text).unwrap_or_else(|_| vec![string.clone()]) {
            document.embed(string.position, indentation);
            // The configuration of a route contains a document.
            let inner = document.field("configuration").filter(|inner| is_document(inner)).cloned();
            self.documents.push(inner.unwrap_or(document));
        }
    }

    /// Returns the number of characters before each line of a literal block whose content begins at this position.
    fn block_indentation(&self, Position { line, column }: Position) -> Option<u32> {
        let number = |number: u32| usize::try_from(number).ok();
        let lines: Vec<&str> = self.text.lines().take(number(line)?).collect();
        let (content, above) = lines.split_last()?;
        let indentation = column.checked_sub(1)?;
        let is_first = content.chars().take(number(indentation)?).all(char::is_whitespace);
        let header = above.iter().rev().find(|line| !line.trim().is_empty())?;
        let is_block = header.split_whitespace().next_back().is_some_and(|word| word.starts_with('|'));
        (is_first && is_block).then_some(indentation)
    }
}

fn is_document(value: &Located) -> bool {
    value.fields().iter().any(|Field { name, .. }| DOCUMENT.contains(&&**name))
}

/// Parses a file. A JSON file is not read as YAML, because the filter would reject it.
fn parse(file: &Path, text: &str) -> Result<Vec<Located>, Unusable> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let begins_like_json = || {
        let inside = text.trim_start().strip_prefix('{').map(str::trim_start);
        inside.is_some_and(|inside| inside.starts_with('"'))
    };
    let is_yaml = matches!(extension, Some("yaml" | "yml"));
    let must_be_json = extension == Some("json") || (!is_yaml && begins_like_json());
    let syntax = |position: Option<Position>, message: String, help: &str| Unusable {
        position,
        diagnostic: Diagnostic { pointer: String::new(), code: Code::Syntax, message, help: help.to_owned() },
    };
    if text.trim().is_empty() {
        return Err(syntax(None, "the file is empty".to_owned(), EXPECTED));
    }
    if must_be_json {
        let values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
        if let Some(error) = values.filter_map(Result::err).next() {
            let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let position = Position { line: number(error.line()), column: number(error.column()).max(1) };
            return Err(syntax(Some(position), without_place(&error), EXPECTED));
        }
    }
    located::parse_all(text).map_err(|SyntaxError { position, message }| {
        if text.contains(TEMPLATE) {
            return syntax(position, IS_TEMPLATE.to_owned(), "the command reads no templates");
        }
        syntax(position, message, EXPECTED)
    })
}

/// Returns the message of an error without its place, which is shown separately.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
}
