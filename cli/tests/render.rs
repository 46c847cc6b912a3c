//! `spiffe-authz render`: what is written for each kind of proxy, and the comparison with what is deployed.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const IMAGE: [&str; 4] = [
    "--image",
    "oci://registry.example.org/filter:1",
    "--sha256",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];
const LIMIT: Duration = Duration::from_secs(60);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    command.arg("render").args(arguments);
    command
}

/// Runs the command with input.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut child =
        command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command with invalid options ends before it reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Renders a WasmPlugin for each of the proxies. Returns the objects and what is written to standard error.
fn plugins(arguments: &[&str], input: &str) -> (Vec<Value>, String) {
    let output = run(&[&["--to", "wasm-plugin"], &IMAGE[..], arguments, &["-"]].concat(), input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    (documents(&output.stdout), errors)
}

fn documents(yaml: &[u8]) -> Vec<Value> {
    serde_saphyr::from_multiple(std::str::from_utf8(yaml).unwrap()).unwrap()
}

/// Returns the error of a render without output.
fn error(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{errors}");
    errors
}

/// An AuthorizationPolicy that allows the service account `a` of its namespace to use a path.
fn policy(namespace: &str, name: &str, spec: Value) -> String {
    let mut spec = spec;
    spec["rules"] = json!([{
        "from": [{"source": {"principals": [format!("example.org/ns/{namespace}/sa/a")]}}],
        "to": [{"operation": {"paths": [format!("/{name}")]}}],
    }]);
    let resource = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    });
    resource.to_string() + "\n"
}

fn mesh() -> String {
    [
        policy("default", "all", json!({})),
        policy("default", "httpbin", json!({"selector": {"matchLabels": {"app": "httpbin"}}})),
        policy("prod", "all", json!({})),
        policy("istio-system", "mesh", json!({"action": "DENY"})),
        policy("istio-system", "ingress", json!({"selector": {"matchLabels": {"istio": "ingressgateway"}}})),
    ]
    .concat()
}

const DOCUMENT: &str = "{trustDomain: example.org, policies: [{name: reads, namespace: default, rules: [{}], \
                        ignoreLints: [any-caller]}]}";

fn names(document: &Value) -> Vec<String> {
    let text = |policy: &Value, name: &str| policy[name].as_str().unwrap().to_owned();
    let policies = document["policies"].as_array().unwrap().iter();
    policies.map(|policy| text(policy, "namespace") + "/" + &text(policy, "name")).collect()
}

#[test]
fn the_sidecars_of_a_mesh_get_one_object_with_every_policy() {
    let (objects, errors) = plugins(&["--trust-domain", "example.org"], &mesh());
    let [object] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!(object["apiVersion"], "extensions.istio.io/v1alpha1");
    assert_eq!(
        object["metadata"],
        json!({
            "name": "spiffe-authz", "namespace": "istio-system",
            "labels": {"app.kubernetes.io/managed-by": "spiffe-authz"},
        })
    );
    let mut spec = object["spec"].clone();
    let document = spec.as_object_mut().unwrap().remove("pluginConfig").unwrap();
    let expected = json!({
        "phase": "AUTHZ", "match": [{"mode": "SERVER"}], "url": IMAGE[1], "sha256": &IMAGE[3][7..],
        "failStrategy": "FAIL_RELOAD",
    });
    assert_eq!(spec, expected);
    assert_eq!(document["scope"], json!({"rootNamespace": "istio-system"}));
    let expected = ["default/all", "default/httpbin", "istio-system/ingress", "istio-system/mesh", "prod/all"];
    assert_eq!(names(&document), expected);
    let size = object.to_string().len();
    assert_eq!(errors, format!("WasmPlugin istio-system/spiffe-authz: 5 policies, {size} bytes\n"));
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let arguments = [&["--to", "wasm-plugin", "--trust-domain", "example.org", "-"], &IMAGE[..]].concat();
    let reversed: String = mesh().lines().rev().map(|line| format!("{line}\n")).collect();
    let (first, second) = (run(&arguments, &mesh()), run(&arguments, &reversed));
    assert!(first.status.success());
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn proxies_of_a_namespace_get_the_policies_of_their_namespace_and_of_the_root_namespace() {
    let proxies = [
        "--trust-domain",
        "example.org",
        "--proxies",
        "sidecars:default",
        "--proxies",
        "gateway:istio-system/istio=ingressgateway",
        "--proxies",
        "waypoint:prod/Gateway/waypoint",
    ];
    let (objects, _) = plugins(&proxies, &mesh());
    let [sidecars, gateway, waypoint] = objects.as_slice() else { panic!("{objects:?}") };
    let of = |object: &Value| names(&object["spec"]["pluginConfig"]);
    assert_eq!(of(sidecars), ["default/all", "default/httpbin", "istio-system/ingress", "istio-system/mesh"]);
    assert_eq!(of(gateway), ["istio-system/ingress", "istio-system/mesh"]);
    assert_eq!(of(waypoint), ["istio-system/ingress", "istio-system/mesh", "prod/all"]);
    // The listeners of gateways have the mode CLIENT.
    assert_eq!([&sidecars["spec"]["match"], &gateway["spec"]["match"]], [&json!([{"mode": "SERVER"}]), &Value::Null]);
    assert_eq!(gateway["spec"]["selector"], json!({"matchLabels": {"istio": "ingressgateway"}}));
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}]);
    assert_eq!(waypoint["spec"]["targetRefs"], target);
    assert_eq!(waypoint["spec"]["pluginConfig"]["identity"], json!({"from": "peerPrincipal"}));
    assert_eq!(sidecars["spec"]["pluginConfig"]["identity"], Value::Null);
}

