//! The files of examples/bootstrap, adapted to the test environment.
//!
//! Every substitution must find its value in the file, so an example that changes without this harness fails a test.

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
/// The path of the Wasm filter in the examples.
pub const WASM: &str = "/etc/spiffe-authz/spiffe-authz.wasm";
/// The path of the dynamic module in the examples.
pub const MODULE: &str = "/etc/spiffe-authz/libspiffe_authz.so";
/// The server's mTLS port.
pub const SERVER_PORT: u16 = 8443;
/// The port of the HBONE server.
pub const TUNNEL_PORT: u16 = 15008;
/// The port of the server's workload.
pub const UPSTREAM_PORT: u16 = 8080;
/// The port of the TCP server's database.
pub const DATABASE_PORT: u16 = 5432;
/// The plain-text port of the client.
pub const CLIENT_PORT: u16 = 9001;
/// The port of the admin interface, in the client and the server.
pub const ADMIN_PORT: u16 = 9901;
/// The server's host in the client's file.
pub const SERVER_HOST: &str = "httpbin.example.org";
/// The gateway's host, in the files of clients and the server.
pub const GATEWAY_HOST: &str = "gateway.example.org";
/// The network filters of the listener in every file.
pub const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters";
/// The JSON pointer of the server's HTTP connection manager.
pub const CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config";
/// The JSON pointer of the filter in the server's file.
const FILTER: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0";
/// The JSON pointer of the filter in the TCP server's file.
pub const TCP_FILTER: &str = "/static_resources/listeners/0/filter_chains/0/filters/1";
/// The JSON pointer of `tcp_proxy` in the TCP server's file.
pub const TCP_PROXY: &str = "/static_resources/listeners/0/filter_chains/0/filters/2/typed_config";
/// The JSON pointer of the TLS settings of the server's listener.
pub const TLS: &str = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";

/// The JSON pointer of a client's TLS settings.
pub const CLIENT_TLS: &str = "/static_resources/clusters/0/transport_socket/typed_config";

const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The directory of the examples.
#[must_use]
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bootstrap")
}

/// The JSON pointer of the Wasm filter's configuration in the server's file.
pub const CONFIGURATION: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/http_filters/0/typed_config/config/configuration/value";

/// An Envoy bootstrap, adapted step by step.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    value: Value,
    adapter: Adapter,
}

/// A bootstrap that is not an example. If it has the filter, it is the Wasm filter.
impl From<Value> for Bootstrap {
    fn from(value: Value) -> Self {
        Self { value, adapter: Adapter::Wasm }
    }
}

impl Bootstrap {
    /// Reads a file of examples/bootstrap, such as `server/envoy.yaml`.
    ///
    /// # Errors
    /// Returns an error if the file does not exist or is not YAML.
    pub fn example(name: &str) -> Result<Self> {
        let path = examples().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let value = serde_saphyr::from_str(&text).with_context(|| format!("{name}: expected YAML"))?;
        Ok(Self { value, adapter: Adapter::Wasm })
    }

    /// Replaces every string that equals `from`.
    ///
    /// # Errors
    /// Returns an error if there is no such string.
    pub fn text(mut self, from: &str, to: &str) -> Result<Self> {
        let count = replace(&mut self.value, &json!(from), &json!(to));
        ensure!(count > 0, "the example does not contain `{from}`");
        Ok(self)
    }

    /// Replaces every port that equals `from`. With 0, the kernel chooses the port.
    ///
    /// # Errors
    /// Returns an error if there is no such port.
    pub fn port(mut self, from: u16, to: u16) -> Result<Self> {
        let count = replace_ports(&mut self.value, from, to);
        ensure!(count > 0, "the example does not contain port {from}");
        Ok(self)
    }

    /// Replaces the endpoint `host` on the server's port with an address.
    ///
    /// # Errors
    /// Returns an error if there is no such endpoint.
    pub fn endpoint(mut self, host: &str, to: SocketAddr) -> Result<Self> {
        let from = json!({"address": host, "port_value": SERVER_PORT});
        let count = replace(&mut self.value, &from, &json!({"address": to.ip(), "port_value": to.port()}));
        ensure!(count > 0, "the example does not contain the endpoint {host}:{SERVER_PORT}");
        Ok(self)
    }

