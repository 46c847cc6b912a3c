//! The settings of a deployment, from options, a file, or an object of the cluster.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use clap::ValueEnum;

use super::Form;
use super::filter_file::FilterFile;
use super::object::{Image, Kind};
use super::policies::Settings;
use super::proxies::Proxies;
use crate::input;
use crate::located::{Field, Located, Position};
use crate::mesh::MeshSettings;
use crate::yaml;

/// The name of objects without `--name`.
const NAME: &str = "spiffe-authz";
/// The fields of a document that the command writes itself.
const OWN_FIELDS: [&str; 2] = ["policies", "scope"];

/// The kind of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum To {
    /// WasmPlugins of Istio
    WasmPlugin,
    /// TrafficExtensions of Istio 1.30 or newer
    TrafficExtension,
    /// EnvoyFilters of Istio, for a filter in a file
    EnvoyFilter,
    /// A file for Envoy's `path_config_source`
    Ecds,
    /// The filters for a bootstrap configuration of Envoy
    Filters,
}

/// The settings of a render. Options take precedence over a file.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Values {
    /// The kind of the output
    #[arg(long, value_enum)]
    to: Option<To>,
    /// The proxies that are configured; can be repeated [default for AuthorizationPolicies: sidecars]
    ///
    /// `sidecars`: the sidecars of every namespace. `sidecars:NAMESPACE`, `sidecars:NAMESPACE/LABEL=VALUE,…`: those of a
    /// namespace, or those with these labels. `gateway:NAMESPACE/LABEL=VALUE,…`: gateways, such as
    /// `gateway:istio-system/istio=ingressgateway`. `waypoint:NAMESPACE/KIND/NAME`: a waypoint, such as
    /// `waypoint:default/Gateway/waypoint`
    #[arg(long, value_name = "PROXIES", value_parser = Proxies::parse)]
    proxies: Vec<Proxies>,
    /// The URL of the image with the Wasm filter, for a WasmPlugin or a TrafficExtension
    #[arg(long, value_name = "URL")]
    image: Option<String>,
    /// The SHA-256 digest of the image
    #[arg(long, value_name = "DIGEST", value_parser = parse_digest)]
    #[serde(deserialize_with = "digest")]
    sha256: Option<String>,
    /// The path of the Wasm filter in the file system of the proxies
    #[arg(long, value_name = "PATH", conflicts_with = "module")]
    wasm: Option<String>,
    /// The path of the dynamic module in the file system of the proxies
    #[arg(long, value_name = "PATH")]
    module: Option<String>,
    /// A port of TCP connections that a WasmPlugin decides on, instead of requests; can be repeated
    #[arg(long = "tcp-port", value_name = "PORT")]
    tcp_ports: Vec<u16>,
    /// The beginning of the names of objects [default: spiffe-authz]
    #[arg(long)]
    name: Option<String>,
    /// The namespace whose policies apply to the whole mesh; only in a file, where it takes the place of the option.
    #[arg(skip)]
    root_namespace: Option<String>,
    /// The fields of the documents other than the policies; only in a file.
    #[arg(skip)]
    document: Option<Located>,
}

fn parse_digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_digest = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_digest { Ok(digits.to_owned()) } else { Err("expected 64 hexadecimal digits in lower case".to_owned()) }
}

