//! The difference between what is rendered and what is deployed or committed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Part;
use super::object::MANAGED_BY;

/// Returns the differences of the rendered parts from what was found, in words.
pub(crate) fn differences(rendered: &[Part], found: Vec<Value>) -> Vec<String> {
    let mut by_name: BTreeMap<String, Value> = BTreeMap::new();
    found.into_iter().for_each(|value| add(value, &mut by_name));
    let mut differences = Vec::new();
    let mut names = BTreeSet::new();
    for part in rendered {
        let value = serde_json::to_value(&part.value).unwrap_or_default();
        let name = name_of(&value);
        match by_name.get(&name) {
            None => differences.push(format!("{name} is missing")),
            Some(found) => differences.extend(
                difference(&content(&value), &content(found), "").map(|pointer| format!("{name} differs at {pointer}")),
            ),
        }
        names.insert(name);
    }
    let (label, manager) = MANAGED_BY;
    for (name, value) in &by_name {
        if value["metadata"]["labels"][label] == manager && !names.contains(name) {
            differences.push(format!("{name} is not rendered (delete it)"));
        }
    }
    differences
}

/// Adds a value, or the items of a list.
fn add(value: Value, by_name: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(mut list)
            if list.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) =>
        {
            if let Some(Value::Array(items)) = list.remove("items") {
                items.into_iter().for_each(|item| add(item, by_name));
            }
        }
        value => {
            by_name.insert(name_of(&value), value);
        }
    }
}

/// Returns the kind and the name of an object, or a name for what is not an object of Kubernetes.
fn name_of(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &value["metadata"];
    match value["kind"].as_str() {
        Some(kind) => format!("{kind} {}/{}", text(&metadata["namespace"]), text(&metadata["name"])),
        None => "the configuration".to_owned(),
    }
}

/// Returns the part of a value that the command writes. The API server adds the others.
fn content(value: &Value) -> Value {
    match value.get("spec") {
        Some(spec) => serde_json::json!({"spec": spec}),
        None => value.clone(),
    }
}

/// Returns the JSON pointer to the first difference.
fn difference(rendered: &Value, found: &Value, pointer: &str) -> Option<String> {
    match (rendered, found) {
        (Value::Object(rendered), Value::Object(found)) => {
            let names: BTreeSet<&String> = rendered.keys().chain(found.keys()).collect();
            names.into_iter().find_map(|name| {
                let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                match (rendered.get(name), found.get(name)) {
                    (Some(rendered), Some(found)) => difference(rendered, found, &at),
                    _ => Some(at),
                }
            })
        }
        (Value::Array(rendered), Value::Array(found)) => {
            let first = rendered.iter().zip(found).enumerate().find_map(|(position, (rendered, found))| {
                difference(rendered, found, &format!("{pointer}/{position}"))
            });
            let shorter = rendered.len().min(found.len());
            first.or_else(|| (rendered.len() != found.len()).then(|| format!("{pointer}/{shorter}")))
        }
        (rendered, found) => (rendered != found).then(|| pointer.to_owned()),
    }
}
