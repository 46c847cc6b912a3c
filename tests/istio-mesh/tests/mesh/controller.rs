//! The AuthorizationPolicies of the mesh, deployed by the controller.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiffe_authz_integration::wait;
use spiffe_authz_mesh::controller::Controller;
use spiffe_authz_mesh::mesh::Mesh;
use spiffe_authz_mesh::mesh::Via::Sidecar;

use crate::LIMIT;

/// Compares the objects of the controller with the output of `render`.
const CHECK: &str = "kubectl get authorizationpolicies -A -o yaml > policies.yaml && kubectl get wasmplugins -A -o yaml | \
                     spiffe-authz render --to wasm-plugin --trust-domain example.org --federated-trust-domain example.ai \
                     --federated-trust-domain example.io --image \"file://$WASM\" \
                     --sha256 \"$(sha256sum \"$WASM\" | cut -c 1-64)\" --proxies sidecars \
                     --proxies gateway:istio-system/istio=ingressgateway policies.yaml --check -";

/// Creates the PolicyDeployment of the example with the filter of this project.
pub(crate) const DEPLOY: &str = "sed -e \"s|^  image: .*|  image: file://$WASM|\" -e \"s|^  sha256: .*|  sha256: $(sha256sum \"$WASM\" | cut -c 1-64)|\" \
         5-authorization/controller/deployment.yaml | kubectl apply -f -";

/// An AuthorizationPolicy of httpbin that allows a caller to use these methods.
fn policy(name: &str, caller: &str, methods: &[&str]) -> String {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "httpbin"}},
            "rules": [{"from": [{"source": {"principals": [caller]}}], "to": [{"operation": {"methods": methods}}]}],
        },
    })
    .to_string()
}

/// A policy that istiod accepts, and the filter does not know.
fn unknown_policy() -> String {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "asks-elsewhere", "namespace": "default"},
        "spec": {
            "action": "CUSTOM", "provider": {"name": "nobody"}, "selector": {"matchLabels": {"app": "other"}}, "rules": [{}],
        },
    })
    .to_string()
}

const SLEEP: &str = "cluster.local/ns/default/sa/sleep";

pub(crate) fn policies_follow_the_cluster(mesh: &Mesh) -> Result<()> {
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    mesh.shell.run("kubectl apply --server-side -k 5-authorization/controller")?;
    let result = with_controller(mesh);
    remove(mesh)?;
    result
}

/// Removes the controller, its objects and the policies.
pub(crate) fn remove(mesh: &Mesh) -> Result<()> {
    mesh.shell.run("kubectl delete --ignore-not-found policydeployments --all --cascade=foreground")?;
    let left = mesh.shell.run("kubectl get wasmplugins -A -l app.kubernetes.io/managed-by=spiffe-authz -o name")?;
    ensure!(left.trim().is_empty(), "objects of the controller are left: {left}");
    mesh.shell.run("kubectl delete --ignore-not-found authorizationpolicies -n default --all")?;
    mesh.shell.run("kubectl delete --ignore-not-found -k 5-authorization/controller")?;
    Ok(())
}

fn with_controller(mesh: &Mesh) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    let first = Controller::start(kubectl, mesh.environment.directory(), "first")?;
    kubectl.apply(&policy("sleep-reads", SLEEP, &["GET"]))?;
    let start = Instant::now();
    mesh.shell.run(DEPLOY)?;
    // Istio's own filter denies with another text.
    let denied_by_filter = |method: &str| {
        let response = mesh.connect("sleep", Sidecar)?.send(method, "/status/200")?;
        Ok::<_, anyhow::Error>(response.status == 403 && response.text().contains("spiffe-authz: access denied"))
    };
    let allowed = |caller, method| Ok::<_, anyhow::Error>(mesh.status(caller, Sidecar, method, "/status/200")? == 200);
    wait::until("the policy decides", LIMIT, || {
        Ok((denied_by_filter("POST")? && allowed("sleep", "GET")?).then_some(()))
    })
    .with_context(|| first.log().unwrap_or_default())?;
    println!("the filter decided {:.1} s after the PolicyDeployment", start.elapsed().as_secs_f64());
    ensure!(!allowed("partner-sleep", "GET")?, "the federated caller with the same name is allowed");
    deployed(mesh, "True", "Deployed")?;
    mesh.shell.run(CHECK).context("the controller writes what `render` writes")?;

    let start = Instant::now();
    kubectl.apply(&policy("sleep-reads", SLEEP, &["GET", "POST"]))?;
    wait::until("the changed policy decides", LIMIT, || Ok(allowed("sleep", "POST")?.then_some(())))?;
    println!("a changed policy decided after {:.1} s", start.elapsed().as_secs_f64());

    a_policy_that_cannot_be_deployed_changes_nothing(mesh)?;
    the_federation_is_followed(mesh)?;
    the_api_server_restarts(mesh)?;
    another_replica_takes_over(mesh, first)?;

    // Kubernetes deletes the objects with their owner.
    mesh.shell.run("kubectl delete policydeployment mesh")?;
    wait::until("the objects are deleted", LIMIT, || Ok(kubectl.list(&["wasmplugins", "-A"])?.is_empty().then_some(())))
}

