//! The files of examples/bootstrap, with what depends on the place substituted.
//!
//! Every substitution must find its value in the file: an example that changes without this harness fails a test.

mod adapter;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

pub use self::adapter::Adapter;

/// The socket of the SPIRE agent in the examples.
pub const AGENT_SOCKET: &str = "/run/secrets/workload-spiffe-uds/socket";
/// The place of the Wasm filter in the examples.
pub const WASM: &str = "/etc/spiffe-authz/spiffe-authz.wasm";
/// The place of the dynamic module in the examples.
pub const MODULE: &str = "/etc/spiffe-authz/libspiffe_authz.so";
/// The server's mTLS port.
pub const SERVER_PORT: u16 = 8443;
/// The port of a tunnel's server.
pub const TUNNEL_PORT: u16 = 15008;
/// The port of the workload behind the server.
pub const UPSTREAM_PORT: u16 = 8080;
/// The port of the database behind the server of TCP.
pub const DATABASE_PORT: u16 = 5432;
/// The client's plain port.
pub const CLIENT_PORT: u16 = 9001;
/// The admin port of either.
pub const ADMIN_PORT: u16 = 9901;
/// Where the client finds the server.
pub const SERVER_HOST: &str = "httpbin.example.org";
/// Where callers and the server find the gateway.
pub const GATEWAY_HOST: &str = "gateway.example.org";
/// The network filters of the listener in every file.
pub const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters";
/// Where the server's HTTP connection manager stands in its file.
pub const CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config";
/// Where the filter stands in the server's file.
const FILTER: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0";
/// Where the filter stands in the file of the server of TCP.
pub const TCP_FILTER: &str = "/static_resources/listeners/0/filter_chains/0/filters/1";
/// Where `tcp_proxy` stands there.
pub const TCP_PROXY: &str = "/static_resources/listeners/0/filter_chains/0/filters/2/typed_config";
/// Where the listener's TLS settings stand in the server's file.
pub const TLS: &str = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";

/// Where a client's TLS settings stand in its file.
pub const CLIENT_TLS: &str = "/static_resources/clusters/0/transport_socket/typed_config";

const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The directory of the examples.
#[must_use]
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bootstrap")
}

/// Where the Wasm filter's configuration stands in the server's file.
pub const CONFIGURATION: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config/configuration/value";

/// An Envoy bootstrap that is being fitted to its place.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    value: Value,
    adapter: Adapter,
}

/// A bootstrap of no example, with the Wasm filter if any.
impl From<Value> for Bootstrap {
    fn from(value: Value) -> Self {
        Self { value, adapter: Adapter::Wasm }
    }
}

impl Bootstrap {
    /// Reads a file of examples/bootstrap, such as `server/envoy.yaml`.
    ///
    /// # Errors
    /// Returns an error if it is not there, or no YAML.
    pub fn example(name: &str) -> Result<Self> {
        let path = examples().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let value = serde_saphyr::from_str(&text).with_context(|| format!("{name} is no YAML"))?;
        Ok(Self { value, adapter: Adapter::Wasm })
    }

