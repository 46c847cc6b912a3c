//! The filter in a file of the proxy, and its configuration in Envoy.

use serde::Serialize as _;
use spiffe_authz::filter_state;
use spiffe_authz::policy::Node;
use spiffe_authz::policy::field::Field;

use crate::claims::{self, JWT_AUTHN};
use crate::document::Document;
use crate::located::written::{NOWHERE, list, object, text};
use crate::located::{Located, Value};

/// The file with the code of the filter.
#[derive(Debug)]
pub(crate) enum FilterFile {
    Wasm(String),
    Module(String),
}

/// The values that a document needs from other filters, because Envoy does not expose them to this one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// The claims of tokens.
    pub(crate) claims: bool,
    /// The direct remote address.
    source_ip: bool,
    /// Whether Envoy validated the certificate in the handshake.
    validation: bool,
}

impl Needs {
    pub(crate) fn of(document: &Document) -> Self {
        let reads = |fields: &[Field]| fields.iter().any(|field| document.policy.reads(*field));
        let identity = document.root.field("identity");
        let validation = identity.and_then(|identity| identity.field("requireValidated"));
        Self {
            claims: reads(&claims::FIELDS),
            source_ip: reads(&[Field::IpBlocks]),
            validation: matches!(validation, Some(Node::Bool(true))),
        }
    }
}

/// Returns a value of filter state for a filter `set_filter_state`.
fn state(key: &str, value: &str) -> Located {
    object([
        ("object_key", text(key)),
        ("factory_key", text("envoy.string")),
        ("format_string", object([("text_format_source", object([("inline_string", text(value))]))])),
    ])
}

impl FilterFile {
    /// Returns the HTTP filter with a document.
    pub(crate) fn http_filter(&self, document: &Located) -> Located {
        object([("name", text("spiffe-authz")), ("typed_config", self.typed_config(document))])
    }

    /// Returns the configuration of the HTTP filter with a document.
    pub(crate) fn typed_config(&self, document: &Located) -> Located {
        // A google.protobuf.Struct would reach a Wasm filter as protobuf bytes.
        let configuration = object([
            ("@type", text("type.googleapis.com/google.protobuf.StringValue")),
            ("value", text(pretty(document))),
        ]);
        let local = |path: &str| object([("local", object([("filename", text(path))]))]);
        match self {
            Self::Wasm(path) => {
                let vm = object([("runtime", text("envoy.wasm.runtime.v8")), ("code", local(path))]);
                let config = object([
                    ("name", text("spiffe-authz")),
                    ("failure_policy", text("FAIL_RELOAD")),
                    ("vm_config", vm),
                    ("configuration", configuration),
                ]);
                object([
                    ("@type", text("type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm")),
                    ("config", config),
                ])
            }
            Self::Module(path) => object([
                (
                    "@type",
                    text("type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"),
                ),
                ("dynamic_module_config", object([("module", local(path))])),
                ("filter_name", text("spiffe_authz")),
                ("filter_config", configuration),
            ]),
        }
    }

    pub(crate) const fn is_module(&self) -> bool {
        matches!(self, Self::Module(_))
    }

    /// Returns the network filter that stores what a document needs, if it needs something.
    pub(crate) fn network_filter(&self, needs: Needs, with_source_ip: bool) -> Option<Located> {
        let mut handshake = Vec::new();
        if self.is_module() {
            handshake.push(state(filter_state::PEER_CERTIFICATE, "%DOWNSTREAM_PEER_CERT%"));
        }
        if self.is_module() && needs.validation {
            handshake.push(state(filter_state::PEER_CERTIFICATE_VALID, "%CEL(connection.peer_certificate_valid)%"));
        }
        let mut fields =
            vec![("@type", text("type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"))];
        if with_source_ip && needs.source_ip {
            let address = state(filter_state::SOURCE_IP, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%");
            fields.push(("on_new_connection", list([address])));
        }
        if !handshake.is_empty() {
            fields.push(("on_downstream_tls_handshake", list(handshake)));
        }
        (fields.len() > 1)
            .then(|| object([("name", text("spiffe-authz-connection")), ("typed_config", object(fields))]))
    }

    /// Returns the HTTP filter between Envoy's token validation and this one that stores the claims, if it is needed.
    pub(crate) fn claims_filter(&self, needs: Needs) -> Option<Located> {
        let format = object([
            ("omit_empty_values", Located::new(NOWHERE, Value::Bool(true))),
            ("text_format_source", object([("inline_string", text(format!("%DYNAMIC_METADATA({JWT_AUTHN})%")))])),
        ]);
        let claims = object([
            ("object_key", text(format!("{}{JWT_AUTHN}", filter_state::METADATA_PREFIX))),
            ("factory_key", text("envoy.string")),
            ("skip_if_empty", Located::new(NOWHERE, Value::Bool(true))),
            ("format_string", format),
        ]);
        let config = object([
            ("@type", text("type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config")),
            ("on_request_headers", list([claims])),
        ]);
        (self.is_module() && needs.claims)
            .then(|| object([("name", text("spiffe-authz-claims")), ("typed_config", config)]))
    }
}

/// Returns the JSON text of a document, with a line for each value.
fn pretty(document: &Located) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    let written = document.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    String::from_utf8(text).unwrap_or_default() + "\n"
}