fn digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_digest(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Values {
    /// Reads a file of values.
    ///
    /// # Errors
    /// Returns an error that names the file.
    fn read(file: &Path) -> io::Result<Self> {
        let text = input::read_text(file).map_err(|error| input::named(file, &error))?;
        Self::parse(&text).map_err(|message| io::Error::other(format!("{}: {message}", input::name(file))))
    }

    /// Parses values.
    ///
    /// # Errors
    /// Returns the place and the description of the error.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let values: Self = yaml::from_str(text).map_err(|error| yaml::message(&error))?;
        let fields = values.document.as_ref().map_or(&[][..], Located::fields);
        match fields.iter().find(|field| OWN_FIELDS.contains(&&*field.name)) {
            Some(Field { position: Position { line, column }, name, .. }) => Err(format!(
                "line {line}, column {column}: unexpected field `{name}` of `document` (the command writes it)"
            )),
            None => Ok(values),
        }
    }

    /// Returns these values, completed by those of a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(crate) fn with_file(&self, file: Option<&PathBuf>) -> io::Result<Self> {
        let Some(file) = file else { return Ok(self.clone()) };
        let Self { to, proxies, image, sha256, wasm, module, tcp_ports, name, root_namespace, document } =
            Self::read(file)?;
        let own = self.clone();
        // The other code of the filter must not stay when an option replaces it.
        let has_code = own.wasm.is_some() || own.module.is_some();
        Ok(Self {
            to: own.to.or(to),
            proxies: if own.proxies.is_empty() { proxies } else { own.proxies },
            image: own.image.or(image),
            sha256: own.sha256.or(sha256),
            wasm: if has_code { own.wasm } else { wasm },
            module: if has_code { own.module } else { module },
            tcp_ports: if own.tcp_ports.is_empty() { tcp_ports } else { own.tcp_ports },
            name: own.name.or(name),
            root_namespace,
            document,
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(NAME)
    }

    /// Returns the proxies, or those that AuthorizationPolicies configure.
    ///
    /// # Errors
    /// Returns an error without proxies for a document, which can be that of one workload.
    pub(crate) fn proxies(&self, is_document: bool) -> io::Result<Vec<Proxies>> {
        match self.proxies.as_slice() {
            [] if is_document => Err(io::Error::other(
                "expected the proxies of the document (use `--proxies`, such as `--proxies sidecars:default/app=httpbin`)",
            )),
            [] => Ok(vec![Proxies::EverySidecar]),
            proxies => Ok(proxies.to_vec()),
        }
    }

    /// Returns the form of the output.
    ///
    /// # Errors
    /// Returns an error if a setting that the form needs is missing, or if it has no place for another one.
    pub(crate) fn form(&self) -> io::Result<Form> {
        let missing = |what: &str| io::Error::other(format!("expected {what}"));
        let to = self.to.ok_or_else(|| missing("what to write (use `--to`)"))?;
        let image = || {
            let url = self.image.clone().ok_or_else(|| missing("the URL of the image (use `--image`)"))?;
            let sha256 = self.sha256.clone().ok_or_else(|| {
                missing("the digest of the image, without which the registry decides what runs (use `--sha256`)")
            })?;
            Ok::<_, io::Error>(Image { url, sha256 })
        };
        let file = || match (&self.wasm, &self.module) {
            (Some(path), None) => Ok(FilterFile::Wasm(path.clone())),
            (None, Some(path)) => Ok(FilterFile::Module(path.clone())),
            _ => Err(missing("one file with the filter (use `--wasm` or `--module`)")),
        };
        if !self.tcp_ports.is_empty() && to != To::WasmPlugin {
            return Err(missing("`--to wasm-plugin` with `--tcp-port`"));
        }
        Ok(match to {
            To::WasmPlugin => Form::Objects(Kind::WasmPlugin { image: image()?, tcp_ports: self.tcp_ports.clone() }),
            To::TrafficExtension => Form::Objects(Kind::TrafficExtension { image: image()? }),
            To::EnvoyFilter => Form::Objects(Kind::EnvoyFilter { file: file()? }),
            To::Ecds => Form::ExtensionConfig(file()?),
            To::Filters => Form::Filters(file()?),
        })
    }

    /// Returns the settings of the documents.
    ///
    /// # Errors
    /// Returns an error if the documents and the mesh have different trust domains.
    pub(crate) fn settings(&self, mut mesh: MeshSettings, form: &Form, allows_partial: bool) -> io::Result<Settings> {
        let head = self.document.as_ref().map_or(&[][..], Located::fields).to_vec();
        mesh.complete(&head)?;
        if let Some(root_namespace) = &self.root_namespace {
            mesh.root_namespace.clone_from(root_namespace);
        }
        Ok(Settings { mesh, head, allows_partial, knows_workload: form.knows_workload() })
    }
}