    /// Replaces every text that is `from`.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn text(mut self, from: &str, to: &str) -> Result<Self> {
        let count = replace(&mut self.value, &json!(from), &json!(to));
        ensure!(count > 0, "the example holds no `{from}`");
        Ok(self)
    }

    /// Replaces every port that is `from`; 0 lets the kernel choose.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn port(mut self, from: u16, to: u16) -> Result<Self> {
        let count = replace_ports(&mut self.value, from, to);
        ensure!(count > 0, "the example holds no port {from}");
        Ok(self)
    }

    /// Replaces the endpoint `host`, on the server's port, by an address here.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn endpoint(mut self, host: &str, to: SocketAddr) -> Result<Self> {
        let from = json!({"address": host, "port_value": SERVER_PORT});
        let count = replace(&mut self.value, &from, &json!({"address": to.ip(), "port_value": to.port()}));
        ensure!(count > 0, "the example holds no endpoint {host}:{SERVER_PORT}");
        Ok(self)
    }

    /// Makes the one listener listen on this very port of 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if the example has no listener.
    pub fn listening_on(self, port: u16) -> Result<Self> {
        self.set("/static_resources/listeners/0/address/socket_address/port_value", json!(port))
    }

    /// Sets fields of the listener's HTTP connection manager, wherever that stands among the filters.
    ///
    /// # Errors
    /// Returns an error if there is none, or `fields` is no object.
    pub fn connection_manager(mut self, fields: Value) -> Result<Self> {
        let filters = self.value.pointer_mut(FILTERS);
        let filters = filters.and_then(Value::as_array_mut).context("the example has no filters")?;
        let manager = filters.iter_mut().find(|filter| filter["name"] == HTTP_CONNECTION_MANAGER);
        let manager = manager.and_then(|filter| filter["typed_config"].as_object_mut());
        let Value::Object(fields) = fields else { anyhow::bail!("the fields are no object") };
        manager.context("the example has no HTTP connection manager")?.extend(fields);
        Ok(self)
    }

    /// Sets what stands at a JSON pointer.
    ///
    /// # Errors
    /// Returns an error if nothing stands there.
    pub fn set(mut self, pointer: &str, value: Value) -> Result<Self> {
        *self.value.pointer_mut(pointer).with_context(|| format!("the example has no {pointer}"))? = value;
        Ok(self)
    }

    /// Removes a field of the object at a JSON pointer.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn without(mut self, pointer: &str, field: &str) -> Result<Self> {
        let removed =
            self.value.pointer_mut(pointer).and_then(Value::as_object_mut).and_then(|fields| fields.remove(field));
        ensure!(removed.is_some(), "the example has no {pointer}/{field}");
        Ok(self)
    }

    /// What stands at a JSON pointer.
    ///
    /// # Errors
    /// Returns an error if nothing stands there.
    pub fn at(&self, pointer: &str) -> Result<&Value> {
        self.value.pointer(pointer).with_context(|| format!("the example has no {pointer}"))
    }

    /// Names this adapter where it is, instead of its place in the examples.
    ///
    /// # Errors
    /// Returns an error if there is no such adapter, or the example does not name its place.
    pub fn in_place(self, adapter: Adapter) -> Result<Self> {
        let (place, variable) = match adapter {
            Adapter::Wasm => (WASM, crate::tools::WASM),
            Adapter::Module => (MODULE, crate::tools::MODULE),
        };
        self.text(place, &crate::tools::path(variable)?.to_string_lossy())
    }

    /// The server's example, for a place where only loopback and free ports are used.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn server(upstream_port: u16) -> Result<Self> {
        Self::server_with(Adapter::Wasm, upstream_port)
    }

    /// As `server`, with this adapter.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn server_with(adapter: Adapter, upstream_port: u16) -> Result<Self> {
        let example = Self { adapter, ..Self::example(adapter.example())? };
        example.guarding()?.port(UPSTREAM_PORT, upstream_port)
    }

    /// The example of the server with federation and this adapter, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn federated_server(adapter: Adapter, upstream_port: u16) -> Result<Self> {
        Self::example("federation/server/envoy.yaml")?.with(adapter)?.guarding()?.port(UPSTREAM_PORT, upstream_port)
    }

    /// The gateway's example with this adapter, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn gateway(adapter: Adapter, server: SocketAddr) -> Result<Self> {
        Self::example("federation/gateway/envoy.yaml")?.with(adapter)?.endpoint(SERVER_HOST, server)?.guarding()
    }

    /// What every Envoy with the filter needs to run here.
    fn guarding(self) -> Result<Self> {
        let adapter = self.adapter;
        self.in_place(adapter)?.text("0.0.0.0", "127.0.0.1")?.port(SERVER_PORT, 0)?.port(ADMIN_PORT, 0)
    }

    /// The example of a server of TCP, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tcp(database_port: u16) -> Result<Self> {
        Self::tcp_with(Adapter::Wasm, database_port)
    }

    /// As `tcp`, with this adapter.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tcp_with(adapter: Adapter, database_port: u16) -> Result<Self> {
        let example = Self { adapter, ..Self::example(adapter.tcp_example())? };
        example.guarding()?.port(DATABASE_PORT, database_port)
    }

    /// The client's example, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn client(server_port: u16) -> Result<Self> {
        Self::example("client/envoy.yaml")?
            .text(SERVER_HOST, "127.0.0.1")?
            .port(SERVER_PORT, server_port)?
            .port(CLIENT_PORT, 0)?
            .port(ADMIN_PORT, 0)
    }

    /// The example of a client with federation, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn federated_client(server: SocketAddr, gateway: SocketAddr) -> Result<Self> {
        Self::example("federation/client/envoy.yaml")?
            .endpoint(SERVER_HOST, server)?
            .endpoint(GATEWAY_HOST, gateway)?
            .port(CLIENT_PORT, 0)?
            .port(ADMIN_PORT, 0)
    }

    /// Names the dynamic module of the server of TCP, and links it into the directory that Envoy is started with: releases before
    /// 1.40 take no file there.
    ///
    /// # Errors
    /// Returns an error if there is no module, or no filter where it is expected.
    pub fn named_module(self, directory: &Path) -> Result<Self> {
        let link = directory.join("libspiffe_authz.so");
        if !link.exists() {
            symlink(crate::tools::path(crate::tools::MODULE)?, link)?;
        }
        self.set(&format!("{TCP_FILTER}/typed_config/dynamic_module_config"), json!({"name": "spiffe_authz"}))
    }

    /// The example of a tunnel's server, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tunnel_server(upstream_port: u16) -> Result<Self> {
        Self::tunnel_server_with(Adapter::Wasm, upstream_port)
    }

    /// As `tunnel_server`, with this adapter.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tunnel_server_with(adapter: Adapter, upstream_port: u16) -> Result<Self> {
        Self::example("tunnel/server/envoy.yaml")?
            .with_inner(adapter)?
            .in_place(adapter)?
            .text("0.0.0.0", "127.0.0.1")?
            .port(TUNNEL_PORT, 0)?
            .port(ADMIN_PORT, 0)?
            .port(UPSTREAM_PORT, upstream_port)
    }

    /// The example of a tunnel's client, for the same place.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tunnel_client(server_port: u16) -> Result<Self> {
        Self::example("tunnel/client/envoy.yaml")?
            .text(SERVER_HOST, "127.0.0.1")?
            .port(TUNNEL_PORT, server_port)?
            .port(CLIENT_PORT, 0)?
            .port(ADMIN_PORT, 0)
    }

    /// Takes identity and trust from a SPIRE agent.
    ///
    /// # Errors
    /// Returns an error if the example does not name the agent's socket.
    pub fn agent(self, socket: &Path) -> Result<Self> {
        self.text(AGENT_SOCKET, &socket.to_string_lossy())
    }

    /// Takes the server's identity and trust from files instead of an agent: secrets as Envoy reads them.
    ///
    /// # Errors
    /// Returns an error if the example has no TLS settings where they are expected.
    pub fn secrets(self, certificate: &Path, validation: &Path) -> Result<Self> {
        self.secrets_at(TLS, certificate, validation)
    }

    /// Takes every secret of the example that comes from an agent from these files instead.
    ///
    /// # Errors
    /// Returns an error if the example has no such secret.
    pub fn every_secret(mut self, certificate: &Path, validation: &Path) -> Result<Self> {
        let files = [("default", certificate), ("ROOTCA", validation)];
        let count = replace_secrets(&mut self.value, &files);
        ensure!(count > 0, "the example takes no secret from an agent");
        Ok(self)
    }

    /// Takes identity and trust of the TLS settings at a JSON pointer from files.
    ///
    /// # Errors
    /// Returns an error if there are none.
    pub fn secrets_at(self, tls: &str, certificate: &Path, validation: &Path) -> Result<Self> {
        self.set(
            &format!("{tls}/common_tls_context/tls_certificate_sds_secret_configs/0"),
            secret_file("default", certificate),
        )?
        .set(
            &format!("{tls}/common_tls_context/combined_validation_context/validation_context_sds_secret_config"),
            secret_file("ROOTCA", validation),
        )
    }

    /// The filter's configuration document.
    ///
    /// # Errors
    /// Returns an error if the example has none where it is expected, or it is no JSON.
    pub fn document(&self) -> Result<Value> {
        let text = self.at(&self.adapter.configuration())?.as_str().context("the configuration is no text")?;
        Ok(serde_json::from_str(text)?)
    }

    /// Gives the filter another configuration: a document, or any text.
    ///
    /// # Errors
    /// Returns an error if the example has none where it is expected.
    pub fn configuration(self, text: &str) -> Result<Self> {
        let pointer = self.adapter.configuration();
        self.set(&pointer, json!(text))
    }

    /// Puts filters of Envoy's own before ours. What they find out and set as dynamic metadata under these names is handed to the
    /// filter as its reference says.
    ///
    /// # Errors
    /// Returns an error if the example has no filters where they are expected.
    pub fn filters_before(self, filters: Vec<Value>, metadata_of: &[&str]) -> Result<Self> {
        let pointer = format!("{CONNECTION_MANAGER}/http_filters");
        let mut list = filters;
        if self.adapter == Adapter::Module {
            list.push(metadata_state(metadata_of));
        }
        list.extend(self.at(&pointer)?.as_array().context("no filters")?.iter().cloned());
        self.set(&pointer, json!(list))
    }

    /// Gives the network filter another configuration.
    ///
    /// # Errors
    /// Returns an error if the example has none where it is expected.
    pub fn tcp_configuration(self, text: &str) -> Result<Self> {
        let path = match self.adapter {
            Adapter::Wasm => "config/configuration/value",
            Adapter::Module => "filter_config/value",
        };
        self.set(&format!("{TCP_FILTER}/typed_config/{path}"), json!(text))
    }

    /// Moves the listeners into a file that Envoy watches; returns the bootstrap, and that file's content.
    ///
    /// # Errors
    /// Returns an error if the example has no listener.
    pub fn watched_listeners(mut self, file: &Path) -> Result<(Self, String)> {
        let listeners = self.listeners_file()?;
        let resources = self.value.as_object_mut().context("the bootstrap is no object")?;
        resources["static_resources"]["listeners"] = json!([]);
        let source = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
        resources.insert("dynamic_resources".to_owned(), json!({"lds_config": source}));
        Ok((self, listeners))
    }

    /// The content of a file of listeners, as Envoy watches it.
    ///
    /// # Errors
    /// Returns an error if the example has no listener.
    pub fn listeners_file(&self) -> Result<String> {
        let mut listener = self.at("/static_resources/listeners/0")?.clone();
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        Ok(json!({"resources": [listener]}).to_string())
    }

    /// Moves the filter's settings into a file that Envoy watches (extension config discovery); returns the bootstrap,
    /// and that file's content. Such an update leaves the listener and its connections alone.
    ///
    /// # Errors
    /// Returns an error if the example has no filter where it is expected.
    pub fn watched_filter(self, file: &Path) -> Result<(Self, String)> {
        self.watched_at(FILTER, file)
    }

    /// As `watched_filter`, of the server of TCP.
    ///
    /// # Errors
    /// Returns an error if the example has no filter where it is expected.
    pub fn watched_tcp_filter(self, file: &Path) -> Result<(Self, String)> {
        self.watched_at(TCP_FILTER, file)
    }

    fn watched_at(mut self, pointer: &str, file: &Path) -> Result<(Self, String)> {
        let content = self.filter_file_at(pointer)?;
        let source = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
        let filter = self.value.pointer_mut(pointer).context("the example has no filter")?;
        let kind = filter["typed_config"]["@type"].clone();
        let discovery = json!({"config_source": source, "type_urls": [kind]});
        *filter = json!({"name": filter["name"], "config_discovery": discovery});
        Ok((self, content))
    }

    /// The content of a file of the filter's settings, as Envoy watches it.
    ///
    /// # Errors
    /// Returns an error if the example has no filter where it is expected.
    pub fn filter_file(&self) -> Result<String> {
        self.filter_file_at(FILTER)
    }

    /// As `filter_file`, of the server of TCP.
    ///
    /// # Errors
    /// Returns an error if the example has no filter where it is expected.
    pub fn tcp_filter_file(&self) -> Result<String> {
        self.filter_file_at(TCP_FILTER)
    }

    fn filter_file_at(&self, pointer: &str) -> Result<String> {
        let mut filter = self.at(pointer)?.clone();
        filter["@type"] = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
        Ok(json!({"resources": [filter]}).to_string())
    }

    /// The text for Envoy.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.value.to_string()
    }
}

