//! Finds the filter among the filters of a chain, and reads its configuration.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;
use spiffe_authz::policy::Proxy;

use super::compiled::{Compiled, CompiledOnce};
use crate::base64_text;
use crate::envoy::config_dump::Section;
use crate::envoy::message::{Any, Extension};
use crate::envoy::snapshot::Envoy;

/// The error of a configuration that the adapter cannot read.
pub(super) const NOT_JSON: &str = "/: syntax: the configuration is not JSON in a google.protobuf.StringValue";
/// The parts of names by which the filter or its code is recognized.
const NAMES: [&str; 2] = ["spiffe-authz", "spiffe_authz"];
const WASM: [&str; 2] = ["envoy.extensions.filters.http.wasm.v3.Wasm", "envoy.extensions.filters.network.wasm.v3.Wasm"];
const MODULE: [&str; 2] = [
    "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
    "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
];
const RBAC: [&str; 2] = ["envoy.extensions.filters.http.rbac.v3.RBAC", "envoy.extensions.filters.network.rbac.v3.RBAC"];
/// The filters that istio-agent uses instead of a Wasm filter that it could not load, by their prefix of counters.
const REPLACEMENTS: [(&str, Replacement); 2] =
    [("wasm-default-allow", Replacement::AllowsAll), ("wasm-default-deny", Replacement::DeniesAll)];

/// The state of the filter in a chain.
#[derive(Debug)]
pub(crate) enum Installation {
    /// Envoy has its configuration.
    Loaded(Box<Installed>),
    /// The configuration never arrived.
    Awaited(Absent),
    /// istio-agent uses another filter instead.
    Replaced(Absent, Replacement),
}

/// A filter that is not loaded.
#[derive(Debug, Clone)]
pub(crate) struct Absent {
    /// The name in the chain.
    pub(crate) name: String,
    /// Whether the name is that of this filter. Otherwise it is a Wasm plugin that can be this filter.
    pub(crate) is_certain: bool,
    /// The default configuration of another filter, which Envoy uses until that of this filter arrives.
    pub(crate) default: Option<Extension>,
}

/// The filter that istio-agent uses instead of one that it could not load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// The filter that allows every request.
    AllowsAll,
    /// The filter that denies every request.
    DeniesAll,
}

/// The filter as it is configured.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    /// The name in the chain, which routes use to configure the filter.
    pub(crate) name: String,
    /// The adapter.
    pub(crate) adapter: Adapter,
    /// The treatment of requests if the filter fails.
    pub(crate) failure: FailurePolicy,
    /// Whether the chain disables the filter.
    pub(crate) disabled: bool,
    /// Whether an Envoy that does not know the type of the filter skips it.
    pub(crate) is_optional: bool,
    /// The name in the counters of its VM; empty for a dynamic module.
    pub(crate) plugin: String,
    /// Whether Envoy fetches the code.
    pub(crate) is_remote: bool,
    /// The compiled document, or its errors.
    pub(crate) document: Compiled,
}

/// The adapter between the core and Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapter {
    /// The Wasm filter.
    Wasm,
    /// The dynamic module.
    Module,
}

/// The treatment of requests if the filter fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailurePolicy {
    /// Requests are denied until the filter is rebuilt, about a second later.
    Reload,
    /// Requests are denied.
    Closed,
    /// Requests pass.
    Open,
}

/// Recognizes the filter. Each distinct configuration is parsed once, and each distinct document compiled once.
pub(crate) struct Catalog<'e> {
    envoy: &'e Envoy,
    known: RefCell<HashMap<Key, Option<Rc<Installation>>>>,
    /// The compiled documents and settings of routes.
    pub(crate) compiled: CompiledOnce,
}

/// The name in the chain, whether it is disabled and whether it is optional there, and the text of the configuration.
type Key = (String, [bool; 2], String);

impl<'e> Catalog<'e> {
    /// Returns a catalog without entries.
    pub(crate) fn new(envoy: &'e Envoy) -> Self {
        Self { envoy, known: RefCell::default(), compiled: CompiledOnce::default() }
    }