#[test]
fn a_proxy_that_cannot_find_out_its_workload_gets_its_policies_only() {
    let arguments = ["--to", "ecds", "--module", "/m.so", "--trust-domain", "example.org", "-"];
    let workload = ["--proxies", "sidecars:default/app=httpbin,version=v1"];
    let output = run(&[&arguments[..], &workload].concat(), &mesh());
    assert!(output.status.success(), "{output:?}");
    let file = documents(&output.stdout).remove(0);
    let config = &file["resources"][0]["typed_config"];
    assert_eq!(config["dynamic_module_config"]["module"]["local"]["filename"], "/m.so");
    let document: Value = serde_json::from_str(config["filter_config"]["value"].as_str().unwrap()).unwrap();
    assert_eq!(names(&document), ["default/all", "default/httpbin", "istio-system/mesh"]);
    assert_eq!(document["scope"], Value::Null);

    for (proxies, expected) in [
        ("sidecars", "the filter cannot find out the workload of its proxy"),
        ("sidecars:nowhere/app=x", ""),
        ("sidecars:prod", ""),
    ] {
        let output = run(&[&arguments[..], &["--proxies", proxies]].concat(), &mesh());
        assert_eq!(output.status.success(), expected.is_empty(), "{proxies}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{proxies}: {output:?}");
    }
    // A policy of a Gateway applies to the proxy of the Gateway, and to no sidecar.
    let target = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"});
    let with_gateway = mesh() + &policy("default", "enter", json!({"targetRefs": [target]}));
    for (proxies, expected) in [
        ("sidecars:default", vec!["default/all", "istio-system/mesh"]),
        (
            "gateway:default/gateway.networking.k8s.io/gateway-name=public",
            vec!["default/all", "default/enter", "istio-system/mesh"],
        ),
    ] {
        let output = run(&[&arguments[..], &["--proxies", proxies]].concat(), &with_gateway);
        assert!(output.status.success(), "{proxies}: {output:?}");
        let config = &documents(&output.stdout)[0]["resources"][0]["typed_config"];
        let document: Value = serde_json::from_str(config["filter_config"]["value"].as_str().unwrap()).unwrap();
        assert_eq!(names(&document), expected, "{proxies}");
    }

    let none = policy("prod", "all", json!({}));
    let message = error(&[&arguments[..], &["--proxies", "sidecars:default"]].concat(), &none);
    assert!(message.contains("sidecars:default: no policy applies"), "{message}");
}

