//! Finds documents and test tables in files: bare, in Kubernetes resources, and in configurations of Envoy.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

use serde::de::IgnoredAny;
use spiffe_authz::diagnostic::{Code, Diagnostic};

use crate::document::Placed;
use crate::input;
use crate::istio::fields::{IS_TEMPLATE, TEMPLATE};
use crate::lines::Lines;
use crate::located::{self, Field, Located, Position, SyntaxError};

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
    pub(crate) text: Rc<Lines>,
    /// The documents, which can have errors.
    pub(crate) documents: Vec<Located>,
    /// Values that are not recognized: probably documents or tables with errors in the names of their fields.
    pub(crate) unknown: Vec<Located>,
    /// Documents in a form that the filter rejects.
    pub(crate) rejected: Vec<Placed>,
    /// The test tables.
    pub(crate) tables: Vec<Located>,
    /// The position of the first AuthorizationPolicy.
    pub(crate) authorization_policy: Option<Position>,
}

impl Source {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, and in the inner result if it is neither YAML nor
    /// JSON.
    pub(crate) fn read(file: &Path) -> io::Result<Result<Self, (Rc<Lines>, Placed)>> {
        let text = input::read_text(file).map_err(|error| input::named(file, &error))?;
        let values = match parse(file, &text) {
            Ok(values) => values,
            Err(unusable) => return Ok(Err((Rc::new(text.into()), unusable))),
        };
        let mut source = Self {
            text: Rc::new(text.into()),
            documents: Vec::new(),
            unknown: Vec::new(),
            rejected: Vec::new(),
            tables: Vec::new(),
            authorization_policy: None,
        };
        let mut texts = BTreeSet::new();
        for value in values {
            source.add(value, &mut texts);
        }
        Ok(Ok(source))
    }

    /// Returns the documents. Unknown values next to one, and those of a file that the user named, count as documents, so
    /// that the compiler reports what is wrong with them.
    pub(crate) fn documents(&self, is_named: bool) -> Vec<&Located> {
        let is_ours = is_named || !self.documents.is_empty() || !self.rejected.is_empty();
        let unknown = self.unknown.iter().filter(|_| is_ours);
        let mut documents: Vec<&Located> = self.documents.iter().chain(unknown).collect();
        documents.sort_by_key(|document| document.position);
        documents
    }

    /// Returns the error for a file without a document.
    pub(crate) fn without_document(&self) -> Placed {
        let diagnostic = |code, message: &str, help: &str| Diagnostic {
            pointer: String::new(),
            code,
            message: message.to_owned(),
            help: help.to_owned(),
        };
        if let Some(position) = self.authorization_policy {
            let message = "this is an AuthorizationPolicy of Istio, and not a document";
            let help = "convert it with `spiffe-authz import`";
            return Placed { position: Some(position), diagnostic: diagnostic(Code::Unsupported, message, help) };
        }
        if let Some(table) = self.tables.first() {
            let message = "this is a test table, and not a document";
            let help = "run it with `spiffe-authz test`";
            return Placed { position: Some(table.position), diagnostic: diagnostic(Code::Unsupported, message, help) };
        }
        Placed { position: None, diagnostic: diagnostic(Code::Syntax, "the file has no document", EXPECTED) }
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
        self.search("", &value, texts);
    }

    fn add_bare(&mut self, value: Located, texts: &mut BTreeSet<String>) {
        let has = |name: &str| value.fields().iter().any(|field| field.name == name);
        if has("cases") && !has("trustDomain") {
            self.tables.push(value);
        } else if is_document(&value) {
            self.documents.push(value);
        } else {
            let count = self.documents.len();
            self.search("", &value, texts);
            if self.documents.len() == count && !ENVOY.iter().any(|name| has(name)) {
                self.unknown.push(value);
            }
        }
    }

    /// Adds the documents in the value of a field in a configuration of Envoy. A dump repeats them, so each of them counts
    /// once.
    fn search(&mut self, field: &str, value: &Located, texts: &mut BTreeSet<String>) {
        let kind = value.field("@type").and_then(Located::text).and_then(|kind| kind.rsplit('/').next());
        match (kind, value.field("value")) {
            (Some("google.protobuf.StringValue"), Some(string)) => return self.add_text(string, texts),
            (Some("google.protobuf.Struct"), Some(structure)) => return self.add_structure(field, structure, texts),
            _ => {}
        }
        value.items().iter().for_each(|item| self.search(field, item, texts));
        value.fields().iter().for_each(|Field { name, value, .. }| self.search(name, value, texts));
    }

