//! The calling side: identity and trust in the TLS settings of clusters.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Authority, DAY, Shape, spiffe_validation};
use spiffe_authz_integration::bootstrap::{Bootstrap, CLIENT_TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::scratch::Scratch;

use crate::support::{at, from_file, set, wait_for};

const CLUSTER: &str = "/static_resources/clusters/0";
const ID: &str = "spiffe://example.org/ns/default/sa/sleep";

/// Clusters that differ from the cluster of the example.
struct Clusters<'s> {
    scratch: &'s Scratch,
    base: Value,
    made: Vec<Value>,
}

impl Clusters<'_> {
    fn add(&mut self, name: &str, changes: &[(&str, Value)]) -> Result<()> {
        let mut cluster = self.base.clone();
        cluster["name"] = json!(name);
        for (pointer, value) in changes {
            set(&mut cluster, pointer.strip_prefix(CLUSTER).unwrap_or(pointer), value.clone())?;
        }
        self.made.push(cluster);
        Ok(())
    }

    /// Adds a cluster that presents this certificate.
    fn presenting(&mut self, name: &str, authority: &Authority, validity: (i64, i64)) -> Result<()> {
        let secret = authority.sign(&Shape { validity, ..Shape::svid(ID) })?.secret();
        let file =
            self.scratch.write(&format!("{name}.json"), &secret.replace("\"default\"", &format!("\"{name}\"")))?;
        let pointer = at(CLIENT_TLS, "common_tls_context/tls_certificate_sds_secret_configs/0");
        self.add(name, &[(&pointer, from_file(name, &file))])
    }
}

fn client(scratch: &Scratch, local: &Authority) -> Result<Bootstrap> {
    let certificate = scratch.write("certificate.json", &local.sign(&Shape::svid(ID))?.secret())?;
    let validation = scratch.write("validation.json", &spiffe_validation(&[local]))?;
    Bootstrap::client(1)?.secrets_at(CLIENT_TLS, &certificate, &validation)
}

#[test]
fn clusters_are_distinguished() -> Result<()> {
    let scratch = Scratch::new()?;
    let local = Authority::new("example.org")?;
    let bootstrap = client(&scratch, &local)?;
    let mut clusters = Clusters { scratch: &scratch, base: bootstrap.at(CLUSTER)?.clone(), made: Vec::new() };
    // The route of the example uses this cluster.
    clusters.add("httpbin", &[])?;
    clusters.presenting("expired", &local, (-2 * DAY, -DAY))?;
    clusters.presenting("early", &local, (DAY, 2 * DAY))?;
    clusters.presenting("re-created", &Authority::new("example.net")?, (-DAY, DAY))?;
    let combined = at(CLIENT_TLS, "common_tls_context/combined_validation_context");
    let matchers = at(&combined, "default_validation_context/match_typed_subject_alt_names");
    let matcher = |kind: &str, exact: &str| json!([{"san_type": kind, "matcher": {"exact": exact}}]);
    clusters.add("unvalidated", &[(&combined, json!(null))])?;
    clusters.add("unchecked", &[(&matchers, json!(null))])?;
    clusters.add("dns", &[(&matchers, matcher("DNS", "httpbin"))])?;
    clusters.add("foreign", &[(&matchers, matcher("URI", "spiffe://cluster.local/ns/default/sa/httpbin"))])?;
    let bootstrap = bootstrap.set("/static_resources/clusters", json!(clusters.made))?;
    let envoy = Envoy::start(&Start::tested("client")?, &bootstrap, scratch.path())?;
    let wanted: &[(&str, &[&str])] = &[
        ("-", &["nothing-to-guard"]),
        ("expired", &["svid-expired"]),
        ("early", &["not-yet-good"]),
        ("re-created", &["foreign-issuer"]),
        ("unvalidated", &["server-not-validated"]),
        ("unchecked", &["server-unchecked"]),
        ("dns", &["server-name-filtered"]),
        ("foreign", &["bundle-missing"]),
    ];
    wait_for(&envoy, scratch.path(), wanted)?;
    Ok(())
}

/// A new cluster waits for an agent that does not run.
#[test]
fn a_waiting_cluster_is_a_consequence() -> Result<()> {
    let scratch = Scratch::new()?;
    let local = Authority::new("example.org")?;
    let bootstrap = client(&scratch, &local)?;
    let agent = Bootstrap::client(1)?.agent(&scratch.join("no-agent.sock"))?;
    let mut cluster = agent.at(CLUSTER)?.clone();
    cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
    cluster["name"] = json!("waiting");
    let certificate = at(CLIENT_TLS, "common_tls_context/tls_certificate_sds_secret_configs/0/sds_config");
    let certificate = certificate.strip_prefix(CLUSTER).context("in the cluster")?.to_owned();
    set(&mut cluster, &at(&certificate, "initial_fetch_timeout"), json!("0s"))?;
    let file = scratch.write("clusters.json", &json!({"resources": []}).to_string())?;
    let source = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
    let mut whole = bootstrap.at("")?.clone();
    whole["dynamic_resources"] = json!({"cds_config": source});
    whole["static_resources"]["clusters"][1] = agent.at("/static_resources/clusters/1")?.clone();
    let bootstrap = bootstrap.set("", whole)?;
    let envoy = Envoy::start(&Start::tested("client")?, &bootstrap, scratch.path())?;
    wait_for(&envoy, scratch.path(), &[("-", &["nothing-to-guard"])])?;
    scratch.write("clusters.json", &json!({"resources": [cluster]}).to_string())?;
    let waiting: &[&str] = &["cluster-warming", "agent-unreachable"];
    let answer = wait_for(&envoy, scratch.path(), &[("-", &["nothing-to-guard"]), ("waiting", waiting)])?;
    let findings = answer.report["findings"].as_array().context("a list")?;
    assert_eq!(findings[0]["code"], "agent-unreachable", "{findings:?}");
    let consequence = findings.iter().find(|finding| finding["code"] == "cluster-warming").context("a finding")?;
    assert_eq!(consequence["consequenceOf"], "agent-unreachable");
    Ok(())
}