#[test]
fn a_document_goes_to_each_of_the_proxies() {
    let arguments = ["--proxies", "sidecars:default/app=httpbin", "--proxies", "waypoint:default/Service/httpbin"];
    let (objects, _) = plugins(&arguments, DOCUMENT);
    let [sidecar, waypoint] = objects.as_slice() else { panic!("{objects:?}") };
    let document = &sidecar["spec"]["pluginConfig"];
    assert_eq!(*document, serde_saphyr::from_str::<Value>(DOCUMENT).unwrap());
    let mut expected = document.clone();
    expected["identity"] = json!({"from": "peerPrincipal"});
    assert_eq!(waypoint["spec"]["pluginConfig"], expected);
    assert_eq!(sidecar["metadata"]["name"], "spiffe-authz-httpbin");
    assert_eq!(waypoint["metadata"]["name"], "spiffe-authz-waypoint-httpbin");
}

#[test]
fn a_module_gets_what_envoy_does_not_expose() {
    let rules = json!([{
        "from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}],
        "when": [{"key": "request.auth.claims[role]", "values": ["reader"]}],
    }]);
    let document = json!({
        "trustDomain": "example.org", "identity": {"requireValidated": true}, "policies": [{"name": "p", "rules": rules}],
    });
    let arguments = ["--proxies", "sidecars:default", "-"];
    let render = |arguments: &[&str]| documents(&run(arguments, &document.to_string()).stdout).remove(0);
    let keys = |states: &Value| -> Vec<String> {
        states.as_array().into_iter().flatten().map(|state| state["object_key"].as_str().unwrap().to_owned()).collect()
    };
    let filters = render(&[&["--to", "filters", "--module", "/m.so"], &arguments[..]].concat());
    let connection = &filters["filters"][0]["typed_config"];
    assert_eq!(keys(&connection["on_new_connection"]), ["spiffe_authz.source_ip"]);
    let expected = ["spiffe_authz.peer_certificate", "spiffe_authz.peer_certificate_valid"];
    assert_eq!(keys(&connection["on_downstream_tls_handshake"]), expected);
    let claims = &filters["http_filters"][0]["typed_config"]["on_request_headers"];
    assert_eq!(keys(claims), ["spiffe_authz.metadata.envoy.filters.http.jwt_authn"]);
    assert_eq!(filters["http_filters"][1]["name"], "spiffe-authz");

    let filters = render(&[&["--to", "filters", "--wasm", "/f.wasm"], &arguments[..]].concat());
    assert_eq!(filters["filters"][0]["typed_config"]["on_downstream_tls_handshake"], Value::Null);
    assert_eq!(filters["http_filters"].as_array().unwrap().len(), 1);

    // The filter comes after the validation of tokens.
    let object = render(&[&["--to", "envoy-filter", "--module", "/m.so"], &arguments[..]].concat());
    let patches = object["spec"]["configPatches"].as_array().unwrap();
    assert_eq!(patches.len(), 3);
    for patch in &patches[1..] {
        assert_eq!(patch["patch"]["operation"], "INSERT_BEFORE");
        let filter = &patch["match"]["listener"]["filterChain"]["filter"];
        assert_eq!(filter["subFilter"]["name"], "envoy.filters.http.router");
    }
}

#[test]
fn texts_that_yaml_could_read_as_something_else_stay_texts() {
    let texts = [
        "/",
        "*",
        "/a: b",
        "/#",
        "/x #y",
        "yes",
        "Off",
        "n",
        "~",
        "null",
        "true",
        "0o17",
        "012",
        "1_000",
        "12:30:45",
        "2026-01-01",
        "1e3",
        ".inf",
        "0x1f",
        "=",
        "<<",
        "- a",
        "? b",
        "& c",
        "'",
        "\"",
        "\\",
        "/\u{e9}",
        "@x",
        "%y",
        "{z}",
        "[z]",
        "!t",
        "|",
        ">",
        " /lead",
        "/trail ",
    ]
    .to_vec();
    let rule = json!([{"when": [{"key": "request.headers[x-text]", "values": texts}]}]);
    let document = json!({"trustDomain": "example.org", "policies": [{"name": "p", "rules": rule}]});
    let (objects, _) = plugins(&["--proxies", "sidecars:default"], &document.to_string());
    assert_eq!(objects[0]["spec"]["pluginConfig"], document);
}

