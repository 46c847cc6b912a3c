//! Identities that end while connections are open, through expiry and revocation, and policies that end by date.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz::timestamp::Timestamp;
use spiffe_authz_integration::authority::{DAY, Leaf, Shape, client_config};
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap, CONNECTION_MANAGER, TLS};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::http2::Connection;
use spiffe_authz_integration::tcp::{Database, First, Session};
use spiffe_authz_integration::wait;

spiffe_authz_integration::test_with_each_adapter![
    an_expired_svid_is_denied_on_an_open_connection,
    an_expired_svid_is_denied_in_a_resumed_session,
    an_expired_svid_closes_its_tcp_connection,
    a_revoked_trust_domain_is_denied_under_load,
    a_revoked_identity_loses_its_tcp_connection,
    a_policy_expires_without_an_update,
];

const LIMIT: Duration = Duration::from_secs(30);
/// The lifetime of an SVID that expires during a test, in seconds. It is long enough to start Envoys on a busy machine.
const SHORT: i64 = 12;
const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";

/// Allows every accepted identity.
fn document(identity: &Value) -> Value {
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "identity": identity,
        "policies": [{"name": "everyone", "rules": [{}]}]
    })
}

fn short_lived(fixture: &Fixture) -> Result<Leaf> {
    fixture.local.sign(&Shape { validity: (-DAY, SHORT), ..Shape::svid(SLEEP) })
}

fn start(fixture: &Fixture, name: &str, bootstrap: &Bootstrap) -> Result<Envoy> {
    Envoy::start(&Start::tested(name)?, bootstrap, fixture.scratch.path())
}

fn server(fixture: &Fixture, name: &str, identity: &Value) -> Result<Envoy> {
    start(fixture, name, &fixture.bootstrap()?.configuration(&document(identity).to_string())?)
}

fn seconds_now() -> Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().try_into()?)
}

/// Returns the last line of the access log when it has this number of lines.
fn last_line(envoy: &Envoy, count: usize) -> Result<Value> {
    envoy.access_log_of(count)?.pop().context("the access log is empty")
}

/// Replaces the filter with Envoy's RBAC filter, which allows the same caller by its certificate.
fn with_rbac(bootstrap: Bootstrap) -> Result<Bootstrap> {
    let rbac = json!({"name": "rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"policies": {"sleep": {
            "permissions": [{"any": true}], "principals": [{"authenticated": {"principal_name": {"exact": SLEEP}}}],
        }}},
    }});
    bootstrap.set(&format!("{CONNECTION_MANAGER}/http_filters/0"), rbac)
}

fn an_expired_svid_is_denied_on_an_open_connection(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let denying = server(&fixture, "denying", &json!({}))?;
    let allowing = server(&fixture, "allowing", &json!({"expired": "allow"}))?;
    let rbac = start(&fixture, "rbac", &with_rbac(fixture.bootstrap()?)?)?;
    let (short, long) = (short_lived(&fixture)?, fixture.leaf("default", "sleep")?);
    let mut http1 = short.connect(denying.address()?)?;
    let mut http2 = Connection::open(denying.address()?, &short)?;
    let mut control = long.connect(denying.address()?)?;
    let mut allowed = Connection::open(allowing.address()?, &short)?;
    let mut by_rbac = Connection::open(rbac.address()?, &short)?;
    ensure!(http1.get("/x")?.status == 200 && control.get("/x")?.status == 200, "denied before the SVID expires");
    ensure!(http2.get("/x")? && allowed.get("/x")? && by_rbac.get("/x")?, "denied before the SVID expires");

    let mut requests = 3;
    let denial = wait::until("the SVID expires", LIMIT, || {
        let response = http1.get("/x")?;
        requests += 1;
        Ok((response.status == 403).then_some(response))
    })?;
    assert_eq!(denial.text(), "spiffe-authz: access denied");
    let line = last_line(&denying, requests)?;
    assert_eq!((&line["decision"], &line["peer"]), (&json!("deny svid-expired"), &json!(SLEEP)));
    ensure!(!http2.get("/x")?, "an expired SVID is allowed on an HTTP/2 connection");
    ensure!(control.get("/x")?.status == 200, "a valid SVID is denied");
    ensure!(allowed.get("/x")?, "`expired: allow` denies");
    ensure!(by_rbac.get("/x")?, "RBAC denies an expired SVID, too");
    match adapter {
        // Envoy does not let a Wasm filter drain the connection of an HTTP request.
        Adapter::Wasm => ensure!(http1.get("/x")?.status == 403 && !http2.get("/x")?, "an expired SVID is allowed"),
        Adapter::Module => {
            assert_eq!(denial.header("connection"), Some("close"));
            http2.wait_for_goaway()?;
        }
    }
    Ok(())
}

