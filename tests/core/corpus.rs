//! The core decides the tables of tests/corpus.

use std::collections::HashMap;

use crate::support::NOW;
use serde::Deserialize;
use spiffe_authz::case::Case;
use spiffe_authz::policy::{Layer, PolicySet};
use spiffe_authz::worker::{Count, CountKey};

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    layer: Layer,
    configuration: serde_json::Value,
    cases: Vec<Case>,
}

/// Each table with its name. The tables are compiled in, because WebAssembly tests cannot read files.
macro_rules! tables {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../corpus/", $name, ".json"))),)*] };
}

const TABLES: &[(&str, &str)] = tables! {
    "actions"
    "actions-allow-nothing"
    "actions-no-policies"
    "actions-without-allow"
    "addresses"
    "conditions"
    "differences-allow"
    "differences-deny"
    "differences-headers-allow"
    "differences-headers-deny"
    "differences-hosts"
    "differences-paths-allow"
    "differences-paths-deny"
    "hosts"
    "identity"
    "identity-any"
    "identity-optional"
    "identity-peer-principal"
    "identity-revoked"
    "identity-template"
    "identity-xfcc"
    "identity-xfcc-revoked"
    "metadata"
    "methods-and-ports"
    "paths"
    "paths-not"
    "policies-in-time"
    "scope"
    "sources"
    "tcp-allow"
    "tcp-allow-nothing-left"
    "tcp-connection"
    "tcp-deny"
    "tcp-optional"
    "tokens"
};

#[test]
fn every_case_is_decided_as_expected() {
    for (name, text) in TABLES {
        let table: Table = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let policy = PolicySet::from_json(table.configuration.to_string().as_bytes())
            .unwrap_or_else(|diagnostics| panic!("{name}: {diagnostics:#?}"))
            .on(table.layer);
        for case in table.cases {
            let differences = case.expect.differences(&case.request.decide(&policy, NOW));
            assert!(differences.is_empty(), "{name}: {}: {differences:?}", case.name);
        }
    }
}

/// Some adapters must define counters before they count.
#[test]
fn every_count_of_every_case_was_expected() {
    for (name, text) in TABLES {
        let table: Table = serde_json::from_str(text).expect("a table");
        let policy =
            PolicySet::from_json(table.configuration.to_string().as_bytes()).expect("a policy").on(table.layer);
        let expected: HashMap<CountKey, String> = Count::without_policies(&policy)
            .chain(Count::by_policies(&policy))
            .map(|count| (count.key(), count.name("")))
            .collect();
        for case in table.cases {
            for count in case.request.decide(&policy, NOW).counts().filter(|count| !count.is_plain_allow()) {
                assert_eq!(expected.get(&count.key()), Some(&count.name("")), "{name}: {}", case.name);
            }
        }
    }
}

#[test]
#[cfg(not(target_arch = "wasm32"))]
fn every_table_is_included() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(directory).expect("tests/corpus");
    let mut names: Vec<String> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, TABLES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}
