//! Finds documents and test tables in files: bare, in Kubernetes resources, and in configurations of Envoy.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

use serde::de::IgnoredAny;
use spiffe_authz::diagnostic::{Code, Diagnostic};

use crate::base64_text;
use crate::input;
use crate::istio::fields::{IS_TEMPLATE, TEMPLATE};
use crate::istio::remark::{Origin, Remark};
use crate::istio::resource::{Resources, can_be_policy};
use crate::lines::Lines;
use crate::located::{self, Field, Located, Position, SyntaxError};
use crate::placed::Placed;
use crate::suggestion::similar;

/// The next step after a file without a document.
const EXPECTED: &str = "expected a JSON or YAML object with `trustDomain` and `policies`, or AuthorizationPolicies";
/// The next step after a string without a document.
const EXPECTED_JSON: &str = "expected a JSON object with `trustDomain` and `policies`";
/// The resources with a document as an object in `pluginConfig`, and the path to the object with this field.
const PLUGINS: [(&str, &[&str]); 2] = [("WasmPlugin", &["spec"]), ("TrafficExtension", &["spec", "wasm"])];
/// The part of the names of the images in this project's releases.
const IMAGE: &str = "spiffe-authz";
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
    /// The AuthorizationPolicies.
    pub(crate) policies: Vec<(Located, Origin)>,
    /// The resources that can be AuthorizationPolicies, and cannot be read.
    pub(crate) lost: Vec<Remark>,
}

/// The values of a file that its other values decide about.
#[derive(Default)]
struct Seen {
    /// The documents in a configuration of Envoy.
    texts: BTreeSet<String>,
    /// The images of the plugins with a document.
    images: BTreeSet<String>,
    /// The plugins without a document.
    plugins: Vec<Plugin>,
}

/// A WasmPlugin or TrafficExtension without a document.
struct Plugin {
    position: Position,
    image: Option<String>,
    /// The value of `pluginConfig`.
    configuration: Option<Located>,
}