    /// Returns the proxy for which the filter compiles a document with `scope`. A module does not know its workload. If the dump
    /// has no bootstrap, nobody does, and the policies of every workload are compiled.
    fn proxy(&self, adapter: Adapter) -> Proxy<'_> {
        let dump = &self.envoy.dump;
        match (adapter, &dump.workload) {
            (Adapter::Module, _) => Proxy::Unknown,
            (Adapter::Wasm, Some(workload)) => Proxy::Of(workload),
            (Adapter::Wasm, None) if dump.sections.contains(&Section::Bootstrap) => Proxy::Unknown,
            (Adapter::Wasm, None) => Proxy::Every,
        }
    }

    /// Returns the filter in a chain that decides. A filter whose policies are in another document is returned if no filter with
    /// that document comes before it, and a plugin that only can be this filter if there is no other.
    pub(crate) fn find(&self, filters: &[Extension]) -> Option<Rc<Installation>> {
        let recognized: Vec<Rc<Installation>> = filters.iter().filter_map(|place| self.recognize(place)).collect();
        let certain = recognized.iter().find(|installation| installation.is_certain());
        certain.or(recognized.first()).cloned()
    }

    /// Returns the filter if `place` is this filter, or a plugin that can be it.
    pub(crate) fn recognize(&self, place: &Extension) -> Option<Rc<Installation>> {
        let found = self.resolve(place);
        let Some(found) = found else { return self.awaited(place).map(Rc::new) };
        let kind = found.typed_config.kind();
        if ![WASM, MODULE, RBAC].concat().contains(&kind.as_str()) {
            return None;
        }
        let key = (place.name.clone(), [place.disabled, place.is_optional], found.typed_config.text().to_owned());
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let installation = if RBAC.contains(&kind.as_str()) {
            replaced(place, found)
        } else {
            self.installed(place, found, &kind).map(|installed| Installation::Loaded(Box::new(installed)))
        };
        let installation = installation.map(Rc::new);
        self.known.borrow_mut().insert(key, installation.clone());
        installation
    }

    /// Returns the filter whose configuration has not arrived, if `place` can be this filter.
    fn awaited(&self, place: &Extension) -> Option<Installation> {
        let default = default_of(place);
        if let Some(default) = &default
            && let kind = default.typed_config.kind()
            && [WASM, MODULE].concat().contains(&kind.as_str())
            && let Some(installed) = self.installed(place, default, &kind)
        {
            return Some(Installation::Loaded(Box::new(installed)));
        }
        let is_certain = is_ours(&place.name);
        let can_be = is_certain || WASM.iter().any(|kind| place.config_discovery.text().contains(kind));
        can_be.then(|| Installation::Awaited(Absent { name: place.name.clone(), is_certain, default }))
    }

    /// Returns the filter itself, or the discovered filter of its name.
    pub(crate) fn resolve<'f>(&'f self, place: &'f Extension) -> Option<&'f Extension> {
        if !place.config_discovery.is_present() {
            return Some(place);
        }
        self.envoy.dump.discovered.iter().find(|found| found.name == place.name)
    }

    fn installed(&self, place: &Extension, found: &Extension, kind: &str) -> Option<Installed> {
        let message = found.typed_config.value();
        let (adapter, names, failure, configuration) = if WASM.contains(&kind) {
            let config = &message["config"];
            let code = &config["vm_config"]["code"];
            let names =
                [&config["name"], &config["root_id"], &code["local"]["filename"], &code["remote"]["http_uri"]["uri"]];
            (Adapter::Wasm, names, wasm_failure(config), &config["configuration"])
        } else {
            let module = &message["dynamic_module_config"];
            let names = [
                &message["filter_name"],
                &module["name"],
                &module["module"]["local"]["filename"],
                &module["module"]["remote"]["http_uri"]["uri"],
            ];
            (Adapter::Module, names, module_failure(module), &message["filter_config"])
        };
        let named = is_ours(&place.name) || names.iter().filter_map(|name| name.as_str()).any(is_ours);
        if !named && !has_our_form(configuration) {
            return None;
        }
        let document = match adapter {
            Adapter::Wasm => wasm_document(configuration),
            Adapter::Module => module_document(configuration),
        };
        let document = match document {
            Some(text) => self.compiled.document(&text, self.proxy(adapter)),
            None => Rc::new(Err(vec![NOT_JSON.to_owned()])),
        };
        let config = &message["config"];
        Some(Installed {
            name: place.name.clone(),
            adapter,
            failure,
            disabled: place.disabled,
            is_optional: place.is_optional,
            plugin: config["name"].as_str().unwrap_or_default().to_owned(),
            is_remote: config["vm_config"]["code"]["remote"].is_object(),
            document,
        })
    }
}

impl Installation {
    /// Returns `false` for a plugin that can be this filter, but has another name.
    pub(crate) const fn is_certain(&self) -> bool {
        match self {
            Self::Loaded(_) => true,
            Self::Awaited(absent) | Self::Replaced(absent, _) => absent.is_certain,
        }
    }
}

/// Returns the default configuration of a discovered filter.
fn default_of(place: &Extension) -> Option<Extension> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Discovery {
        default_config: Any,
    }
    let Discovery { default_config } = place.config_discovery.read().ok()?;
    default_config.is_present().then(|| Extension { typed_config: default_config, ..Extension::default() })
}

