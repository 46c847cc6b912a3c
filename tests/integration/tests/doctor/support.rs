//! Runs the doctor, and creates listeners for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::{Bootstrap, CONNECTION_MANAGER, TLS};
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::fixture::Fixture;
use spiffe_authz_integration::{tools, wait};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The JSON pointer of the listener in the example.
pub(crate) const LISTENER: &str = "/static_resources/listeners/0";
/// The time after which Envoy starts a listener without the secret or filter that it waits for.
pub(crate) const PATIENCE: &str = "0.5s";

/// The codes that the doctor reports for an Envoy, by listener or cluster; `-` is neither.
pub(crate) type Findings = BTreeMap<String, BTreeSet<String>>;

pub(crate) struct Answer {
    pub(crate) status: Option<i32>,
    pub(crate) report: Value,
}

impl Answer {
    pub(crate) fn findings(&self) -> Findings {
        let mut findings = Findings::new();
        for finding in self.report["findings"].as_array().into_iter().flatten() {
            let places = finding["places"].as_array().cloned().unwrap_or_default();
            let names = places
                .iter()
                .map(|place| place["listener"].as_str().or(place["cluster"].as_str()).unwrap_or("-").to_owned());
            let names: BTreeSet<String> = if places.is_empty() { ["-".to_owned()].into() } else { names.collect() };
            for name in names {
                let code = finding["code"].as_str().unwrap_or_default().to_owned();
                findings.entry(name).or_default().insert(code);
            }
        }
        findings
    }

    pub(crate) fn messages(&self, code: &str) -> Vec<&str> {
        let findings = self.report["findings"].as_array().into_iter().flatten();
        findings.filter(|finding| finding["code"] == code).filter_map(|finding| finding["message"].as_str()).collect()
    }
}

pub(crate) fn run(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(tools::path(tools::COMMAND)?).arg("doctor").args(arguments).output()?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// Runs the doctor on a running Envoy.
pub(crate) fn doctor(envoy: &Envoy) -> Result<Answer> {
    let (status, report) = run(&[&envoy.admin_address().to_string(), "--format", "json"])?;
    Ok(Answer { status, report: serde_json::from_str(&report)? })
}

/// Runs the doctor on saved pages, with one of the formats of `stats`.
pub(crate) fn doctor_of_saved(envoy: &Envoy, directory: &Path, stats: &str) -> Result<Answer> {
    let mut arguments = vec!["--format".to_owned(), "json".to_owned()];
    for (option, page) in [("--config-dump", "config_dump"), ("--certs", "certs"), ("--stats", stats)] {
        let file = directory.join(format!("saved{option}"));
        fs::write(&file, envoy.admin(&format!("/{page}"))?.body)?;
        arguments.extend([option.to_owned(), file.to_string_lossy().into_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (status, report) = run(&arguments)?;
    Ok(Answer { status, report: serde_json::from_str(&report)? })
}

pub(crate) fn expected(findings: &[(&str, &[&str])]) -> Findings {
    let codes = |codes: &[&str]| codes.iter().map(|&code| code.to_owned()).collect();
    findings.iter().map(|(listener, found)| ((*listener).to_owned(), codes(found))).collect()
}

/// Waits until the doctor reports exactly these findings, for the running Envoy and for its saved pages.
pub(crate) fn wait_for(envoy: &Envoy, directory: &Path, findings: &[(&str, &[&str])]) -> Result<Answer> {
    let expected = expected(findings);
    let until = |ask: &dyn Fn() -> Result<Answer>| {
        let mut last = None;
        wait::until("the findings", LIMIT, || {
            let answer = ask()?;
            last = Some(answer.findings());
            Ok((last.as_ref() == Some(&expected)).then_some(answer))
        })
        .with_context(|| format!("expected {expected:#?}, got {last:#?}"))
    };
    let answer = until(&|| doctor(envoy))?;
    for stats in ["stats", "stats?format=json"] {
        let saved = until(&|| doctor_of_saved(envoy, directory, stats))?;
        assert_eq!(saved.status, answer.status, "{stats}");
    }
    Ok(answer)
}

/// The base of the listeners in a test.
pub(crate) struct Listeners {
    base: Value,
    made: Vec<Value>,
}

impl Listeners {
    pub(crate) fn of(bootstrap: &Bootstrap) -> Result<Self> {
        Ok(Self { base: bootstrap.at(LISTENER)?.clone(), made: Vec::new() })
    }

    /// Adds a listener with these changes to the example. `null` removes a value.
    pub(crate) fn add(&mut self, name: &str, changes: &[(&str, Value)]) -> Result<()> {
        let mut listener = self.base.clone();
        listener["name"] = json!(name);
        for (pointer, value) in changes {
            set(&mut listener, pointer.strip_prefix(LISTENER).unwrap_or(pointer), value.clone())?;
        }
        self.made.push(listener);
        Ok(())
    }

    pub(crate) fn into(self, bootstrap: Bootstrap) -> Result<Bootstrap> {
        bootstrap.set("/static_resources/listeners", json!(self.made))
    }
}

/// Sets or, with `null`, removes a field.
pub(crate) fn set(root: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parent, name) = pointer.rsplit_once('/').context("no pointer")?;
    let parent = root.pointer_mut(parent).with_context(|| format!("no value at {pointer}"))?;
    match parent {
        Value::Object(fields) if value.is_null() => {
            fields.remove(name).with_context(|| format!("no value at {pointer}"))?;
        }
        Value::Object(fields) => {
            fields.insert(name.to_owned(), value);
        }
        Value::Array(items) => {
            let position: usize = name.parse()?;
            ensure!(position < items.len(), "no value at {pointer}");
            if value.is_null() {
                items.remove(position);
            } else {
                items[position] = value;
            }
        }
        _ => anyhow::bail!("no value at {pointer}"),
    }
    Ok(())
}

/// Returns a document with this rule.
pub(crate) fn document(federated: &[&str], rule: &Value) -> Value {
    json!({"trustDomain": "example.org", "federatedTrustDomains": federated, "policies": [{"name": "p", "rules": [rule]}]})
}

pub(crate) fn any_path() -> Value {
    json!({"to": [{"operation": {"paths": ["/public/*"]}}]})
}

pub(crate) fn at(parent: &str, name: &str) -> String {
    format!("{parent}/{name}")
}

pub(crate) fn filter(name: &str) -> String {
    format!("{CONNECTION_MANAGER}/http_filters/0{name}")
}

/// Returns a secret that comes from a file.
pub(crate) fn from_file(name: &str, path: &Path) -> Value {
    json!({"name": name, "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"}})
}

/// Returns the example, with both authorities in use.
pub(crate) fn healthy(fixture: &Fixture) -> Result<Bootstrap> {
    fixture.bootstrap()?.configuration(&document(&["example.io"], &any_path()).to_string())
}

pub(crate) fn certificate_pointer() -> String {
    at(TLS, "common_tls_context/tls_certificate_sds_secret_configs/0")
}

pub(crate) fn bundle_pointer() -> String {
    at(TLS, "common_tls_context/combined_validation_context/validation_context_sds_secret_config")
}