#[test]
fn a_deployment_is_compared_field_by_field() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deployed.json");
    let arguments = ["--trust-domain", "example.org", "--proxies", "sidecars:default", "--proxies", "sidecars:prod"];
    let (objects, _) = plugins(&arguments, &mesh());
    let check = |found: &Value| {
        fs::write(&file, found.to_string()).unwrap();
        let check = ["--check", file.to_str().unwrap()];
        let output = run(&[&["--to", "wasm-plugin", "-"], &IMAGE[..], &arguments, &check].concat(), &mesh());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    // The API server adds fields to the metadata, and kubectl writes a list.
    let mut deployed = objects.clone();
    deployed[0]["metadata"]["uid"] = json!("1");
    deployed[0]["status"] = json!({});
    let list = |items: &[Value]| json!({"apiVersion": "v1", "kind": "List", "items": items});
    assert_eq!(check(&list(&deployed)), (Some(0), "2 parts are as rendered\n".to_owned()));

    deployed[0]["spec"]["pluginConfig"]["policies"][1]["rules"] = json!([{}]);
    let mut old = deployed[1].clone();
    old["metadata"]["name"] = json!("spiffe-authz-old");
    let mut foreign = old.clone();
    foreign["metadata"] = json!({"name": "x", "namespace": "prod"});
    let expected = "WasmPlugin default/spiffe-authz differs at /spec/pluginConfig/policies/1/rules/0/from\n\
                    WasmPlugin prod/spiffe-authz is missing\n\
                    WasmPlugin prod/spiffe-authz-old is not rendered (delete it)\n";
    assert_eq!(check(&list(&[deployed[0].clone(), old, foreign])), (Some(3), expected.to_owned()));
}

/// AuthorizationPolicies whose common object would be too big: one of 512 kB in each of these namespaces, and those of [`mesh`].
fn large(namespaces: &[&str]) -> String {
    let path = "x".repeat(1 << 19);
    let large = namespaces.iter().map(|namespace| {
        policy(namespace, &path, json!({})).replace(&format!("\"name\":\"{path}\""), "\"name\":\"large\"")
    });
    large.collect::<String>() + &mesh()
}

#[test]
fn a_mesh_that_is_too_big_is_split_by_namespace() {
    let arguments = ["--trust-domain", "example.org"];
    let (objects, sizes) = plugins(&arguments, &large(&["default", "prod"]));
    let place = |object: &Value| {
        let text = |name: &str| object["metadata"][name].as_str().unwrap().to_owned();
        text("namespace") + "/" + &text("name")
    };
    // The object that waits for the others is applied last.
    let expected = ["default/spiffe-authz", "prod/spiffe-authz", "istio-system/spiffe-authz"];
    assert_eq!(objects.iter().map(place).collect::<Vec<_>>(), expected);
    let [default, prod, others] = objects.as_slice() else { panic!() };
    for (object, count) in [(default, 5), (prod, 4), (others, 2)] {
        let size = object.to_string().len();
        let line = format!("WasmPlugin {}: {count} policies, {size} bytes\n", place(object));
        assert!(sizes.contains(&line), "no `{line}` in {sizes}");
    }
    assert_eq!(
        others["spec"]["pluginConfig"]["scope"],
        json!({"rootNamespace": "istio-system", "delegatedNamespaces": ["default", "prod"]})
    );
    assert_eq!(others["spec"]["priority"], Value::Null);
    assert_eq!(names(&others["spec"]["pluginConfig"]), ["istio-system/ingress", "istio-system/mesh"]);
    // Each of the others is the object of its namespace, before the one of the mesh.
    for (namespace, found) in [("default", default), ("prod", prod)] {
        let proxies = ["--proxies", &format!("sidecars:{namespace}")];
        let (objects, _) = plugins(&[&arguments[..], &proxies].concat(), &large(&["default", "prod"]));
        let mut expected = objects[0].clone();
        expected["spec"]["priority"] = json!(10);
        assert_eq!(*found, expected);
    }
}