/// Envoy's filter that keeps the dynamic metadata of these filters as JSON, which the module reads.
fn metadata_state(filters: &[&str]) -> Value {
    let states: Vec<Value> = filters
        .iter()
        .map(|filter| {
            json!({
                "object_key": format!("spiffe_authz.metadata.{filter}"), "factory_key": "envoy.string", "skip_if_empty": true,
                "format_string": {"omit_empty_values": true,
                                  "text_format_source": {"inline_string": format!("%DYNAMIC_METADATA({filter})%")}}
            })
        })
        .collect();
    json!({"name": "envoy.filters.http.set_filter_state", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": states,
    }})
}

fn replace(value: &mut Value, from: &Value, to: &Value) -> usize {
    if value == from {
        *value = to.clone();
        return 1;
    }
    match value {
        Value::Array(items) => items.iter_mut().map(|item| replace(item, from, to)).sum(),
        Value::Object(fields) => fields.values_mut().map(|field| replace(field, from, to)).sum(),
        _ => 0,
    }
}

fn replace_ports(value: &mut Value, from: u16, to: u16) -> usize {
    match value {
        Value::Array(items) => items.iter_mut().map(|item| replace_ports(item, from, to)).sum(),
        Value::Object(fields) => {
            let here = fields.get_mut("port_value").map_or(0, |port| replace(port, &json!(from), &json!(to)));
            here + fields.values_mut().map(|field| replace_ports(field, from, to)).sum::<usize>()
        }
        _ => 0,
    }
}

fn secret_file(name: &str, path: &Path) -> Value {
    json!({"name": name, "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"}})
}

fn replace_secrets(value: &mut Value, files: &[(&str, &Path)]) -> usize {
    let file = files.iter().find(|(name, _)| value["name"] == *name && value.get("sds_config").is_some());
    if let Some((name, path)) = file {
        *value = secret_file(name, path);
        return 1;
    }
    match value {
        Value::Array(items) => items.iter_mut().map(|item| replace_secrets(item, files)).sum(),
        Value::Object(fields) => fields.values_mut().map(|field| replace_secrets(field, files)).sum(),
        _ => 0,
    }
}

/// A text file of examples/bootstrap with literal substitutions.
///
/// # Errors
/// Returns an error if the file is not there, or a literal is not in it.
pub fn text_example(name: &str, substitutions: &[(&str, &str)]) -> Result<String> {
    let path = examples().join(name);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (from, to) in substitutions {
        ensure!(text.contains(from), "{name} holds no `{from}`");
        text = text.replace(from, to);
    }
    Ok(text)
}
