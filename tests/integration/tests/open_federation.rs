//! Trust domains that the document does not name: forty federated ones, of which one joins and one leaves under load.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Authority, Leaf, Shape, spiffe_validation};
use spiffe_authz_integration::background;
use spiffe_authz_integration::bootstrap::{Adapter, Bootstrap};
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::wait;

spiffe_authz_integration::test_with_each_adapter![
    trust_domains_follow_the_federation_under_load,
    a_pattern_accepts_only_trust_domains_with_its_end,
];

const DOMAINS: usize = 40;
/// The pairs of requests of the load before and after each change.
const LOAD: usize = 50;
const LIMIT: Duration = Duration::from_secs(20);

/// A document in which one path is for the local workload `sleep`, and one for every `sleep`.
fn document(federated: &Value) -> Value {
    let policy = |name: &str, source: Value, path: &str| {
        json!({"name": name, "namespace": "default", "rules": [
            {"from": [{"source": source}], "to": [{"operation": {"paths": [path]}}]}
        ]})
    };
    json!({
        "trustDomain": "example.org", "federatedTrustDomains": federated, "identity": {"requireValidated": true},
        "policies": [
            policy("local", json!({"serviceAccounts": ["sleep"]}), "/local"),
            policy("everywhere", json!({"principals": ["*/ns/default/sa/sleep"]}), "/everywhere"),
        ]
    })
}

/// Returns the server with this document. The module gets the result of Envoy's validation through filter state.
fn server(fixture: &Fixture, adapter: Adapter, federated: &Value) -> Result<Bootstrap> {
    let bootstrap = fixture.bootstrap()?.configuration(&document(federated).to_string())?;
    match adapter {
        Adapter::Wasm => Ok(bootstrap),
        Adapter::Module => bootstrap.with_validity(),
    }
}

fn sleep_of(authority: &Authority, trust_domain: &str) -> Result<Leaf> {
    authority.sign(&Shape::svid(format!("spiffe://{trust_domain}/ns/default/sa/sleep")))
}

/// Returns the statuses of both paths on a new connection.
fn statuses(leaf: &Leaf, address: SocketAddr) -> Result<[u16; 2]> {
    let mut client = leaf.connect(address)?;
    Ok([client.get("/local")?.status, client.get("/everywhere")?.status])
}

fn trust_domains_follow_the_federation_under_load(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let domains: Vec<String> = (0..DOMAINS).map(|number| format!("d{number}.partner.example")).collect();
    let authorities: Vec<Authority> = domains.iter().map(|domain| Authority::new(domain)).collect::<Result<_>>()?;
    let leaves: Vec<Leaf> = authorities
        .iter()
        .zip(&domains)
        .map(|(authority, domain)| sleep_of(authority, domain))
        .collect::<Result<_>>()?;
    // The first trust domain joins later.
    let (late, first) = authorities.split_first().context("no trust domain")?;
    let validate = |others: &[&Authority]| -> Result<()> {
        let all: Vec<&Authority> = std::iter::once(&fixture.local).chain(others.iter().copied()).collect();
        fixture.scratch.write("validation.json", &spiffe_validation(&all)).map(drop)
    };
    let first: Vec<&Authority> = first.iter().collect();
    validate(&first)?;
    let bootstrap = server(&fixture, adapter, &json!("validated"))?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    let address = envoy.address()?;
    for (leaf, domain) in leaves.iter().zip(&domains).skip(1) {
        assert_eq!(statuses(leaf, address)?, [403, 200], "{domain}");
    }
    let local = fixture.leaf("default", "sleep")?;
    assert_eq!(statuses(&local, address)?, [200, 200]);
    assert!(statuses(&leaves[0], address).is_err(), "Envoy has no bundle for the first trust domain");

    let expect = |leaf: &Leaf, expected: [u16; 2]| {
        let found = statuses(leaf, address)?;
        ensure!(found == expected, "found {found:?}, expected {expected:?}");
        Ok(())
    };
    let (of_local, of_another) = (|| expect(&local, [200, 200]), || expect(&leaves[2], [403, 200]));
    let count = background::during([&of_local, &of_another], |sent| {
        sent.wait_for(LOAD)?;
        let start = Instant::now();
        let with_late: Vec<&Authority> = std::iter::once(late).chain(first.iter().copied()).collect();
        validate(&with_late)?;
        // A handshake that fails is not a verdict.
        let joined = || Ok(statuses(&leaves[0], address).ok());
        assert_eq!(wait::until("the trust domain joins", LIMIT, joined)?, [403, 200]);
        println!("{adapter:?}: a trust domain joined after {} ms", start.elapsed().as_millis());

        sent.wait_for(LOAD)?;
        let mut open = leaves[1].connect(address)?;
        let start = Instant::now();
        validate(&with_late.iter().copied().filter(|one| !std::ptr::eq(*one, first[0])).collect::<Vec<_>>())?;
        wait::until("the trust domain leaves", LIMIT, || Ok(statuses(&leaves[1], address).is_err().then_some(())))?;
        println!("{adapter:?}: a trust domain left after {} ms", start.elapsed().as_millis());
        sent.wait_for(LOAD)?;
        // Envoy validated the open connection, which lives until its maximum age. `revoked` would end its access.
        assert_eq!(open.get("/everywhere")?.status, 200);
        Ok(())
    })?;
    println!("{adapter:?}: {} requests of the steady load, each with the right verdict", 2 * count);
    Ok(())
}

fn a_pattern_accepts_only_trust_domains_with_its_end(adapter: Adapter) -> Result<()> {
    let fixture = Fixture::new(adapter, Validation::Spiffe)?;
    let domains = ["a.partner.example", "partner.example", "evilpartner.example"];
    let authorities: Vec<Authority> = domains.iter().map(|domain| Authority::new(domain)).collect::<Result<_>>()?;
    let all: Vec<&Authority> = std::iter::once(&fixture.local).chain(&authorities).collect();
    fixture.scratch.write("validation.json", &spiffe_validation(&all))?;
    let bootstrap = server(&fixture, adapter, &json!(["*.partner.example"]))?;
    let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
    for ((domain, authority), expected) in domains.iter().zip(&authorities).zip([[403, 200], [403, 403], [403, 403]]) {
        assert_eq!(statuses(&sleep_of(authority, domain)?, envoy.address()?)?, expected, "{domain}");
    }
    let reasons: Vec<Value> = envoy.access_log_of(6)?.into_iter().map(|line| line["decision"].clone()).collect();
    assert_eq!(
        reasons.iter().filter(|reason| **reason == json!("deny foreign-trust-domain")).count(),
        4,
        "{reasons:?}"
    );
    Ok(())
}