    /// Sets the port of the only listener, on 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if the example has no listener.
    pub fn listening_on(self, port: u16) -> Result<Self> {
        self.set("/static_resources/listeners/0/address/socket_address/port_value", json!(port))
    }

    /// Sets fields of the listener's HTTP connection manager.
    ///
    /// # Errors
    /// Returns an error if there is no connection manager, or if `fields` is not an object.
    pub fn connection_manager(mut self, fields: Value) -> Result<Self> {
        let filters = self.value.pointer_mut(FILTERS);
        let filters = filters.and_then(Value::as_array_mut).context("the example has no filters")?;
        let manager = filters.iter_mut().find(|filter| filter["name"] == HTTP_CONNECTION_MANAGER);
        let manager = manager.and_then(|filter| filter["typed_config"].as_object_mut());
        let Value::Object(fields) = fields else { anyhow::bail!("expected an object of fields") };
        manager.context("the example has no HTTP connection manager")?.extend(fields);
        Ok(self)
    }

    /// Sets the value at a JSON pointer.
    ///
    /// # Errors
    /// Returns an error if there is no value.
    pub fn set(mut self, pointer: &str, value: Value) -> Result<Self> {
        *self.value.pointer_mut(pointer).with_context(|| format!("the example has no {pointer}"))? = value;
        Ok(self)
    }

    /// Removes a field of the object at a JSON pointer.
    ///
    /// # Errors
    /// Returns an error if there is no such field.
    pub fn without(mut self, pointer: &str, field: &str) -> Result<Self> {
        let removed =
            self.value.pointer_mut(pointer).and_then(Value::as_object_mut).and_then(|fields| fields.remove(field));
        ensure!(removed.is_some(), "the example has no {pointer}/{field}");
        Ok(self)
    }

    /// Returns the value at a JSON pointer.
    ///
    /// # Errors
    /// Returns an error if there is no value.
    pub fn at(&self, pointer: &str) -> Result<&Value> {
        self.value.pointer(pointer).with_context(|| format!("the example has no {pointer}"))
    }

    /// Replaces the adapter's path in the examples with the path of the build.
    ///
    /// # Errors
    /// Returns an error if there is no build, or if the example does not contain the path.
    pub fn in_place(self, adapter: Adapter) -> Result<Self> {
        let (place, variable) = match adapter {
            Adapter::Wasm => (WASM, crate::tools::WASM),
            Adapter::Module => (MODULE, crate::tools::MODULE),
        };
        self.text(place, &crate::tools::path(variable)?.to_string_lossy())
    }

