//! Forty federated trust domains, of which one joins and one leaves under load. The controller adds them to the filter.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::authority::{Authority, Leaf, Shape};
use spiffe_authz_integration::background;
use spiffe_authz_integration::http::Response;
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::controller::Controller;
use spiffe_authz_mesh::mesh::{Mesh, Via};

use crate::controller::DEPLOY;
use crate::{LIMIT, guide, istio_alone};

const DOMAINS: usize = 40;
/// The requests of the load before and after each change.
const LOAD: usize = 50;
/// The time limit for forty bundles.
const START_LIMIT: Duration = Duration::from_secs(180);

/// A trust domain, of which only the authority and one workload exist.
struct Partner {
    trust_domain: String,
    authority: Authority,
    sleep: Leaf,
}

impl Partner {
    fn new(number: usize) -> Result<Self> {
        let trust_domain = format!("d{number}.partner.example");
        let authority = Authority::new(&trust_domain)?;
        let sleep = authority.sign(&Shape::svid(format!("spiffe://{trust_domain}/ns/default/sa/sleep")))?;
        Ok(Self { trust_domain, authority, sleep })
    }

    fn name(&self) -> String {
        self.trust_domain.replace('.', "-")
    }

    /// Returns the object that federates with the trust domain. Nothing answers at the endpoint.
    fn federation(&self) -> Value {
        json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
            "metadata": {"name": self.name(), "labels": {"partners": "true"}},
            "spec": {
                "className": "spire-server-spire", "trustDomain": self.trust_domain,
                "bundleEndpointURL": "https://127.0.0.1:1", "bundleEndpointProfile": {"type": "https_web"},
            },
        })
    }

    /// Gives the bundle to the SPIRE server.
    fn set_bundle(&self, mesh: &Mesh) -> Result<()> {
        let file = mesh.environment.directory().join(self.name());
        fs::write(&file, self.authority.certificate())?;
        let id = format!("spiffe://{}", self.trust_domain);
        mesh.environment.local.command(&[
            "bundle",
            "set",
            "-format",
            "pem",
            "-id",
            &id,
            "-path",
            &file.to_string_lossy(),
        ])?;
        Ok(())
    }

    /// Returns the response to a request on a new connection.
    fn response(&self, mesh: &Mesh) -> Result<Response> {
        self.sleep.connect(mesh.sidecar_address)?.get("/status/200")
    }

    /// Returns the status of a request on a new connection, or `None` if the handshake fails.
    fn status(&self, mesh: &Mesh) -> Option<u16> {
        self.response(mesh).ok().map(|response| response.status)
    }
}

pub(crate) fn join_and_leave_under_load(mesh: &Mesh) -> Result<()> {
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    mesh.shell.run("kubectl apply --server-side -k 5-authorization/controller")?;
    let partners: Vec<Partner> = (0..DOMAINS).map(Partner::new).collect::<Result<_>>()?;
    let result = with_partners(mesh, &partners);
    remove(mesh, &partners)?;
    result
}

fn remove(mesh: &Mesh, partners: &[Partner]) -> Result<()> {
    crate::controller::remove(mesh)?;
    mesh.shell.run("kubectl delete --ignore-not-found clusterfederatedtrustdomains -l partners=true")?;
    federate_httpbin_with(mesh, &[])?;
    // SPIRE rejects the deletion of a bundle that an entry names.
    wait::until("the bundles are deleted", START_LIMIT, || {
        let bundles = mesh.environment.local.federated_bundles()?;
        for partner in partners.iter().filter(|partner| json!(bundles).to_string().contains(&partner.trust_domain)) {
            let id = format!("spiffe://{}", partner.trust_domain);
            let _ = mesh.environment.local.command(&["bundle", "delete", "-id", &id]);
        }
        Ok((mesh.environment.local.federated_bundles()?.len() == 2).then_some(()))
    })
}