#[test]
fn the_filter_of_a_namespace_precedes_that_of_the_mesh() {
    let priorities = |arguments: &[&str], input: &str| -> Vec<Value> {
        let output = run(&[arguments, &["--trust-domain", "example.org", "-"]].concat(), input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        documents(&output.stdout).iter().map(|object| object["spec"]["priority"].clone()).collect()
    };
    let input = large(&["default", "prod"]);
    let extension = [&["--to", "traffic-extension"], &IMAGE[..]].concat();
    assert_eq!(priorities(&extension, &input), [json!(10), json!(10), Value::Null]);
    let filter = ["--to", "envoy-filter", "--wasm", "/spiffe-authz.wasm"];
    assert_eq!(priorities(&filter, &input), [json!(10), json!(10), Value::Null]);
    let token = input + &policy("prod", "token", json!({})).replace("\"principals\"", "\"requestPrincipals\"");
    assert_eq!(priorities(&filter, &token), [json!(-10), json!(-10), Value::Null]);
}

#[test]
fn an_object_that_kubernetes_would_reject_is_an_error() {
    let arguments = [&["--to", "wasm-plugin", "--trust-domain", "example.org", "-"], &IMAGE[..]].concat();
    // The policies of one namespace, those of the root namespace, and a filter for connections.
    let tcp = ["--tcp-port", "5432"];
    for (namespaces, more, name) in [
        (&["prod"][..], &[][..], None),
        (&["prod", "default"], &tcp[..], Some("istio-system/spiffe-authz")),
        (&["istio-system", "default"], &[], Some("default/spiffe-authz")),
    ] {
        let output = run(&[&arguments[..], more].concat(), &large(namespaces));
        let errors = String::from_utf8(output.stderr).unwrap();
        match name {
            None => assert!(output.status.success(), "{errors}"),
            Some(name) => {
                assert_eq!(output.status.code(), Some(1));
                let start = format!("WasmPlugin {name} has 10");
                assert!(errors.contains(&start) && errors.contains("1048576"), "{errors}");
            }
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let to = |kind: &'static str| ["--to", kind, "--proxies", "sidecars:default", "-"];
    for (arguments, input, expected) in [
        (vec!["-"], DOCUMENT, "expected what to write (use `--to`)"),
        (to("wasm-plugin").to_vec(), DOCUMENT, "use `--image`"),
        ([&to("wasm-plugin")[..], &IMAGE[..2]].concat(), DOCUMENT, "use `--sha256`"),
        (to("envoy-filter").to_vec(), DOCUMENT, "use `--wasm` or `--module`"),
        (to("ecds").to_vec(), DOCUMENT, "use `--wasm` or `--module`"),
        ([&["--to", "wasm-plugin", "-"], &IMAGE[..]].concat(), DOCUMENT, "expected the proxies of the document"),
        ([&to("wasm-plugin")[..], &IMAGE[..]].concat(), "{}", "missing field `trustDomain`"),
        ([&to("wasm-plugin")[..], &IMAGE[..]].concat(), "{trustDomain: example.org, polices: []}", "polices"),
        ([&to("traffic-extension")[..], &IMAGE[..], &["--tcp-port", "1"]].concat(), DOCUMENT, "`--tcp-port`"),
        (
            [&["--to", "envoy-filter", "--wasm", "/f.wasm", "--proxies", "waypoint:default/Service/x", "-"][..]]
                .concat(),
            DOCUMENT,
            "an EnvoyFilter cannot configure a waypoint",
        ),
        (
            [&to("wasm-plugin")[..], &IMAGE[..], &["--proxies", "sidecars:default"]].concat(),
            DOCUMENT,
            "two objects are called WasmPlugin default/spiffe-authz",
        ),
        (
            ["--to", "filters", "--wasm", "/f.wasm", "--proxies", "sidecars:a", "--proxies", "sidecars:b", "-"]
                .to_vec(),
            DOCUMENT,
            "expected the proxies of one file, found 2",
        ),
    ] {
        let message = error(&arguments, input);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    // An option that a document has no use for, and policies of which none is left.
    for option in ["--trust-domain-alias", "--federated-trust-domain"] {
        let message = error(&[&to("wasm-plugin")[..], &IMAGE[..], &[option, "example.io"]].concat(), DOCUMENT);
        assert!(message.contains("in the document itself"), "{option}: {message}");
    }
    let only_custom = policy("default", "c", json!({"action": "CUSTOM", "provider": {"name": "x"}}));
    let arguments = ["--to", "wasm-plugin", "--trust-domain", "example.org", "--allow-partial", "-"];
    let message = error(&[&arguments[..], &IMAGE[..]].concat(), &only_custom);
    assert!(message.contains("every accepted caller would be allowed"), "{message}");
    let custom = policy("default", "c", json!({"action": "CUSTOM", "provider": {"name": "x"}})) + &mesh();
    let arguments = [&["--to", "wasm-plugin", "--trust-domain", "example.org", "-"], &IMAGE[..]].concat();
    let message = error(&arguments, &custom);
    assert!(message.contains("1 of 6 policies cannot be deployed") && message.contains("default/c"), "{message}");
    let output = run(&[&arguments[..], &["--allow-partial"]].concat(), &custom);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(names(&documents(&output.stdout)[0]["spec"]["pluginConfig"]).len(), 5);
}

#[test]
fn values_come_from_a_file_or_from_options() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("values.yaml");
    let digest = &IMAGE[3][7..];
    let values = json!({
        "to": "wasm-plugin", "image": "oci://a/b:1", "sha256": digest, "name": "authz",
        "proxies": ["sidecars:default", "gateway:istio-system/istio=ingressgateway"], "rootNamespace": "root",
        "document": {
            "trustDomain": "example.org", "federatedTrustDomains": "validated",
            "identity": {"requireValidated": true}, "outputs": {"counters": "policy"},
        },
    });
    fs::write(&file, values.to_string()).unwrap();
    let from_file = ["--values", file.to_str().unwrap(), "-"];
    let render = |arguments: &[&str]| run(&[&from_file[..], arguments].concat(), &mesh());
    let output = render(&[]);
    assert!(output.status.success(), "{output:?}");
    let objects = documents(&output.stdout);
    assert_eq!(objects[1]["metadata"]["name"], "authz-gateway-ingressgateway");
    let document = &objects[0]["spec"]["pluginConfig"];
    assert_eq!(document["scope"], json!({"rootNamespace": "root"}));
    for (field, value) in values["document"].as_object().unwrap() {
        assert_eq!(document[field], *value, "{field}");
    }
    let message = error(&[&from_file[..], &["--trust-domain", "example.io"]].concat(), &mesh());
    assert!(
        message.contains("`trustDomain` of `document` is not that of the mesh, which is `example.io`"),
        "{message}"
    );
    let output = render(&["--to", "envoy-filter", "--wasm", "/f.wasm", "--proxies", "sidecars:prod"]);
    let objects = documents(&output.stdout);
    assert_eq!((objects.len(), &objects[0]["kind"]), (1, &json!("EnvoyFilter")));

    for (name, value, expected) in [
        ("imgae", json!("x"), "unknown field `imgae` (did you mean `image`?)"),
        ("sha256", json!("0123"), "expected 64 hexadecimal digits"),
        ("proxies", json!(["sidecar"]), "expected `sidecars`"),
        ("document", json!({"policies": []}), "unexpected field `policies` of `document`"),
        ("document", json!({"trustDomain": "example.org", "outputs": {"callers": 1}}), "callers"),
    ] {
        let mut wrong = values.clone();
        wrong[name] = value;
        fs::write(&file, wrong.to_string()).unwrap();
        let message = error(&from_file, &mesh());
        assert!(message.contains(expected), "{name}: {message}");
    }
}

/// Ends the command at the end of a test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the file has this text.
fn wait_for(file: &Path, text: &str) {
    let start = Instant::now();
    while !fs::read_to_string(file).is_ok_and(|content| content.contains(text)) {
        assert!(start.elapsed() < LIMIT, "{} does not have `{text}`", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_watched_file_follows_the_input_and_survives_its_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (input, output, log) = (path("policies.yaml"), path("filter.yaml"), path("log"));
    fs::write(&input, policy("default", "first", json!({}))).unwrap();
    let arguments = [
        "--to",
        "ecds",
        "--wasm",
        "/f.wasm",
        "--trust-domain",
        "example.org",
        "--proxies",
        "sidecars:default",
        "--watch",
        "-o",
        output.to_str().unwrap(),
        input.to_str().unwrap(),
    ];
    let child = command(&arguments).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let _running = Running(child);
    wait_for(&output, "/first");
    fs::write(&input, policy("default", "second", json!({}))).unwrap();
    wait_for(&output, "/second");
    let last = fs::read(&output).unwrap();
    fs::write(&input, policy("default", "third", json!({"acton": "DENY"}))).unwrap();
    wait_for(&log, "the file is kept");
    assert_eq!(fs::read(&output).unwrap(), last);
    fs::write(&input, policy("default", "fourth", json!({}))).unwrap();
    wait_for(&output, "/fourth");
}