impl Source {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, and in the inner result if it is neither YAML nor
    /// JSON.
    pub(crate) fn read(file: &Path) -> io::Result<Result<Self, (Rc<Lines>, Placed)>> {
        let text = input::read_text(file).map_err(|error| input::named(file, &error))?;
        Ok(Self::parse(file, text))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Returns an error if the text is neither YAML nor JSON.
    pub(crate) fn parse(file: &Path, text: String) -> Result<Self, (Rc<Lines>, Placed)> {
        let values = match parse(file, &text) {
            Ok(values) => values,
            Err(unusable) => return Err((Rc::new(text.into()), unusable)),
        };
        let mut source = Self {
            text: Rc::new(text.into()),
            documents: Vec::new(),
            unknown: Vec::new(),
            rejected: Vec::new(),
            tables: Vec::new(),
            policies: Vec::new(),
            lost: Vec::new(),
        };
        let mut seen = Seen::default();
        let name = file.display().to_string();
        for value in values {
            if source.add_policies(&value, &name) {
                source.add(value, &mut seen);
            }
        }
        for plugin in std::mem::take(&mut seen.plugins) {
            source.add_plugin(plugin, &seen.images);
        }
        Ok(source)
    }

    /// Returns the documents. Unknown values next to one or to an AuthorizationPolicy, and those of a file that the user named,
    /// count as documents, so that the compiler reports what is wrong with them.
    pub(crate) fn documents(&self, is_named: bool) -> Vec<&Located> {
        let is_ours = is_named || !self.documents.is_empty() || !self.rejected.is_empty() || self.has_policies();
        let unknown = self.unknown.iter().filter(|_| is_ours);
        let mut documents: Vec<&Located> = self.documents.iter().chain(unknown).collect();
        documents.sort_by_key(|document| document.position);
        documents
    }

    /// Returns the error for a file without a document.
    pub(crate) fn without_document(&self) -> Placed {
        let Some(table) = self.tables.first() else { return without_document() };
        let message = "this is a test table, and not a document".to_owned();
        let help = "run it with `spiffe-authz test`".to_owned();
        let diagnostic = Diagnostic { pointer: String::new(), code: Code::Unsupported, message, help };
        Placed { position: Some(table.position), diagnostic }
    }

    /// Returns the AuthorizationPolicies of sources, and what could be one.
    pub(crate) fn resources<'s>(sources: impl Iterator<Item = &'s Self>) -> Resources<'s> {
        let mut resources = Resources::default();
        for Self { policies, lost, .. } in sources {
            resources.policies.extend(policies.iter().map(|(policy, origin)| (policy, origin.clone())));
            resources.lost.extend(lost.iter().cloned());
        }
        resources
    }

    /// Returns `true` if the file has an AuthorizationPolicy, or what could be one.
    pub(crate) fn has_policies(&self) -> bool {
        !self.policies.is_empty() || !self.lost.is_empty()
    }

    /// Adds the AuthorizationPolicies in a value. Returns `true` if the value can also have something else. Without these
    /// fields, it is not a resource.
    fn add_policies(&mut self, value: &Located, file: &str) -> bool {
        if !["kind", "apiVersion", "spec", "items"].iter().any(|name| value.field(name).is_some()) {
            return true;
        }
        let mut resources = Resources::default();
        resources.add(value, file);
        self.policies.extend(resources.policies.into_iter().map(|(policy, origin)| (policy.clone(), origin)));
        let is_lost = value.field("kind").is_none() && !resources.lost.is_empty();
        self.lost.extend(resources.lost);
        !is_lost
    }

    /// Adds the documents and tables in a value.
    fn add(&mut self, value: Located, seen: &mut Seen) {
        let text = |name: &str| value.field(name).and_then(Located::text);
        let (kind, version) = (text("kind"), text("apiVersion"));
        if kind.is_some_and(can_be_policy) {
            return;
        }
        let Some((kind, _)) = kind.zip(version) else {
            self.add_bare(value, seen);
            return;
        };
        if kind.ends_with("List") && value.field("items").is_some() {
            for item in value.field("items").map_or(&[][..], Located::items) {
                self.add(item.clone(), seen);
            }
            return;
        }
        if let Some((_, path)) = PLUGINS.iter().find(|(plugin, _)| *plugin == kind) {
            let specification = path.iter().try_fold(&value, |value, name| value.field(name)).unwrap_or(&value);
            let image = specification.field("url").and_then(Located::text).map(str::to_owned);
            let configuration = specification.field("pluginConfig");
            if let Some(document) = configuration.filter(|configuration| is_document(configuration)) {
                self.documents.push(document.clone());
                seen.images.extend(image);
            } else {
                let (position, configuration) = (specification.position, configuration.cloned());
                seen.plugins.push(Plugin { position, image, configuration });
            }
            return;
        }
        self.search("", &value, seen);
    }

    /// Adds a plugin without a document. That of another module has an image of its own, and needs none.
    fn add_plugin(&mut self, Plugin { position, image, configuration }: Plugin, images: &BTreeSet<String>) {
        let is_image = image.as_ref().is_some_and(|image| images.contains(image) || image.contains(IMAGE));
        let fields = configuration.as_ref().map(Located::fields).unwrap_or_default();
        let is_misspelled = fields.iter().any(|field| similar(&field.name, DOCUMENT).is_some());
        match configuration {
            Some(configuration) if is_image || is_misspelled => self.documents.push(configuration),
            Some(configuration) if image.is_none() => self.unknown.push(configuration),
            None if is_image => {
                let message = "the resource has no document".to_owned();
                let help = "set `pluginConfig` to an object with `trustDomain` and `policies`";
                self.rejected.push(syntax(Some(position), message, help));
            }
            _ => {}
        }
    }

    fn add_bare(&mut self, value: Located, seen: &mut Seen) {
        let has = |name: &str| value.fields().iter().any(|field| field.name == name);
        if has("cases") && !has("trustDomain") {
            self.tables.push(value);
        } else if is_document(&value) {
            self.documents.push(value);
        } else {
            let count = self.documents.len();
            self.search("", &value, seen);
            if self.documents.len() == count && !ENVOY.iter().any(|name| has(name)) {
                self.unknown.push(value);
            }
        }
    }

    /// Adds the documents in the value of a field in a configuration of Envoy. A dump repeats them, so each of them counts
    /// once.
    fn search(&mut self, field: &str, value: &Located, seen: &mut Seen) {
        let kind = value.field("@type").and_then(Located::text).and_then(|kind| kind.rsplit('/').next());
        match (kind, value.field("value")) {
            (Some("google.protobuf.StringValue"), Some(string)) => {
                let indentation = self.block_indentation(string.position);
                return self.add_text(string.text().unwrap_or_default(), string.position, indentation, seen);
            }
            (Some("google.protobuf.BytesValue"), Some(string)) => return self.add_bytes(string, seen),
            (Some("google.protobuf.Struct"), Some(structure)) => return self.add_structure(field, structure, seen),
            _ => {}
        }
        value.items().iter().for_each(|item| self.search(field, item, seen));
        value.fields().iter().for_each(|Field { name, value, .. }| self.search(name, value, seen));
    }

    /// Adds the document in bytes, which Envoy passes to the filter as it passes a string.
    fn add_bytes(&mut self, string: &Located, seen: &mut Seen) {
        match String::from_utf8(string.text().and_then(base64_text::decode).unwrap_or_default()) {
            Ok(text) => self.add_text(&text, string.position, None, seen),
            Err(error) if names_document(&String::from_utf8_lossy(error.as_bytes())) => {
                let message = "the bytes are not UTF-8".to_owned();
                self.rejected.push(syntax(Some(string.position), message, EXPECTED_JSON));
            }
            Err(_) => {}
        }
    }

    /// Adds the document in the text of a string at `start`, whose lines begin as in [`Position::within`].
    fn add_text(&mut self, text: &str, start: Position, indentation: Option<u32>, seen: &mut Seen) {
        if !names_document(text) || !seen.texts.insert(text.to_owned()) {
            return;
        }
        let place = |inner: Position| inner.within(start, indentation);
        // The filter reads JSON only.
        if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
            self.rejected.push(json_error(&error, place, EXPECTED_JSON));
            return;
        }
        for mut document in located::parse_all(text).unwrap_or_else(|_| vec![Located::string(start, text)]) {
            document.embed(start, indentation);
            self.documents.push(of_route(&document).unwrap_or(&document).clone());
        }
    }

    /// Adds the document in a `Struct` of the field with this name.
    fn add_structure(&mut self, field: &str, structure: &Located, seen: &mut Seen) {
        let Some(document) = of_route(structure).or_else(|| Some(structure).filter(|value| is_document(value))) else {
            self.search(field, structure, seen);
            return;
        };
        // Envoy passes it to a dynamic module as JSON.
        if ["filter_config", "filterConfig"].contains(&field) {
            if serde_json::to_string(document).is_ok_and(|text| seen.texts.insert(text)) {
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

/// Returns the error for files without a document.
pub(crate) fn without_document() -> Placed {
    syntax(None, "there is no document".to_owned(), EXPECTED)
}

fn names_document(text: &str) -> bool {
    DOCUMENT.iter().any(|name| text.contains(name))
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