/// Returns the filter that istio-agent replaced, if it did.
fn replaced(place: &Extension, found: &Extension) -> Option<Installation> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Prefixes {
        rules_stat_prefix: String,
        stat_prefix: String,
    }
    let Prefixes { rules_stat_prefix, stat_prefix } = found.typed_config.read().ok()?;
    let (_, replacement) =
        REPLACEMENTS.into_iter().find(|(name, _)| [&rules_stat_prefix, &stat_prefix].contains(&&(*name).to_owned()))?;
    let absent = Absent { name: place.name.clone(), is_certain: is_ours(&place.name), default: None };
    Some(Installation::Replaced(absent, replacement))
}

/// Returns the type of the message of a filter, or of the discovered filter of its name.
pub(crate) fn kind_of(place: &Extension, catalog: &Catalog<'_>) -> String {
    catalog.resolve(place).map(|found| found.typed_config.kind()).unwrap_or_default()
}

fn is_ours(name: &str) -> bool {
    NAMES.iter().any(|part| name.contains(part))
}

/// Returns `true` if a configuration has a field of this filter's document, regardless of the name of the filter. The
/// document can have errors, or a form that the filter rejects.
fn has_our_form(configuration: &Value) -> bool {
    let text = module_document(configuration).unwrap_or_default();
    match serde_json::from_slice::<Value>(&text) {
        Ok(document) => {
            let policies = document["policies"].as_array();
            let has_rules = policies.is_some_and(|policies| policies.iter().any(|policy| policy["rules"].is_array()));
            !document["trustDomain"].is_null() || has_rules
        }
        // Such as YAML.
        Err(_) => String::from_utf8_lossy(&text).contains("trustDomain"),
    }
}

fn wasm_failure(config: &Value) -> FailurePolicy {
    match config["failure_policy"].as_str() {
        Some("FAIL_OPEN") => FailurePolicy::Open,
        Some("FAIL_RELOAD") => FailurePolicy::Reload,
        None if config["fail_open"] == true => FailurePolicy::Open,
        _ => FailurePolicy::Closed,
    }
}

/// Returns the failure policy of a dynamic module. Until Envoy has fetched a remote module, requests pass without the filter,
/// unless `nack_on_cache_miss` makes Envoy reject the listener.
fn module_failure(module: &Value) -> FailurePolicy {
    let remote = &module["module"]["remote"];
    // A module has no VM that can fail.
    if remote.is_object() && module["nack_on_cache_miss"] != true { FailurePolicy::Open } else { FailurePolicy::Reload }
}

/// Returns the configuration that a Wasm filter gets, or `None` if it is not a string.
fn wasm_document(configuration: &Value) -> Option<Vec<u8>> {
    match configuration["@type"].as_str().and_then(|kind| kind.rsplit('.').next()) {
        None => Some(Vec::new()),
        Some("StringValue") => Some(configuration["value"].as_str().unwrap_or_default().into()),
        Some("BytesValue") => base64_text::decode(configuration["value"].as_str().unwrap_or_default()),
        Some(_) => None,
    }
}

