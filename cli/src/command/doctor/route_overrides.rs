//! Route tables, and the settings in them that replace those of the filter.

use serde_json::Value;

use super::compiled::RouteSettings;
use super::installation::{Catalog, NOT_JSON, module_document};
use crate::envoy::message::{ConnectionManager, message};
use crate::envoy::snapshot::Envoy;

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
const MODULE_PER_ROUTE: &str = "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute";

/// The settings of a route, a virtual host or a whole table for the filter.
#[derive(Debug)]
pub(crate) struct Override {
    /// The part of the table, such as ``virtual host `a`, route `b` ``.
    pub(crate) part: String,
    /// Whether it disables the filter.
    pub(crate) disabled: bool,
    /// The settings for the dynamic module, or the errors in them.
    pub(crate) settings: Option<Result<RouteSettings, Vec<String>>>,
}

/// Returns the route tables of a connection manager: its own, and those that it discovers.
pub(crate) fn tables(manager: &ConnectionManager, envoy: &Envoy) -> Vec<Value> {
    let ConnectionManager { route_config, rds, scoped_routes, .. } = manager;
    // Scopes name their tables in a message of their own, so each table counts.
    let is_used =
        |name: &str| scoped_routes.is_present() || rds.as_ref().is_some_and(|rds| rds.route_config_name == name);
    let own = [route_config, scoped_routes].into_iter().filter(|table| table.is_present());
    let discovered = envoy.dump.routes.iter().filter(|routes| is_used(&routes.name)).map(|routes| &routes.table);
    own.chain(discovered).map(crate::envoy::message::Any::value).collect()
}

/// Returns `false` if a connection manager uses a route table that is not in the dump.
pub(crate) fn has_tables(manager: &ConnectionManager, envoy: &Envoy) -> bool {
    table_not_here(manager, envoy).is_none() && !manager.scoped_routes.is_present()
}

/// Returns the name of the route table that a connection manager discovers, if it is not in the dump.
pub(crate) fn table_not_here<'m>(manager: &'m ConnectionManager, envoy: &Envoy) -> Option<&'m str> {
    let name = &*manager.rds.as_ref()?.route_config_name;
    (!envoy.dump.routes.iter().any(|routes| routes.name == name)).then_some(name)
}

/// Returns `true` if a route enables an upgrade, which the connection manager can have disabled.
pub(crate) fn enables_upgrade(manager: &ConnectionManager, kind: &str, envoy: &Envoy) -> bool {
    tables(manager, envoy).iter().any(|table| has_upgrade(table, kind))
}

fn has_upgrade(node: &Value, kind: &str) -> bool {
    let is_enabled = |upgrade: &Value| {
        let same = upgrade["upgrade_type"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(kind));
        same && upgrade["enabled"] != false
    };
    match node {
        Value::Object(fields) => {
            node["upgrade_configs"].as_array().is_some_and(|upgrades| upgrades.iter().any(is_enabled))
                || fields.values().any(|below| has_upgrade(below, kind))
        }
        Value::Array(items) => items.iter().any(|item| has_upgrade(item, kind)),
        _ => false,
    }
}

/// Returns the settings that a table has for the filter of this name.
pub(crate) fn overrides(table: &Value, name: &str, catalog: &Catalog<'_>) -> Vec<Override> {
    let part =
        table["name"].as_str().map_or_else(|| "route table".to_owned(), |table| format!("route table `{table}`"));
    let mut configs = Vec::new();
    collect(table, name, &part, &mut configs);
    configs.into_iter().map(|(part, config)| read(config, part, catalog)).collect()
}