/// Names the trust domains in the entry of httpbin, in addition to those of the guide.
fn federate_httpbin_with(mesh: &Mesh, partners: &[&Partner]) -> Result<()> {
    let guide = ["example.io", "example.ai"];
    let names: Vec<&str> = guide.into_iter().chain(partners.iter().map(|partner| &*partner.trust_domain)).collect();
    let patch = json!({"spec": {"federatesWith": names}}).to_string();
    let entry = ["patch", "clusterstaticentry", "process-httpbin-sidecar", "--type=merge", "-p", &patch];
    mesh.environment.kubectl().run(&entry).map(drop)
}

/// Returns a policy that lets the workload `sleep` of every trust domain read, also of those that are not federated.
fn policy(partners: &[Partner], others: &[&str]) -> String {
    let principals = partners.iter().map(|partner| &*partner.trust_domain).chain(others.iter().copied());
    let principals: Vec<String> = principals.map(|domain| format!("{domain}/ns/default/sa/sleep")).collect();
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "partners-read", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "httpbin"}},
            "rules": [{"from": [{"source": {"principals": principals}}], "to": [{"operation": {"methods": ["GET"]}}]}],
        },
    })
    .to_string()
}

fn with_partners(mesh: &Mesh, partners: &[Partner]) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    let (late, first) = partners.split_first().context("no partner")?;
    let trusted: Vec<&str> = partners.iter().map(|partner| &*partner.trust_domain).collect();
    istio_alone::trust(mesh, &[&["example.io", "example.ai"], &trusted[..]].concat())?;
    let list = |partners: &[Partner]| {
        let items: Vec<Value> = partners.iter().map(Partner::federation).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    };
    kubectl.apply(&list(first))?;
    first.iter().try_for_each(|partner| partner.set_bundle(mesh))?;
    federate_httpbin_with(mesh, &first.iter().collect::<Vec<_>>())?;
    kubectl.apply(&policy(partners, &["cluster.local"]))?;
    let _controller = Controller::start(kubectl, mesh.environment.directory(), "partners")?;
    mesh.shell.run(DEPLOY)?;
    wait::until("every partner is allowed", START_LIMIT, || {
        Ok(first.iter().all(|partner| partner.status(mesh) == Some(200)).then_some(()))
    })?;
    // Istio's own filter with the policy, and the new trust domains, replaced the listener.
    guide::wait_until_nothing_drains(mesh)?;
    ensure!(late.status(mesh).is_none(), "a handshake of {} succeeds without its bundle", late.trust_domain);

    let allowed = |name: &str, response: Result<Response>| {
        let response = response.with_context(|| name.to_owned())?;
        ensure!(response.status == 200, "the {name} caller got {}: {}", response.status, response.text());
        Ok(())
    };
    // The local caller, and a partner that neither joins nor leaves.
    let local = || allowed("local", mesh.connect("sleep", Via::Sidecar)?.send("GET", "/status/200"));
    let steady = || allowed("steady", first[1].response(mesh));
    let count = background::during([&local, &steady], |sent| {
        sent.wait_for(LOAD)?;
        let start = Instant::now();
        kubectl.apply(&late.federation().to_string())?;
        late.set_bundle(mesh)?;
        federate_httpbin_with(mesh, &partners.iter().collect::<Vec<_>>())?;
        wait::until("the trust domain joins", LIMIT, || Ok((late.status(mesh) == Some(200)).then_some(())))?;
        println!("the trust domain number {DOMAINS} joined after {:.1} s", start.elapsed().as_secs_f64());

        sent.wait_for(LOAD)?;
        let leaves = &first[0];
        let start = Instant::now();
        kubectl.run(&["delete", "clusterfederatedtrustdomain", &leaves.name()])?;
        wait::until("the trust domain leaves", LIMIT, || Ok((leaves.status(mesh) != Some(200)).then_some(())))?;
        println!("a trust domain left after {:.1} s", start.elapsed().as_secs_f64());
        for _ in 0..LOAD {
            ensure!(leaves.status(mesh) != Some(200), "{} is allowed again", leaves.trust_domain);
            ensure!(late.status(mesh) == Some(200), "{} is denied again", late.trust_domain);
        }
        sent.wait_for(LOAD)
    })?;
    println!("{count} requests of the load, each with the right verdict");
    ensure!(first[1..].iter().all(|partner| partner.status(mesh) == Some(200)), "a partner is denied");
    Ok(())
}