    /// The server's example with this adapter, on loopback and free ports.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn server(adapter: Adapter, upstream_port: u16) -> Result<Self> {
        let example = Self { adapter, ..Self::example(adapter.example())? };
        example.on_loopback()?.port(UPSTREAM_PORT, upstream_port)
    }

    /// The example of the server with federation, on loopback and free ports.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn federated_server(adapter: Adapter, upstream_port: u16) -> Result<Self> {
        Self::example("federation/server/envoy.yaml")?.with(adapter)?.on_loopback()?.port(UPSTREAM_PORT, upstream_port)
    }

    /// The gateway's example, on loopback and free ports.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn gateway(adapter: Adapter, server: SocketAddr) -> Result<Self> {
        Self::example("federation/gateway/envoy.yaml")?.with(adapter)?.endpoint(SERVER_HOST, server)?.on_loopback()
    }

    /// Replaces the path of the adapter, and listens on loopback and free ports.
    fn on_loopback(self) -> Result<Self> {
        let adapter = self.adapter;
        self.in_place(adapter)?.text("0.0.0.0", "127.0.0.1")?.port(SERVER_PORT, 0)?.port(ADMIN_PORT, 0)
    }

    /// The example of the TCP server with this adapter, on loopback and free ports.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tcp(adapter: Adapter, database_port: u16) -> Result<Self> {
        let example = Self { adapter, ..Self::example(adapter.tcp_example())? };
        example.on_loopback()?.port(DATABASE_PORT, database_port)
    }

    /// The client's example, on loopback and free ports.
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

    /// The example of a client with federation, on loopback and free ports.
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

    /// Names the module of the TCP server without a path, and links its file to a directory where Envoy finds it.
    /// Releases before 1.40 do not accept a path.
    ///
    /// # Errors
    /// Returns an error if there is no build of the module, or no filter at the expected position.
    pub fn named_module(self, directory: &Path) -> Result<Self> {
        let link = directory.join("libspiffe_authz.so");
        if !link.exists() {
            symlink(crate::tools::path(crate::tools::MODULE)?, link)?;
        }
        self.set(&format!("{TCP_FILTER}/typed_config/dynamic_module_config"), json!({"name": "spiffe_authz"}))
    }

    /// The example of the HBONE server with this adapter, on loopback and free ports.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn tunnel_server(adapter: Adapter, upstream_port: u16) -> Result<Self> {
        Self::example("tunnel/server/envoy.yaml")?
            .with_inner(adapter)?
            .in_place(adapter)?
            .text("0.0.0.0", "127.0.0.1")?
            .port(TUNNEL_PORT, 0)?
            .port(ADMIN_PORT, 0)?
            .port(UPSTREAM_PORT, upstream_port)
    }

    /// The example of the HBONE client, on loopback and free ports.
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

    /// Sets the agent's socket.
    ///
    /// # Errors
    /// Returns an error if the example does not contain the agent's socket.
    pub fn agent(self, socket: &Path) -> Result<Self> {
        self.text(AGENT_SOCKET, &socket.to_string_lossy())
    }

    /// Reads the server's secrets from files instead of an agent.
    ///
    /// # Errors
    /// Returns an error if the example has no TLS settings at the expected position.
    pub fn secrets(self, certificate: &Path, validation: &Path) -> Result<Self> {
        self.secrets_at(TLS, certificate, validation)
    }

    /// Reads every secret of the example from files instead of an agent.
    ///
    /// # Errors
    /// Returns an error if the example reads no secret from an agent.
    pub fn every_secret(mut self, certificate: &Path, validation: &Path) -> Result<Self> {
        let files = [("default", certificate), ("ROOTCA", validation)];
        let count = replace_secrets(&mut self.value, &files);
        ensure!(count > 0, "the example reads no secret from an agent");
        Ok(self)
    }

    /// Reads the secrets of the TLS settings at a JSON pointer from files.
    ///
    /// # Errors
    /// Returns an error if there are no such settings.
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

    /// Passes the result of Envoy's validation of the caller's certificate to the dynamic module, for `requireValidated`.
    ///
    /// # Errors
    /// Returns an error if the example does not pass the certificate.
    pub fn with_validity(self) -> Result<Self> {
        let states = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/on_downstream_tls_handshake";
        let mut list = self.at(states)?.as_array().context("no list of filter state")?.clone();
        list.push(json!({
            "object_key": "spiffe_authz.peer_certificate_valid", "factory_key": "envoy.string",
            "format_string": {
                "text_format_source": {"inline_string": "%CEL(connection.peer_certificate_valid)%"},
                "formatters": [{"name": "envoy.formatter.cel", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.formatter.cel.v3.Cel"
                }}],
            }
        }));
        self.set(states, json!(list))
    }

    /// Returns the document of the filter.
    ///
    /// # Errors
    /// Returns an error if there is no configuration at the expected position, or if it is not JSON.
    pub fn document(&self) -> Result<Value> {
        let text = self.at(&self.adapter.configuration())?.as_str().context("the configuration is not a string")?;
        Ok(serde_json::from_str(text)?)
    }

    /// Replaces the configuration of the filter with a document or any other string.
    ///
    /// # Errors
    /// Returns an error if there is no configuration at the expected position.
    pub fn configuration(self, text: &str) -> Result<Self> {
        let pointer = self.adapter.configuration();
        self.set(&pointer, json!(text))
    }

    /// Adds filters of Envoy before ours. The filter reads their dynamic metadata under these names as its reference
    /// describes.
    ///
    /// # Errors
    /// Returns an error if there are no filters at the expected position.
    pub fn filters_before(self, filters: Vec<Value>, metadata_of: &[&str]) -> Result<Self> {
        let pointer = format!("{CONNECTION_MANAGER}/http_filters");
        let mut list = filters;
        if self.adapter == Adapter::Module {
            list.push(metadata_state(metadata_of));
        }
        list.extend(self.at(&pointer)?.as_array().context("no filters")?.iter().cloned());
        self.set(&pointer, json!(list))
    }

    /// Replaces the configuration of the network filter.
    ///
    /// # Errors
    /// Returns an error if there is no configuration at the expected position.
    pub fn tcp_configuration(self, text: &str) -> Result<Self> {
        let path = match self.adapter {
            Adapter::Wasm => "config/configuration/value",
            Adapter::Module => "filter_config/value",
        };
        self.set(&format!("{TCP_FILTER}/typed_config/{path}"), json!(text))
    }

    /// Moves the listeners to a file that Envoy watches. Returns the bootstrap and the content of the file.
    ///
    /// # Errors
    /// Returns an error if the example has no listener.
    pub fn watched_listeners(mut self, file: &Path) -> Result<(Self, String)> {
        let listeners = self.listeners_file()?;
        let resources = self.value.as_object_mut().context("the bootstrap is not an object")?;
        resources["static_resources"]["listeners"] = json!([]);
        let source = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
        resources.insert("dynamic_resources".to_owned(), json!({"lds_config": source}));
        Ok((self, listeners))
    }

    /// Returns the content of a file with the listeners, which Envoy can watch.
    ///
    /// # Errors
    /// Returns an error if the example has no listener.
    pub fn listeners_file(&self) -> Result<String> {
        let mut listener = self.at("/static_resources/listeners/0")?.clone();
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        Ok(json!({"resources": [listener]}).to_string())
    }

    /// Moves the filter's configuration to a file that Envoy watches (ECDS). Returns the bootstrap and the content of
    /// the file. An update does not affect the listener and its connections.
    ///
    /// # Errors
    /// Returns an error if there is no filter at the expected position.
    pub fn watched_filter(self, file: &Path) -> Result<(Self, String)> {
        self.watched_at(FILTER, file)
    }

    /// Does the same for the TCP server.
    ///
    /// # Errors
    /// Returns an error if there is no filter at the expected position.
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

    /// Returns the content of a file with the filter's configuration, which Envoy can watch.
    ///
    /// # Errors
    /// Returns an error if there is no filter at the expected position.
    pub fn filter_file(&self) -> Result<String> {
        self.filter_file_at(FILTER)
    }

    /// Does the same for the TCP server.
    ///
    /// # Errors
    /// Returns an error if there is no filter at the expected position.
    pub fn tcp_filter_file(&self) -> Result<String> {
        self.filter_file_at(TCP_FILTER)
    }

    fn filter_file_at(&self, pointer: &str) -> Result<String> {
        let mut filter = self.at(pointer)?.clone();
        filter["@type"] = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
        Ok(json!({"resources": [filter]}).to_string())
    }

    /// Returns the bootstrap as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.value.to_string()
    }
}

/// Returns Envoy's filter that stores the dynamic metadata of these filters as JSON, which the module reads.
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

/// Reads a text file of examples/bootstrap and replaces literals.
///
/// # Errors
/// Returns an error if the file does not exist, or does not contain a literal.
pub fn text_example(name: &str, substitutions: &[(&str, &str)]) -> Result<String> {
    let path = examples().join(name);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (from, to) in substitutions {
        ensure!(text.contains(from), "{name}: expected `{from}`");
        text = text.replace(from, to);
    }
    Ok(text)
}