fn collect<'t>(node: &'t Value, name: &str, part: &str, found: &mut Vec<(String, &'t Value)>) {
    match node {
        Value::Object(fields) => {
            if let Some(config) = fields.get("typed_per_filter_config").and_then(|filters| filters.get(name)) {
                found.push((part.to_owned(), config));
            }
            for (field, below) in fields {
                let kind = match field.as_str() {
                    "virtual_hosts" => "virtual host",
                    "routes" => "route",
                    _ => {
                        collect(below, name, part, found);
                        continue;
                    }
                };
                for (position, item) in below.as_array().into_iter().flatten().enumerate() {
                    let item_name =
                        item["name"].as_str().map_or_else(|| format!("#{position}"), |name| format!("`{name}`"));
                    let outer = if kind == "route" { format!("{part}, ") } else { String::new() };
                    collect(item, name, &format!("{outer}{kind} {item_name}"), found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, part, found)),
        _ => {}
    }
}

fn read(config: &Value, part: String, catalog: &Catalog<'_>) -> Override {
    let (kind, outer) = message(config);
    let (kind, inner) = if kind == FILTER_CONFIG { message(&outer["config"]) } else { (kind, outer) };
    let settings = (kind == MODULE_PER_ROUTE).then(|| settings(&inner["filter_config"], catalog));
    Override { part, disabled: outer["disabled"] == true, settings }
}

/// Returns the settings of a route for the dynamic module.
fn settings(config: &Value, catalog: &Catalog<'_>) -> Result<RouteSettings, Vec<String>> {
    match module_document(config) {
        Some(text) => catalog.compiled.route(&text),
        None => Err(vec![NOT_JSON.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spiffe_authz::policy::Mode;

    use super::{Catalog, Override};
    use crate::envoy::snapshot::Envoy;

    fn overrides(table: &Value, name: &str) -> Vec<Override> {
        super::overrides(table, name, &Catalog::new(&Envoy::default()))
    }

    fn per_route(text: &str) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute",
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}
        })
    }

    fn wrapped(mut fields: Value) -> Value {
        fields["@type"] = json!("type.googleapis.com/envoy.config.route.v3.FilterConfig");
        fields
    }

    #[test]
    fn every_part_of_a_table_is_read() {
        let shadow = || json!({"f": per_route("{\"mode\": \"shadow\"}"), "other": per_route("{}")});
        let table = json!({
            "name": "t", "typed_per_filter_config": shadow(),
            "virtual_hosts": [{
                "name": "h", "typed_per_filter_config": {"f": wrapped(json!({"disabled": true}))},
                "routes": [
                    {"match": {}},
                    {"typed_per_filter_config": {"f": wrapped(json!({"config": per_route("{\"mode\": \"shadow\"}")}))}},
                    {"name": "r", "route": {"weighted_clusters": {"clusters": [{"typed_per_filter_config": shadow()}]}}},
                ]
            }]
        });
        let found = overrides(&table, "f");
        let parts: Vec<(&str, bool, bool)> = found
            .iter()
            .map(|found| {
                let settings = found.settings.as_ref().map(|settings| settings.as_ref().unwrap());
                (&*found.part, found.disabled, settings.is_some_and(|settings| settings.mode == Mode::Shadow))
            })
            .collect();
        let mut expected = [
            ("route table `t`", false, true),
            ("virtual host `h`", true, false),
            ("virtual host `h`, route #1", false, true),
            ("virtual host `h`, route `r`", false, true),
        ];
        let mut parts = parts;
        parts.sort_unstable();
        expected.sort_unstable();
        assert_eq!(parts, expected);
    }

    #[test]
    fn documents_of_routes_are_compiled() {
        let of = |text: &str| {
            let table = json!({"typed_per_filter_config": {"f": per_route(text)}});
            overrides(&table, "f").remove(0).settings.unwrap()
        };
        let document = r#"{"trustDomain": "example.org", "policies": []}"#;
        let own = of(&format!("{{\"configuration\": {document}}}")).unwrap();
        assert!(own.mode == Mode::Enforce && own.document.is_some());
        assert!(of("{\"mode\": \"shadow\"}").unwrap().document.is_none());
        for wrong in ["", "{}", "{\"mode\": \"off\"}", "{\"configuration\": {\"trustDomain\": \"A\"}}"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