fn a_policy_that_cannot_be_deployed_changes_nothing(mesh: &Mesh) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    kubectl.apply(&unknown_policy())?;
    let status = deployed(mesh, "False", "Invalid")?;
    ensure!(status["problems"][0].as_str().is_some_and(|text| text.contains("default/asks-elsewhere")), "{status}");
    let before = kubectl.list(&["wasmplugins", "-A"])?;
    kubectl.apply(&policy("sleep-reads", SLEEP, &["DELETE"]))?;
    let events = wait::until("an event names the policy", LIMIT, || {
        let events = kubectl.list(&["events.events.k8s.io", "-A"])?;
        Ok(events.into_iter().find(|event| event["note"].to_string().contains("default/asks-elsewhere")))
    })?;
    ensure!(events["regarding"]["kind"] == "PolicyDeployment" && events["type"] == "Warning", "{events}");
    // Further comparisons do not repeat the event, as the change of another policy above.
    let described = wait::until("the policy has an event", LIMIT, || {
        let text = kubectl.run(&["describe", "authorizationpolicy", "asks-elsewhere", "-n", "default"])?;
        Ok(text.contains("NotDeployed").then_some(text))
    })?;
    ensure!(described.matches("NotDeployed").count() == 1 && described.contains("`action: CUSTOM`"), "{described}");
    let spec = |objects: &[Value]| objects.iter().map(|object| object["spec"].clone()).collect::<Vec<_>>();
    ensure!(spec(&kubectl.list(&["wasmplugins", "-A"])?) == spec(&before), "the objects have changed");
    ensure!(mesh.status("sleep", Sidecar, "POST", "/status/200")? == 200, "the previous policy is gone");

    kubectl.with_input(&["delete", "-f", "-"], &unknown_policy())?;
    deployed(mesh, "True", "Deployed")?;
    wait::until("the policies are deployed again", LIMIT, || {
        Ok((mesh.status("sleep", Sidecar, "DELETE", "/status/200")? == 200).then_some(()))
    })
}

/// A federated caller that a policy names is allowed as long as a ClusterFederatedTrustDomain names its trust domain.
fn the_federation_is_followed(mesh: &Mesh) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    kubectl.apply(&policy("partner-reads", "example.io/ns/default/sa/sleep", &["GET"]))?;
    let partner = || mesh.status("partner-sleep", Sidecar, "GET", "/status/200");
    wait::until("the federated caller is allowed", LIMIT, || Ok((partner()? == 200).then_some(())))?;
    let documents = |trust_domain: &str, is_federated: bool| {
        wait::until("the documents follow the federation", LIMIT, || {
            let all = kubectl.list(&["wasmplugins", "-A"])?;
            let names = |plugin: &Value| plugin["spec"]["pluginConfig"]["federatedTrustDomains"].to_string();
            Ok(all.iter().all(|plugin| names(plugin).contains(trust_domain) == is_federated).then_some(()))
        })
    };
    let other = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": "example-dev"},
        "spec": {
            "className": "nobody", "trustDomain": "example.dev", "bundleEndpointURL": "https://spire.example.dev",
            "bundleEndpointProfile": {"type": "https_web"},
        },
    })
    .to_string();
    kubectl.apply(&other)?;
    documents("example.dev", true)?;
    kubectl.with_input(&["delete", "-f", "-"], &other)?;
    documents("example.dev", false)?;

    // The filter denies the caller, unless SPIRE withdraws the bundle first, and the handshake fails.
    let start = Instant::now();
    kubectl.run(&["delete", "clusterfederatedtrustdomain", "example-io"])?;
    let status = wait::until("the federated caller is denied", LIMIT, || {
        let status = partner()?;
        Ok((status != 200).then_some(status))
    })?;
    println!(
        "the federated caller was denied {:.1} s after the end of the federation (status {status})",
        start.elapsed().as_secs_f64()
    );
    documents("example.io", false)?;
    let start = Instant::now();
    mesh.shell.run("kubectl apply -f 6-federation/trust-domains.yaml")?;
    let bundle = mesh.environment.directory().join("example.io.json");
    mesh.shell.run(&format!("6-federation/bundle.sh example-io {}", bundle.display()))?;
    wait::until("the federated caller is allowed again", LIMIT, || Ok((partner()? == 200).then_some(())))?;
    println!("the federated caller was allowed {:.1} s after the new federation", start.elapsed().as_secs_f64());
    Ok(())
}