    fn add_text(&mut self, string: &Located, texts: &mut BTreeSet<String>) {
        let Some(text) = string.text().filter(|text| DOCUMENT.iter().any(|name| text.contains(name))) else { return };
        if !texts.insert(text.to_owned()) {
            return;
        }
        let indentation = self.block_indentation(string.position);
        let place = |inner: Position| inner.within(string.position, indentation);
        // The filter reads JSON only.
        if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
            self.rejected.push(json_error(&error, place, "expected a JSON object with `trustDomain` and `policies`"));
            return;
        }
        for mut document in located::parse_all(text).unwrap_or_else(|_| vec![string.clone()]) {
            document.embed(string.position, indentation);
            self.documents.push(of_route(&document).unwrap_or(&document).clone());
        }
    }

    /// Adds the document in a `Struct` of the field with this name.
    fn add_structure(&mut self, field: &str, structure: &Located, texts: &mut BTreeSet<String>) {
        let Some(document) = of_route(structure).or_else(|| Some(structure).filter(|value| is_document(value))) else {
            self.search(field, structure, texts);
            return;
        };
        // Envoy passes it to a dynamic module as JSON.
        if ["filter_config", "filterConfig"].contains(&field) {
            if serde_json::to_string(document).is_ok_and(|text| texts.insert(text)) {
                self.documents.push(document.clone());
            }
            return;
        }
        let message = "found a `google.protobuf.Struct`, which reaches a Wasm filter as protobuf bytes";
        let help = "write the document as a `google.protobuf.StringValue` with JSON";
        self.rejected.push(syntax(Some(document.position), message.to_owned(), help));
    }

    /// Returns the number of characters before each line of a literal block whose content begins at this position.
    fn block_indentation(&self, Position { line, column }: Position) -> Option<u32> {
        let indentation = column.checked_sub(1)?;
        let before = usize::try_from(indentation).ok()?;
        let is_first = self.text.get(line)?.chars().take(before).all(char::is_whitespace);
        let mut above = (1..line).rev().filter_map(|line| self.text.get(line));
        let header = above.find(|line| !line.trim().is_empty())?;
        let is_block = header.split_whitespace().next_back().is_some_and(|word| word.starts_with('|'));
        (is_first && is_block).then_some(indentation)
    }
}

/// Returns the document in the configuration of a route.
fn of_route(value: &Located) -> Option<&Located> {
    value.field("configuration").filter(|inner| is_document(inner))
}

fn is_document(value: &Located) -> bool {
    value.fields().iter().any(|Field { name, .. }| DOCUMENT.contains(&&**name))
}

/// Parses a file. A JSON file is not read as YAML, because the filter would reject it.
fn parse(file: &Path, text: &str) -> Result<Vec<Located>, Placed> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let begins_like_json = || {
        let inside = text.trim_start().strip_prefix('{').map(str::trim_start);
        inside.is_some_and(|inside| inside.starts_with('"'))
    };
    let is_yaml = matches!(extension, Some("yaml" | "yml"));
    let must_be_json = extension == Some("json") || (!is_yaml && begins_like_json());
    if text.trim().is_empty() {
        return Err(syntax(None, "the file is empty".to_owned(), EXPECTED));
    }
    if must_be_json {
        let values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
        if let Some(error) = values.filter_map(Result::err).next() {
            return Err(json_error(&error, |position| position, EXPECTED));
        }
    }
    located::parse_all(text).map_err(|SyntaxError { position, message }| {
        if text.contains(TEMPLATE) {
            return syntax(position, IS_TEMPLATE.to_owned(), "the command reads no templates");
        }
        syntax(position, message, EXPECTED)
    })
}

fn syntax(position: Option<Position>, message: String, help: &str) -> Placed {
    let diagnostic = Diagnostic { pointer: String::new(), code: Code::Syntax, message, help: help.to_owned() };
    Placed { position, diagnostic }
}

/// Returns an error in the JSON of a file or string, in which `place` moves a position to its place in the file.
fn json_error(error: &serde_json::Error, place: impl Fn(Position) -> Position, help: &str) -> Placed {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let position = Position { line: number(error.line()), column: number(error.column()).max(1) };
    syntax(Some(place(position)), without_place(error), help)
}

/// Returns the message of an error without its place, which is shown separately.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
}
