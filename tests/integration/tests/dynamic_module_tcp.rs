//! Features of the module's network filter only, in a real Envoy.

use anyhow::{Context as _, Result};
use serde_json::json;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::tcp::{Database, First, GREETING, Session};
use spiffe_authz_integration::tools;

#[test]
fn a_denied_caller_never_reaches_a_server_that_speaks_first() -> Result<()> {
    for release in [tools::ENVOY, tools::PREVIOUS_ENVOY, tools::OLDEST_ENVOY] {
        let (fixture, database) = (Fixture::new(Adapter::Module, Validation::Spiffe)?, Database::start(First::Server)?);
        let start = Start { program: tools::path(release)?, ..Start::tested("tcp")? };
        let mut bootstrap = fixture.tcp_bootstrap(&database)?;
        if release != tools::ENVOY {
            bootstrap = bootstrap.named_module(fixture.scratch.path())?;
        }
        let envoy = Envoy::start(&start, &bootstrap, fixture.scratch.path())?;
        let address = envoy.address()?;
        let mut sleep = Session::from(fixture.leaf("default", "sleep")?.connect(address)?);
        assert_eq!(sleep.line()?.as_deref(), Some(GREETING), "{release}");
        assert!(sleep.echoes("select 1")?, "{release}");
        let mut stranger = Session::from(fixture.leaf("other", "stranger")?.connect(address)?);
        assert_eq!(stranger.line()?, None, "{release}");
        assert_eq!(database.connections(), 1, "{release}");

        drop(sleep);
        let log = envoy.access_log_of(2)?;
        let of = |decision: &str| log.iter().find(|line| line["decision"] == decision).context("not in the access log");
        let denied = of("deny no-policy-allows")?;
        assert_eq!(denied["details"], "spiffe_authz_denied[no-policy-allows]", "{release}");
        assert_eq!(denied["peer"], "spiffe://example.org/ns/other/sa/stranger", "{release}");
        let allowed = of("allow default/sleep-queries 0")?;
        assert_eq!(allowed["peer"], "spiffe://example.org/ns/default/sa/sleep", "{release}");
        let prometheus = envoy.admin("/stats/prometheus")?.text();
        let line = r#"spiffe_authz_decisions{spiffe_authz_mode="enforce",spiffe_authz_verdict="deny",spiffe_authz_reason="no-policy-allows",spiffe_authz_policy="none"} 1"#;
        assert!(prometheus.contains(line), "{release}: {line} in {prometheus}");
        assert!(prometheus.contains("spiffe_authz_allowed{} 1"), "{release}: {prometheus}");
    }
    Ok(())
}

#[test]
fn without_the_certificate_in_filter_state_everything_is_denied() -> Result<()> {
    let states = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/on_downstream_tls_handshake";
    for (kept, reason) in [(1, "peer-certificate-mismatch"), (0, "peer-certificate-unreadable")] {
        let (fixture, database) = (Fixture::new(Adapter::Module, Validation::Spiffe)?, Database::start(First::Server)?);
        let bootstrap = fixture.tcp_bootstrap(&database)?;
        let list = bootstrap.at(states)?.as_array().context("no list")?[..kept].to_vec();
        let bootstrap = bootstrap.clone().set(states, json!(list))?;
        let envoy = Envoy::start(&Start::tested("tcp")?, &bootstrap, fixture.scratch.path())?;
        let mut sleep = Session::from(fixture.leaf("default", "sleep")?.connect(envoy.address()?)?);
        assert_eq!(sleep.line()?, None);
        assert_eq!(envoy.access_log_of(1)?[0]["decision"], format!("deny {reason}"));
        assert_eq!(database.connections(), 0);
    }
    Ok(())
}

#[test]
fn an_invalid_configuration_is_rejected_with_every_error() -> Result<()> {
    let (fixture, database) = (Fixture::new(Adapter::Module, Validation::Spiffe)?, Database::start(First::Server)?);
    let document = json!({"trustDomain": "EXAMPLE.org", "policies": [{"name": "a", "rulez": []}]});
    let bootstrap = fixture.tcp_bootstrap(&database)?.tcp_configuration(&document.to_string())?;
    let log = Envoy::rejected(&Start::tested("tcp")?, &bootstrap, fixture.scratch.path())?;
    for mistake in ["/trustDomain: invalid-value: ", "/policies/0/rulez: unknown-field: "] {
        assert!(log.contains(&format!("spiffe-authz: {mistake}")), "{log}");
    }
    Ok(())
}
