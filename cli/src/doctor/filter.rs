//! Finds the filter among others, and reads its configuration.

use serde_json::Value;
use spiffe_authz::policy::{Node, Policy};

use super::message::{Extension, decode_base64};

/// How the filter is told from others: by one of these in its name, or in the name of its code.
const NAMES: [&str; 2] = ["spiffe-authz", "spiffe_authz"];
/// What istio-agent puts in the place of a Wasm filter that it could not load.
const REPLACEMENTS: [(&str, Replacement); 2] =
    [("wasm-default-allow", Replacement::AllowsAll), ("wasm-default-deny", Replacement::DeniesAll)];

/// Where the filter stands in a chain, and whether it is there.
#[derive(Debug)]
pub(crate) enum Installation {
    /// It is there.
    Loaded(Box<Installed>),
    /// Its name is there; its configuration never arrived.
    Awaited(String),
    /// Its name is there, and another filter does its work.
    Replaced(String, Replacement),
}

/// What does the work of a filter that could not be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// Every request passes.
    AllowsAll,
    /// Every request is denied.
    DeniesAll,
}

/// The filter, as it is configured.
#[derive(Debug)]
pub(crate) struct Installed {
    /// Its name in the chain: that of routes which configure it.
    pub(crate) name: String,
    /// What carries it.
    pub(crate) carrier: Carrier,
    /// What happens when it fails.
    pub(crate) failure: Failure,
    /// Whether it is switched off in the chain.
    pub(crate) disabled: bool,
    /// Its configuration, or why there is none.
    pub(crate) document: Result<Document, Vec<String>>,
}

/// What carries the filter in Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// proxy-wasm.
    Wasm,
    /// A dynamic module.
    Module,
}

/// What happens to requests when the filter fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// They are refused until it is there again, which it soon is.
    Reload,
    /// They are refused.
    Closed,
    /// They pass.
    Open,
}

/// A configuration that compiles.
#[derive(Debug)]
pub(crate) struct Document {
    /// As it decides.
    pub(crate) policy: Policy,
    root: Node<'static>,
}