/// The controller works with an API server that was away.
fn the_api_server_restarts(mesh: &Mesh) -> Result<()> {
    let control_plane = mesh.environment.control_plane();
    control_plane.stop_api_server();
    ensure!(mesh.status("sleep", Sidecar, "DELETE", "/status/200")? == 200, "the policies are gone");
    // Longer than the lease, which the controller cannot renew.
    thread::sleep(Duration::from_secs(16));
    let start = Instant::now();
    control_plane.start_api_server()?;
    println!("the API server was ready after {:.1} s", start.elapsed().as_secs_f64());
    mesh.environment.kubectl().apply(&policy("sleep-reads", SLEEP, &["PATCH"]))?;
    let changed = Instant::now();
    wait::until("the change is deployed after the restart", LIMIT, || {
        let plugins = mesh.environment.kubectl().list(&["wasmplugins", "-A"])?;
        Ok(plugins.iter().any(|plugin| plugin["spec"].to_string().contains("PATCH")).then_some(()))
    })?;
    println!("a change was deployed {:.1} s after the restart of the API server", changed.elapsed().as_secs_f64());
    // istiod connects again after up to 30 seconds, and more than once.
    wait::until("a change takes effect after the restart", Duration::from_secs(300), || {
        Ok((mesh.status("sleep", Sidecar, "PATCH", "/status/200")? == 200).then_some(()))
    })?;
    println!("the change decided {:.1} s after the restart of the API server", changed.elapsed().as_secs_f64());
    // Otherwise istiod can crash later. Its watch of definitions connects again after more than a minute, and it panics if
    // a definition was deleted meanwhile: `minimumVersionFilter` in pkg/kube/kclient/crdwatcher.go does not expect
    // `cache.DeletedFinalStateUnknown`.
    mesh.restart_istiod()
}

