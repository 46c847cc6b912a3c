//! Minimizes a case whose verdicts differ.

use anyhow::Result;
use serde_json::Value;

use super::environment::Environment;
use super::{Mismatch, PolicySet, SETS_PER_ENVOY, Sample};

/// Returns the smallest case as text.
pub(super) fn shrink(mut mismatch: Mismatch) -> Result<String> {
    while let Some(smaller) = step(&mismatch)? {
        mismatch = smaller;
    }
    let verdict = |allowed: bool| if allowed { "allows" } else { "denies" };
    Ok(format!(
        "the filter {} what Istio {}, and no named difference explains it.\npolicies: {:#}\ncaller: {}\nrequest: {:#?}",
        verdict(mismatch.ours),
        verdict(mismatch.istio),
        Value::from(mismatch.set),
        mismatch.caller.describe(),
        mismatch.sample,
    ))
}

/// Returns a case with one part less whose verdicts still differ without an explanation.
fn step(mismatch: &Mismatch) -> Result<Option<Mismatch>> {
    let samples = mismatch.sample.iter().flat_map(Sample::smaller);
    let mut candidates: Vec<Mismatch> =
        samples.map(|sample| Mismatch { sample: Some(sample), ..mismatch.clone() }).collect();
    candidates.extend(smaller_sets(&mismatch.set).into_iter().map(|set| Mismatch { set, ..mismatch.clone() }));
    for candidates in candidates.chunks(SETS_PER_ENVOY) {
        let sets: Vec<PolicySet> = candidates.iter().map(|candidate| candidate.set.clone()).collect();
        let environment = Environment::start(mismatch.comparison, &sets)?;
        for (number, candidate) in candidates.iter().enumerate() {
            let (ours, istio) = match &candidate.sample {
                Some(sample) => {
                    environment.connect(number, &candidate.caller)?.decide(&sample.bytes(&environment.tokens))?
                }
                None => environment.admits(number, &candidate.caller)?,
            };
            let candidate = Mismatch { ours, istio, ..candidate.clone() };
            if ours != istio && candidate.difference().is_none() {
                return Ok(Some(candidate));
            }
        }
    }
    Ok(None)
}

/// Returns sets with one policy, rule, field or value less, without the empty lists that Istio rejects.
fn smaller_sets(set: &PolicySet) -> Vec<PolicySet> {
    let mut pointers = Vec::new();
    let whole = Value::from(set.clone());
    collect(&whole, String::new(), &mut pointers);
    let mut sets = Vec::new();
    for pointer in pointers {
        let mut smaller = whole.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let removed = match smaller.pointer_mut(parent) {
            Some(Value::Array(items)) if items.len() > 1 => name.parse().is_ok_and(|index: usize| {
                items.remove(index);
                true
            }),
            Some(Value::Object(fields)) if !parent.ends_with("spec") && removable(fields, name) => {
                fields.remove(name).is_some()
            }
            _ => false,
        };
        if let (true, Value::Array(policies)) = (removed, smaller) {
            sets.push(policies);
        }
    }
    sets
}

/// Returns `true` if a rule, selector or condition is valid without this field.
fn removable(fields: &serde_json::Map<String, Value>, name: &str) -> bool {
    match name {
        "from" | "to" | "when" => true,
        "name" | "namespace" | "spec" | "source" | "operation" | "key" => false,
        _ => fields.keys().filter(|name| *name != "key").count() > 1,
    }
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    if !at.is_empty() {
        pointers.push(at.clone());
    }
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect(value, format!("{at}/{name}"), pointers));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| collect(value, format!("{at}/{index}"), pointers));
        }
        _ => {}
    }
}