fn an_expired_svid_is_denied_in_a_resumed_session(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let mut bootstrap = fixture.bootstrap()?.configuration(&document(&json!({})).to_string())?;
    for kind in ["stateless", "stateful"] {
        bootstrap = bootstrap.set(&format!("{TLS}/disable_{kind}_session_resumption"), json!(false))?;
    }
    let envoy = start(&fixture, "resuming", &bootstrap)?;
    let (short, long) = (short_lived(&fixture)?, fixture.leaf("default", "sleep")?);
    // A configuration keeps the sessions that it can resume.
    let (short_config, long_config) = (client_config(Some(&short))?, client_config(Some(&long))?);
    let get = |config: &rustls::ClientConfig| -> Result<u16> {
        Ok(Client::tls(envoy.address()?, config.clone())?.get("/x")?.status)
    };
    ensure!(get(&short_config)? == 200 && get(&long_config)? == 200, "denied before the SVID expires");
    wait::until("the SVID expires", LIMIT, || Ok((get(&short_config)? == 403).then_some(())))?;
    let resumed = envoy.stat("listener.127.0.0.1_0.ssl.session_reused")?;
    ensure!(resumed.is_none_or(|resumed| resumed > 0), "no session was resumed");
    ensure!(short.connect(envoy.address()?).and_then(|mut client| client.get("/x")).is_err(), "Envoy did not validate");
    ensure!(get(&long_config)? == 200, "a valid SVID is denied in a resumed session");
    Ok(())
}

fn an_expired_svid_closes_its_tcp_connection(adapter: Adapter) -> Result<()> {
    let (fixture, database) = (Fixture::new(adapter, Validation::Spiffe)?, Database::start(First::Client)?);
    let bootstrap = fixture.tcp_bootstrap(&database)?.tcp_configuration(&document(&json!({})).to_string())?;
    let envoy = start(&fixture, "tcp", &bootstrap)?;
    let mut short = Session::from(short_lived(&fixture)?.connect(envoy.address()?)?);
    let mut long = Session::from(fixture.leaf("default", "sleep")?.connect(envoy.address()?)?);
    ensure!(short.echoes("a")? && long.echoes("a")?, "closed before the SVID expires");
    wait::until("the connection is closed", LIMIT, || Ok((!short.echoes("b")?).then_some(())))?;
    ensure!(long.echoes("c")?, "the connection of a valid SVID is closed");
    let line = last_line(&envoy, 1)?;
    assert_eq!((&line["decision"], &line["peer"]), (&json!("deny svid-expired"), &json!(SLEEP)));
    Ok(())
}

/// A listener whose next version revokes an identity.
struct Revoking<'g> {
    fixture: &'g Fixture,
    envoy: Envoy,
    revoking: String,
}

impl<'g> Revoking<'g> {
    fn start(fixture: &'g Fixture, adapted: impl Fn(&str) -> Result<Bootstrap>, revoked: &Value) -> Result<Self> {
        let file = fixture.scratch.join("listeners.json");
        let (bootstrap, content) = adapted(&document(&json!({})).to_string())?.watched_listeners(&file)?;
        fixture.scratch.write("listeners.json", &content)?;
        let revoking = adapted(&document(&json!({"revoked": revoked})).to_string())?.listeners_file()?;
        Ok(Self { fixture, envoy: start(fixture, "revoking", &bootstrap)?, revoking })
    }

    fn revoke(&self) -> Result<()> {
        let updates = || Ok::<_, anyhow::Error>(self.envoy.stat("listener_manager.lds.update_success")?.unwrap_or(0));
        let before = updates()?;
        self.fixture.scratch.write("listeners.json", &self.revoking)?;
        wait::until("the update arrives", LIMIT, || Ok((updates()? > before).then_some(())))
    }
}