/// The second replica acts after the first one has crashed.
fn another_replica_takes_over(mesh: &Mesh, first: Controller) -> Result<()> {
    const LEADER: &str = "spiffe_authz_controller_leader";
    let kubectl = mesh.environment.kubectl();
    let second = Controller::start(kubectl, mesh.environment.directory(), "second")?;
    ensure!((first.metric(LEADER)?, second.metric(LEADER)?) == (1, 0), "not exactly the first replica acts");
    println!("memory of the controller: {} kB", first.memory()?.0);
    let start = Instant::now();
    first.kill()?;
    kubectl.apply(&policy("sleep-reads", SLEEP, &["PUT"]))?;
    wait::until("the second replica deploys the change", LIMIT, || {
        Ok((mesh.status("sleep", Sidecar, "PUT", "/status/200")? == 200).then_some(()))
    })
    .with_context(|| second.log().unwrap_or_default())?;
    println!("the second replica deployed a change {:.1} s after the first one crashed", start.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until the PolicyDeployment has this condition. Returns its status.
fn deployed(mesh: &Mesh, state: &str, reason: &str) -> Result<Value> {
    wait::until("the status is known", LIMIT, || {
        let deployment = mesh.environment.kubectl().get(&["policydeployment", "mesh"])?;
        let condition = &deployment["status"]["conditions"][0];
        Ok((condition["status"] == state && condition["reason"] == reason).then(|| deployment["status"].clone()))
    })
    .with_context(|| format!("expected {state}, {reason}"))
}

/// The numbers of `two_thousand_policies`.
const NAMESPACES: usize = 10;
const POLICIES: usize = 200;
const WORKLOADS: usize = 50;

/// Prints the time and the memory for the policies of a large mesh.
pub(crate) fn two_thousand_policies(mesh: &Mesh) -> Result<()> {
    mesh.shell.run("kubectl delete -k 5-authorization/wasmplugin")?;
    mesh.shell.run("kubectl apply --server-side -k 5-authorization/controller")?;
    let result = with_many_policies(mesh);
    mesh.shell.run("kubectl delete --ignore-not-found namespaces -l scale=true")?;
    remove(mesh)?;
    result
}

fn with_many_policies(mesh: &Mesh) -> Result<()> {
    let kubectl = mesh.environment.kubectl();
    let list = |items: Vec<Value>| json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let namespaces = (0..NAMESPACES).map(|n| {
        let metadata = json!({"name": format!("scale-{n}"), "labels": {"scale": "true"}});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    });
    kubectl.apply(&list(namespaces.collect()))?;
    let accounts = |n| {
        wait::until("the namespace has its service account", LIMIT, || {
            Ok(kubectl.run(&["get", "serviceaccount", "default", "-n", &format!("scale-{n}")]).ok())
        })
    };
    (0..NAMESPACES).try_for_each(|n| accounts(n).map(drop))?;
    let in_each = |count: usize| (0..NAMESPACES).flat_map(move |n| (0..count).map(move |k| (n, k)));
    let pods = in_each(WORKLOADS).map(|(n, k)| {
        let metadata = json!({"name": format!("app-{k}"), "namespace": format!("scale-{n}"), "labels": {"app": format!("app-{k}")}});
        let spec = json!({"nodeName": "node", "containers": [{"name": "app", "image": "app"}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    });
    kubectl.apply(&list(pods.collect()))?;
    wait::until("the pods run", Duration::from_secs(300), || {
        let running = kubectl.run(&["get", "pods", "-A", "--field-selector=status.phase=Running", "-o", "name"])?;
        Ok((running.lines().filter(|name| name.starts_with("pod/app-")).count() == NAMESPACES * WORKLOADS)
            .then_some(()))
    })?;

    let controller = Controller::start(kubectl, mesh.environment.directory(), "scale")?;
    kubectl.apply(&policy("sleep-reads", SLEEP, &["GET"]))?;
    mesh.shell.run(DEPLOY)?;
    deployed(mesh, "True", "Deployed")?;
    println!("memory with 1 policy: {} kB", controller.memory()?.0);

    let policies = in_each(POLICIES).map(|(n, k)| {
        let app = format!("app-{}", k % WORKLOADS);
        let caller = format!("cluster.local/ns/scale-{n}/sa/app-{k}");
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("reads-{k}"), "namespace": format!("scale-{n}")},
            "spec": {
                "selector": {"matchLabels": {"app": app}},
                "rules": [{"from": [{"source": {"principals": [caller]}}], "to": [{"operation": {"methods": ["GET"]}}]}],
            },
        })
    });
    let start = Instant::now();
    kubectl.with_input(&["create", "-f", "-"], &list(policies.collect()))?;
    println!("kubectl created {} policies in {:.1} s", NAMESPACES * POLICIES, start.elapsed().as_secs_f64());
    let start = Instant::now();
    let plugin = wait::until("every policy is deployed", Duration::from_secs(300), || {
        let plugin = kubectl.get(&["wasmplugin", "spiffe-authz", "-n", "istio-system"])?;
        let count = plugin["spec"]["pluginConfig"]["policies"].as_array().map_or(0, Vec::len);
        Ok((count == NAMESPACES * POLICIES + 1).then_some(plugin))
    })?;
    println!("the object had all of them {:.1} s later", start.elapsed().as_secs_f64());
    println!("bytes of `spec` as JSON: {}", plugin["spec"].to_string().len());
    println!("objects written: {}", controller.metric("spiffe_authz_controller_writes_total{verb=\"apply\"}")?);

    let start = Instant::now();
    kubectl.apply(&policy("sleep-reads", SLEEP, &["GET", "POST"]))?;
    wait::until("the changed policy decides", Duration::from_secs(300), || {
        Ok((mesh.status("sleep", Sidecar, "POST", "/status/200")? == 200).then_some(()))
    })?;
    println!("one changed policy decided after {:.1} s", start.elapsed().as_secs_f64());
    let (now, most) = controller.memory()?;
    println!("memory with all policies: {now} kB, at most {most} kB");
    Ok(())
}