/// Returns the configuration that a dynamic module gets. Envoy writes a structure as JSON.
pub(super) fn module_document(configuration: &Value) -> Option<Vec<u8>> {
    match configuration["@type"].as_str().and_then(|kind| kind.rsplit('.').next()) {
        Some("Struct" | "TypedStruct") => Some(configuration["value"].to_string().into_bytes()),
        _ => wasm_document(configuration),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::{Value, json};

    use std::rc::Rc;

    use super::{Adapter, Catalog, Extension, FailurePolicy, Installation, Installed, Replacement};
    use crate::envoy::snapshot::Envoy;

    const DOCUMENT: &str = r#"{"trustDomain": "example.org", "policies": []}"#;

    fn extension(name: &str, config: Value) -> Extension {
        serde_json::from_value(json!({"name": name, "typed_config": config})).unwrap()
    }

    fn wasm(name: &str, config: Value) -> Extension {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
        extension(name, json!({"@type": kind, "config": config}))
    }

    fn text(document: &str) -> Value {
        json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": document})
    }

    fn recognize(place: &Extension, discovered: &[Extension]) -> Option<Rc<Installation>> {
        let mut envoy = Envoy::default();
        envoy.dump.discovered = discovered.to_vec();
        Catalog::new(&envoy).recognize(place)
    }

    fn found(place: &Extension, discovered: &[Extension]) -> Option<Installed> {
        match &*recognize(place, discovered)? {
            Installation::Loaded(installed) => Some((**installed).clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wasm_filters_are_recognized_by_name_code_or_document() {
        let code = |file: &str| json!({"vm_config": {"code": {"local": {"filename": file}}}});
        assert!(found(&wasm("spiffe-authz", json!({})), &[]).is_some_and(|it| it.document.is_err()));
        assert!(found(&wasm("x", code("/etc/spiffe-authz.wasm")), &[]).is_some());
        assert!(found(&wasm("x", json!({"configuration": text(DOCUMENT)})), &[]).is_some_and(|it| it.document.is_ok()));
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(DOCUMENT);
        let bytes = json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": bytes});
        assert!(found(&wasm("x", json!({"configuration": bytes})), &[]).is_some_and(|it| it.document.is_ok()));
        assert!(found(&wasm("x", code("/other.wasm")), &[]).is_none());
        assert!(found(&wasm("x", json!({"configuration": text("{\"policies\": []}")})), &[]).is_none());
        let structure = |value: Value| json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": value});
        let empty = structure(json!({}));
        assert!(found(&wasm("spiffe-authz", json!({"configuration": empty})), &[]).unwrap().document.is_err());
        for configuration in [
            text("{\"trustDomain\": 1}"),
            text("{\"policies\": [{\"rules\": []}]}"),
            text("trustDomain: example.org\npolicies: []\n"),
            structure(json!({"trustDomain": "example.org", "policies": []})),
        ] {
            let wrong = found(&wasm("x", json!({"configuration": configuration})), &[]);
            assert!(wrong.is_some_and(|it| it.document.is_err()), "{configuration}");
        }
    }

    #[test]
    fn failure_policies() {
        for (config, failure) in [
            (json!({}), FailurePolicy::Closed),
            (json!({"fail_open": true}), FailurePolicy::Open),
            (json!({"failure_policy": "FAIL_OPEN"}), FailurePolicy::Open),
            (json!({"failure_policy": "FAIL_CLOSED"}), FailurePolicy::Closed),
            (json!({"failure_policy": "FAIL_RELOAD"}), FailurePolicy::Reload),
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
        assert_eq!(
            (local.adapter, local.failure, local.document.is_ok()),
            (Adapter::Module, FailurePolicy::Reload, true)
        );
        assert!(module(json!({}), text(DOCUMENT)).document.is_ok());
        let remote = json!({"remote": {"http_uri": {"uri": "http://modules/any"}}});
        assert_eq!(module(json!({"module": remote}), text(DOCUMENT)).failure, FailurePolicy::Open);
        let strict = json!({"module": remote, "nack_on_cache_miss": true});
        assert_eq!(module(strict, text(DOCUMENT)).failure, FailurePolicy::Reload);
    }

    #[test]
    fn discovered_filters() {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
        let place = |name: &str, kinds: &[&str]| -> Extension {
            serde_json::from_value(json!({"name": name, "config_discovery": {"type_urls": kinds}})).unwrap()
        };
        let here = wasm("mesh.policies", json!({"configuration": text(DOCUMENT)}));
        assert_eq!(found(&place("mesh.policies", &[]), &[here]).unwrap().name, "mesh.policies");
        let is_certain = |place: &Extension, discovered: &[Extension]| {
            recognize(place, discovered).map(|installation| installation.is_certain())
        };
        assert_eq!(is_certain(&place("a.spiffe-authz", &[]), &[]), Some(true));
        assert_eq!(is_certain(&place("other", &[]), &[]), None);
        assert_eq!(is_certain(&place("other", &[kind]), &[]), Some(false));
        let kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        for name in ["a.spiffe-authz", "a.other"] {
            let rbac = |prefix: &str| extension(name, json!({"@type": kind, "rules_stat_prefix": prefix}));
            for (prefix, replacement) in
                [("wasm-default-allow", Replacement::AllowsAll), ("wasm-default-deny", Replacement::DeniesAll)]
            {
                let found = recognize(&place(name, &[]), &[rbac(prefix)]).unwrap();
                let Installation::Replaced(absent, found) = &*found else { panic!("{found:?}") };
                let expected = (name, name == "a.spiffe-authz", replacement);
                assert_eq!((&*absent.name, absent.is_certain, *found), expected);
            }
            assert!(recognize(&place(name, &[]), &[rbac("istio")]).is_none());
        }
    }

    #[test]
    fn a_document_is_compiled_once() {
        let envoy = Envoy::default();
        let catalog = Catalog::new(&envoy);
        let here = wasm("a", json!({"configuration": text(DOCUMENT)}));
        let first = catalog.find(std::slice::from_ref(&here)).unwrap();
        assert!(Rc::ptr_eq(&first, &catalog.recognize(&here).unwrap()));
        // Another filter, as in another filter chain, with the same document.
        let other = catalog.recognize(&wasm("b", json!({"configuration": text(DOCUMENT)}))).unwrap();
        let (Installation::Loaded(first), Installation::Loaded(other)) = (&*first, &*other) else {
            panic!("{other:?}")
        };
        assert!(Rc::ptr_eq(&first.document, &other.document));
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
