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
        let of = |verdict: &str| log.iter().find(|line| line["verdict"] == verdict).context("not in the access log");
        assert_eq!(of("deny")?["details"], "spiffe_authz_denied[no-policy-allows]", "{release}");
        assert_eq!(of("deny")?["peer"], "spiffe://example.org/ns/other/sa/stranger", "{release}");
        let allowed = of("allow")?;
        assert_eq!((&allowed["policy"], &allowed["rule"]), (&json!("default/sleep-queries"), &json!("0")));
        assert_eq!((&allowed["service_account"], &allowed["reason"]), (&json!("sleep"), &json!(null)));
        let prometheus = envoy.admin("/stats/prometheus")?.text();
        for (verdict, reason, policy) in
            [("allow", "none", "default/sleep-queries"), ("deny", "no-policy-allows", "none")]
        {
            let line = format!(
                r#"spiffe_authz_decisions{{spiffe_authz_mode="enforce",spiffe_authz_verdict="{verdict}",spiffe_authz_reason="{reason}",spiffe_authz_policy="{policy}"}} 1"#
            );
            assert!(prometheus.contains(&line), "{release}: {line} in {prometheus}");
        }
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
        assert_eq!((envoy.access_log_of(1)?[0]["reason"].as_str(), database.connections()), (Some(reason), 0));
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