fn a_revoked_trust_domain_is_denied_under_load(adapter: Adapter) -> Result<()> {
    const CALLERS: usize = 4;
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let adapted = |document: &str| fixture.bootstrap()?.configuration(document);
    let revoking = Revoking::start(&fixture, adapted, &json!({"trustDomains": ["example.io"]}))?;
    let address = revoking.envoy.address()?;
    let federated = fixture.federated.sign(&Shape::svid("spiffe://example.io/ns/default/sa/sleep"))?;
    let local = fixture.leaf("default", "sleep")?;
    let (is_revoked, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    // Every caller keeps its connection while Envoy does. Each response must have the expected status.
    let call = |leaf: &Leaf, after: u16| -> Result<(usize, usize)> {
        let mut client = leaf.connect(address)?;
        let mut statuses = (0, 0);
        while !is_over.load(Ordering::SeqCst) {
            let was_revoked = is_revoked.load(Ordering::SeqCst);
            let Ok(response) = client.get("/x") else {
                client = leaf.connect(address)?;
                continue;
            };
            // While the update is on its way, both statuses are valid.
            let is_right = response.status == after || (!was_revoked && response.status == 200);
            ensure!(is_right, "{} {} the revocation", response.status, if was_revoked { "after" } else { "before" });
            let count = if was_revoked { &mut statuses.1 } else { &mut statuses.0 };
            *count += 1;
        }
        Ok(statuses)
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .flat_map(|_| [scope.spawn(|| call(&federated, 403)), scope.spawn(|| call(&local, 200))])
            .collect();
        thread::sleep(Duration::from_secs(1));
        let revoked = revoking.revoke();
        is_revoked.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_secs(2));
        is_over.store(true, Ordering::SeqCst);
        for caller in callers {
            let (before, after) = caller.join().ok().context("a thread panicked")??;
            ensure!(before > 0 && after > 0, "{before} requests before the update, and {after} after it");
        }
        revoked
    })?;
    let denied = adapter.counter(["enforce", "deny", "identity-revoked", "none"]);
    ensure!(revoking.envoy.stat(&denied)? > Some(0), "nothing was counted as {denied}");
    Ok(())
}

fn a_revoked_identity_loses_its_tcp_connection(adapter: Adapter) -> Result<()> {
    let (fixture, database) = (Fixture::new(adapter, Validation::Spiffe)?, Database::start(First::Client)?);
    let adapted = |document: &str| fixture.tcp_bootstrap(&database)?.tcp_configuration(document);
    let revoking = Revoking::start(&fixture, adapted, &json!({"spiffeIds": [SLEEP]}))?;
    let address: SocketAddr = revoking.envoy.address()?;
    let mut sleep = Session::from(fixture.leaf("default", "sleep")?.connect(address)?);
    let mut curl = Session::from(fixture.leaf("default", "curl")?.connect(address)?);
    ensure!(sleep.echoes("a")? && curl.echoes("a")?, "closed before the revocation");
    revoking.revoke()?;
    ensure!(curl.echoes("b")?, "the connection of an identity that was not revoked is closed");
    ensure!(!sleep.echoes("b")?, "the connection of a revoked identity is open");
    assert_eq!(last_line(&revoking.envoy, 1)?["decision"], "deny identity-revoked");
    Ok(())
}

fn a_policy_expires_without_an_update(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let mut document = document(&json!({}));
    document["policies"][0]["expires"] = json!(Timestamp::from_seconds(seconds_now()? + SHORT).to_string());
    let lasting = json!({"name": "lasting", "rules": [{"to": [{"operation": {"paths": ["/lasting"]}}]}]});
    document["policies"].as_array_mut().context("no policies")?.push(lasting);
    let envoy = start(&fixture, "server", &fixture.bootstrap()?.configuration(&document.to_string())?)?;
    let mut client = fixture.leaf("default", "sleep")?.connect(envoy.address()?)?;
    assert_eq!(client.get("/x")?.status, 200);
    let mut requests = 1;
    wait::until("the policy expires", LIMIT, || {
        requests += 1;
        Ok((client.get("/x")?.status == 403).then_some(()))
    })?;
    assert_eq!(last_line(&envoy, requests)?["decision"], "deny no-policy-allows");
    assert_eq!(client.get("/lasting")?.status, 200);
    Ok(())
}
