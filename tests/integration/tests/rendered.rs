//! The output of `spiffe-authz render` in a real Envoy, with each adapter.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::process::Process;
use spiffe_authz_integration::{tools, wait};

spiffe_authz_integration::test_with_each_adapter![a_watched_file_follows_the_policies];

const LIMIT: Duration = Duration::from_secs(30);

/// An AuthorizationPolicy that allows a service account to use a path of httpbin, and one of another workload.
fn policies(action: &str, account: &str, path: &str) -> String {
    let policy = |name: &str, app: &str, account: &str| -> Value {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": app}}, "action": action,
                "rules": [{
                    "from": [{"source": {"principals": [format!("cluster.local/ns/default/sa/{account}")]}}],
                    "to": [{"operation": {"paths": [path]}}],
                }],
            },
        })
    };
    let items = [policy("own", "httpbin", account), policy("other", "database", "*")];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn a_watched_file_follows_the_policies(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let input = fixture.scratch.join("policies.json");
    let file = fixture.scratch.join("filter.yaml");
    fs::write(&input, policies("ALLOW", "sleep", "/a"))?;
    let code = match adapter {
        Adapter::Wasm => ["--wasm".into(), tools::path(tools::WASM)?],
        Adapter::Module => ["--module".into(), tools::path(tools::MODULE)?],
    };
    let mut command = Command::new(tools::path(tools::COMMAND)?);
    command.args(["render", "--to", "ecds", "--trust-domain", "example.org", "--watch", "--proxies"]);
    command.arg("sidecars:default/app=httpbin").args(code).arg("-o").arg(&file).arg(&input);
    let render = Process::start(&mut command, fixture.scratch.path(), "render")?;
    wait::until("the file is written", LIMIT, || Ok(file.exists().then_some(())))?;

    let (bootstrap, _) = fixture.bootstrap()?.watched_filter(&file)?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let mut sleep = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    let mut curl = fixture.leaf("default", "curl")?.connect(envoy.address()?)?;
    // The policy of the other workload allows every caller.
    assert_eq!((sleep.get("/a")?.status, sleep.get("/b")?.status, curl.get("/a")?.status), (200, 403, 403));

    fs::write(&input, policies("ALLOW", "curl", "/b"))?;
    wait::until("the new policy decides", LIMIT, || {
        Ok((curl.get("/b")?.status == 200 && sleep.get("/a")?.status == 403).then_some(()))
    })?;

    // A policy that the filter does not know is not deployed, and the previous one still applies.
    fs::write(&input, policies("CUSTOM", "sleep", "/a"))?;
    wait::until("the error is reported", LIMIT, || {
        assert_eq!((sleep.get("/a")?.status, curl.get("/b")?.status), (403, 200));
        Ok(render.log()?.contains("the file is kept").then_some(()))
    })?;
    fs::write(&input, policies("ALLOW", "sleep", "/c"))?;
    wait::until("the corrected policy decides", LIMIT, || Ok((sleep.get("/c")?.status == 200).then_some(())))
}