impl Document {
    pub(super) fn compile(text: &[u8]) -> Result<Self, Vec<String>> {
        let policy = Policy::from_json(text)
            .map_err(|diagnostics| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let root = serde_json::from_slice(text).map(Node::into_owned).map_err(|error| vec![error.to_string()])?;
        Ok(Self { policy, root })
    }

    /// Whether the identity is that of the TLS connection, and of nothing else.
    pub(crate) fn identity_is_from_tls(&self) -> bool {
        self.root.at("/identity/from").and_then(Node::text).is_none_or(|from| from == "tls")
    }

    /// Whether a rule looks at one of these fields, or at their `not…` twins.
    pub(crate) fn has_field(&self, names: &[&str]) -> bool {
        any(&self.root, &|node| names.iter().any(|name| node.field(name).is_some()))
    }

    /// Returns `true` if a rule uses the path.
    pub(crate) fn uses_paths(&self) -> bool {
        self.has_field(&["paths", "notPaths"])
    }

    /// Returns `true` if a rule uses the remote address, which trusted proxies report.
    pub(crate) fn uses_remote_address(&self) -> bool {
        self.has_field(&["remoteIpBlocks", "notRemoteIpBlocks"]) || self.has_condition("remote.ip")
    }

    /// Whether a rule has this condition.
    pub(crate) fn has_condition(&self, key: &str) -> bool {
        any(&self.root, &|node| node.field("key").and_then(Node::text) == Some(key))
    }
}

/// Whether this holds for a node or for one below it.
fn any(node: &Node, holds: &impl Fn(&Node) -> bool) -> bool {
    holds(node)
        || match node {
            Node::List(items) => items.iter().any(|item| any(item, holds)),
            Node::Object(fields) => fields.iter().any(|(_, value)| any(value, holds)),
            _ => false,
        }
}

/// The filter in this place of a chain, if it is it; `discovered` are the filters that came by discovery.
pub(crate) fn recognize(place: &Extension, discovered: &[Extension]) -> Option<Installation> {
    if place.config_discovery.is_none() {
        return installed(place, place).map(|installed| Installation::Loaded(Box::new(installed)));
    }
    let named = is_ours(&place.name);
    let Some(found) = resolve(place, discovered) else {
        return named.then(|| Installation::Awaited(place.name.clone()));
    };
    if let Some(installed) = installed(place, found) {
        return Some(Installation::Loaded(Box::new(installed)));
    }
    let (_, message) = message(&found.typed_config);
    let prefix = message["rules_stat_prefix"].as_str().or_else(|| message["stat_prefix"].as_str())?;
    let (_, replacement) = REPLACEMENTS.into_iter().find(|(name, _)| named && *name == prefix)?;
    Some(Installation::Replaced(place.name.clone(), replacement))
}

/// What stands in a place of a chain: itself, or what came by discovery.
pub(crate) fn resolve<'e>(place: &'e Extension, discovered: &'e [Extension]) -> Option<&'e Extension> {
    if place.config_discovery.is_none() {
        return Some(place);
    }
    discovered.iter().find(|found| found.name == place.name)
}

/// The type of a message without its package, and the message.
pub(crate) fn message(config: &Value) -> (&str, &Value) {
    let (kind, message) = match config["@type"].as_str() {
        // As EnvoyFilters write it.
        Some(kind) if kind.ends_with(".TypedStruct") => (config["type_url"].as_str(), &config["value"]),
        kind => (kind, config),
    };
    let kind = kind.and_then(|kind| kind.rsplit('/').next()).unwrap_or_default();
    (kind, message)
}

fn installed(place: &Extension, found: &Extension) -> Option<Installed> {
    let (kind, message) = message(&found.typed_config);
    let (carrier, names, failure, document) = match kind {
        "envoy.extensions.filters.http.wasm.v3.Wasm" | "envoy.extensions.filters.network.wasm.v3.Wasm" => {
            let config = &message["config"];
            let code = &config["vm_config"]["code"];
            let names =
                [&config["name"], &config["root_id"], &code["local"]["filename"], &code["remote"]["http_uri"]["uri"]];
            (Carrier::Wasm, names, wasm_failure(config), wasm_document(&config["configuration"]))
        }
        "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
        | "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter" => {
            let module = &message["dynamic_module_config"];
            let names = [
                &message["filter_name"],
                &module["name"],
                &module["module"]["local"]["filename"],
                &module["module"]["remote"]["http_uri"]["uri"],
            ];
            (Carrier::Module, names, module_failure(module), module_document(&message["filter_config"]))
        }
        _ => return None,
    };
    let named = is_ours(&place.name) || names.iter().filter_map(|name| name.as_str()).any(is_ours);
    if !named && document.as_ref().is_none_or(|text| !has_our_form(text)) {
        return None;
    }
    let document = match document {
        Some(text) => Document::compile(&text),
        None => Err(vec!["/: syntax: the configuration is no text of JSON (a google.protobuf.StringValue)".to_owned()]),
    };
    Some(Installed { name: place.name.clone(), carrier, failure, disabled: place.disabled, document })
}

fn is_ours(name: &str) -> bool {
    NAMES.iter().any(|part| name.contains(part))
}

/// Whether this is a configuration of ours, under whatever name the filter goes.
fn has_our_form(text: &[u8]) -> bool {
    let parsed = serde_json::from_slice::<Value>(text);
    parsed.is_ok_and(|document| document["trustDomain"].is_string() && document["policies"].is_array())
}

fn wasm_failure(config: &Value) -> Failure {
    match config["failure_policy"].as_str() {
        Some("FAIL_OPEN") => Failure::Open,
        Some("FAIL_RELOAD") => Failure::Reload,
        None if config["fail_open"] == true => Failure::Open,
        _ => Failure::Closed,
    }
}

/// A module that is fetched is no filter until it is there, and requests pass, unless Envoy refuses such a listener.
fn module_failure(module: &Value) -> Failure {
    let remote = &module["module"]["remote"];
    // A module has no VM that could be down.
    if remote.is_object() && module["nack_on_cache_miss"] != true { Failure::Open } else { Failure::Reload }
}

/// The text that a Wasm filter gets; `None` when it would be protobuf.
fn wasm_document(configuration: &Value) -> Option<Vec<u8>> {
    match configuration["@type"].as_str().and_then(|kind| kind.rsplit('.').next()) {
        None => Some(Vec::new()),
        Some("StringValue") => Some(configuration["value"].as_str().unwrap_or_default().into()),
        Some("BytesValue") => decode_base64(configuration["value"].as_str().unwrap_or_default()),
        Some(_) => None,
    }
}

/// The text that a module gets: for it, Envoy writes a structure as JSON.
pub(super) fn module_document(configuration: &Value) -> Option<Vec<u8>> {
    match configuration["@type"].as_str().and_then(|kind| kind.rsplit('.').next()) {
        Some("Struct" | "TypedStruct") => Some(configuration["value"].to_string().into_bytes()),
        _ => wasm_document(configuration),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Carrier, Extension, Failure, Installation, Installed, Replacement, recognize};

    const DOCUMENT: &str = r#"{"trustDomain": "example.org", "policies": []}"#;

    fn extension(name: &str, config: Value) -> Extension {
        Extension { name: name.to_owned(), typed_config: config, ..Extension::default() }
    }

    fn wasm(name: &str, config: Value) -> Extension {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
        extension(name, json!({"@type": kind, "config": config}))
    }

    fn text(document: &str) -> Value {
        json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": document})
    }

    fn found(place: &Extension, discovered: &[Extension]) -> Option<Installed> {
        match recognize(place, discovered)? {
            Installation::Loaded(installed) => Some(*installed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wasm_filters_are_told_by_name_code_or_document() {
        let code = |file: &str| json!({"vm_config": {"code": {"local": {"filename": file}}}});
        assert!(found(&wasm("spiffe-authz", json!({})), &[]).is_some_and(|it| it.document.is_err()));
        assert!(found(&wasm("x", code("/etc/spiffe-authz.wasm")), &[]).is_some());
        assert!(found(&wasm("x", json!({"configuration": text(DOCUMENT)})), &[]).is_some_and(|it| it.document.is_ok()));
        assert!(found(&wasm("x", code("/other.wasm")), &[]).is_none());
        assert!(found(&wasm("x", json!({"configuration": text("{\"trustDomain\": 1}")})), &[]).is_none());
        let structure = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}});
        assert!(found(&wasm("spiffe-authz", json!({"configuration": structure})), &[]).unwrap().document.is_err());
    }

    #[test]
    fn failure_policies() {
        for (config, failure) in [
            (json!({}), Failure::Closed),
            (json!({"fail_open": true}), Failure::Open),
            (json!({"failure_policy": "FAIL_OPEN"}), Failure::Open),
            (json!({"failure_policy": "FAIL_CLOSED"}), Failure::Closed),
            (json!({"failure_policy": "FAIL_RELOAD"}), Failure::Reload),
        ] {
            assert_eq!(found(&wasm("spiffe-authz", config.clone()), &[]).unwrap().failure, failure, "{config}");
        }
    }

    #[test]
    fn dynamic_modules() {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";
        let structure: Value = serde_json::from_str(DOCUMENT).unwrap();
        let module = |module: Value, config: Value| {
            let config = json!({
                "@type": kind, "dynamic_module_config": module, "filter_name": "spiffe_authz", "filter_config": config
            });
            found(&extension("x", config), &[]).unwrap()
        };
        let structure = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": structure});
        let local = module(json!({"name": "any"}), structure);
        assert_eq!((local.carrier, local.failure, local.document.is_ok()), (Carrier::Module, Failure::Reload, true));
        assert!(module(json!({}), text(DOCUMENT)).document.is_ok());
        let remote = json!({"remote": {"http_uri": {"uri": "http://modules/any"}}});
        assert_eq!(module(json!({"module": remote}), text(DOCUMENT)).failure, Failure::Open);
        let strict = json!({"module": remote, "nack_on_cache_miss": true});
        assert_eq!(module(strict, text(DOCUMENT)).failure, Failure::Reload);
    }

    #[test]
    fn discovered_filters() {
        let place = |name: &str| Extension { config_discovery: Some(json!({})), ..extension(name, Value::Null) };
        let here = wasm("mesh.policies", json!({"configuration": text(DOCUMENT)}));
        assert_eq!(found(&place("mesh.policies"), &[here]).unwrap().name, "mesh.policies");
        assert!(matches!(recognize(&place("a.spiffe-authz"), &[]), Some(Installation::Awaited(_))));
        assert!(recognize(&place("other"), &[]).is_none());
        let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        let rbac = |prefix: &str| extension("a.spiffe-authz", json!({"@type": kind, "rules_stat_prefix": prefix}));
        for (prefix, replacement) in
            [("wasm-default-allow", Replacement::AllowsAll), ("wasm-default-deny", Replacement::DeniesAll)]
        {
            let found = recognize(&place("a.spiffe-authz"), &[rbac(prefix)]);
            assert!(matches!(found, Some(Installation::Replaced(_, found)) if found == replacement));
        }
        assert!(recognize(&place("a.spiffe-authz"), &[rbac("istio")]).is_none());
    }

    #[test]
    fn as_envoy_filters_write_it() {
        let config = json!({
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
            "type_url": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "value": {"config": {"configuration": text(DOCUMENT)}}
        });
        assert!(found(&extension("x", config), &[]).is_some());
    }
}
