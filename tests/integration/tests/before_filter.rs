//! The model of Envoy in `spiffe-authz explain`: what happens to a request before the filter, compared with a real Envoy.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::envoy::{Envoy, Start};
use spiffe_authz_integration::fixture::{Fixture, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::tools;

const CALLER: &str = "spiffe://example.org/ns/default/sa/sleep";

/// A server with settings of the connection manager, and the same document in a file.
struct Server {
    envoy: Envoy,
    fixture: Fixture,
}

impl Server {
    fn start(settings: Value, policies: &Value) -> Result<Self> {
        let fixture = Fixture::new(Adapter::Module, Validation::Spiffe)?;
        let document = json!({"trustDomain": "example.org", "policies": policies}).to_string();
        fs::write(fixture.scratch.join("policy.json"), &document)?;
        let bootstrap = fixture.bootstrap()?.configuration(&document)?.connection_manager(settings)?;
        let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
        Ok(Self { envoy, fixture })
    }

    fn caller(&self) -> Result<Client> {
        self.fixture.leaf("default", "sleep")?.connect(self.envoy.address()?)
    }

    /// Returns the verdict and the request that `explain` shows, or `None` if Envoy responds with 400.
    fn explain(&self, arguments: &[&str]) -> Result<Option<(String, Value)>> {
        let mut command = Command::new(tools::path(tools::COMMAND)?);
        command.args(["explain", "--format", "json", "--peer", CALLER, "--source-ip", "127.0.0.1", "--policy"]);
        let output = command.arg(self.fixture.scratch.join("policy.json")).args(arguments).output()?;
        if output.status.code() == Some(1) {
            ensure!(String::from_utf8_lossy(&output.stderr).contains("Envoy responds with 400"), "{output:?}");
            return Ok(None);
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let verdict = answer["verdict"].as_str().context("explain shows no verdict")?;
        Ok(Some((verdict.to_owned(), answer["request"].clone())))
    }
}

const KNOWN_PATHS: [&str; 12] = [
    "/a/..;/b",
    "/a/.;x/b",
    "/a/%2e%2e;/b",
    "/%%300",
    "/%%30%30",
    "/%zz",
    "/a%00",
    "/a#b",
    "/a?x=/../#",
    "/a?%00",
    "/\"<>^`|",
    "//",
];

fn random_path(random: &mut Rng) -> String {
    const PARTS: [&str; 25] = [
        "/", "/", "/", ".", "..", "/../", "/./", "%2e", "%2E", "%2f", "%5C", "\\", "a", "b;c", "%", "%6", "1", "%41",
        "~", "{", ";", "/..;", "/.;x", "\\..;", "/%2e.;",
    ];
    let parts = (0..random.usize(1..8)).map(|_| PARTS[random.usize(..PARTS.len())]);
    format!("/{}", parts.collect::<String>())
}

#[test]
fn paths_are_normalized_as_in_envoy() -> Result<()> {
    let everything = json!([{"name": "all", "action": "ALLOW", "rules": [{}]}]);
    let settings = |normalize: bool, merge: bool, slashes: &str| json!({"normalize_path": normalize, "merge_slashes": merge, "path_with_escaped_slashes_action": slashes});
    let modes = [
        ("none", settings(false, false, "KEEP_UNCHANGED")),
        ("base", settings(true, false, "KEEP_UNCHANGED")),
        ("merge-slashes", settings(true, true, "KEEP_UNCHANGED")),
        ("decode-and-merge-slashes", settings(true, true, "UNESCAPE_AND_FORWARD")),
    ];
    let mut random = Rng::new();
    println!("seed {}", random.get_seed());
    let mut paths: Vec<String> = (0..100).map(|_| random_path(&mut random)).collect();
    paths.extend(KNOWN_PATHS.map(str::to_owned));
    for (mode, settings) in modes {
        let server = Server::start(settings, &everything)?;
        for path in &paths {
            // Envoy closes the connection after some of the responses with 400.
            let response = server.caller()?.get(path)?;
            let explained = server.explain(&["--path-normalization", mode, "--path", path])?;
            let passed = explained.map(|(_, request)| format!("GET {}", request["path"].as_str().unwrap_or_default()));
            let found = (response.status != 400).then(|| response.text());
            assert_eq!(found, passed, "{path} with {mode}");
        }
    }
    Ok(())
}

#[test]
fn lines_of_headers_are_joined_as_in_envoy() -> Result<()> {
    let joined = [
        "accept",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "access-control-request-private-network",
        "authentication",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-type",
        "expect",
        "grpc-accept-encoding",
        "grpc-timeout",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "origin",
        "pragma",
        "referer",
        "user-agent",
        "via",
        "x-client-trace-id",
        "x-forwarded-host",
        "x-forwarded-port",
    ];
    let separate = [
        "accept-charset",
        "accept-language",
        "cookie",
        "forwarded",
        "from",
        "link",
        "priority",
        "range",
        "traceparent",
        "tracestate",
        "trailer",
        "x-b3-traceid",
        "x-real-ip",
        "x-role",
    ];
    let names = || joined.into_iter().chain(separate);
    let rule = |name: &str| {
        json!({
            "to": [{"operation": {"paths": [format!("/{name}")]}}],
            "when": [{"key": format!("request.headers[{name}]"), "values": ["a", "b"]}],
        })
    };
    let rules: Vec<Value> = names().map(rule).collect();
    let server = Server::start(json!({}), &json!([{"name": "lines", "action": "ALLOW", "rules": rules}]))?;
    for name in names() {
        let path = format!("/{name}");
        let lines = [format!("{name}: a"), format!("{name}: b")];
        let status = server.caller()?.request("GET", &path, &[lines[0].as_bytes(), lines[1].as_bytes()])?.status;
        let arguments = ["--path", &path, "--header", &lines[0], "--header", &lines[1]];
        let explained = server.explain(&arguments)?.map(|(verdict, _)| verdict);
        let expected =
            if joined.contains(&name) { (403, Some("deny".to_owned())) } else { (200, Some("allow".to_owned())) };
        assert_eq!((status, explained), expected, "{name}");
    }
    Ok(())
}

#[test]
fn the_remote_address_is_that_of_envoy() -> Result<()> {
    let addresses = ["127.0.0.1", "192.0.2.1", "192.0.2.2", "2001:db8::1"];
    let rule = |address: &&str| {
        json!({
            "from": [{"source": {"remoteIpBlocks": [address]}}],
            "to": [{"operation": {"paths": [format!("/{address}")]}}],
        })
    };
    let rules: Vec<Value> = addresses.iter().map(rule).collect();
    let policies = json!([{"name": "clients", "action": "ALLOW", "rules": rules}]);
    let headers: [&[&str]; 7] = [
        &[],
        &["192.0.2.1"],
        &["192.0.2.1, 192.0.2.2"],
        &["192.0.2.1", "2001:db8::1"],
        &["192.0.2.1,192.0.2.2,unknown"],
        &["192.0.2.1,"],
        &["192.0.2.1:80"],
    ];
    for use_remote_address in [false, true] {
        for hops in ["0", "1", "2"] {
            let settings =
                json!({"use_remote_address": use_remote_address, "xff_num_trusted_hops": hops.parse::<u32>()?});
            let server = Server::start(settings, &policies)?;
            for lines in headers {
                let lines: Vec<String> = lines.iter().map(|line| format!("x-forwarded-for: {line}")).collect();
                let mut arguments = vec!["--xff-num-trusted-hops", hops];
                arguments.extend(use_remote_address.then_some("--use-remote-address"));
                arguments.extend(lines.iter().flat_map(|line| ["--header", line.as_str()]));
                let sent: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
                let mut client = server.caller()?;
                for address in addresses {
                    let path = format!("/{address}");
                    let status = client.request("GET", &path, &sent)?.status;
                    let explained = server.explain(&[&arguments[..], &["--path", &path]].concat())?;
                    let verdict = explained.map(|(verdict, _)| verdict);
                    let expected = if status == 200 { "allow" } else { "deny" };
                    assert_eq!(verdict.as_deref(), Some(expected), "{arguments:?} {address}");
                }
            }
        }
    }
    Ok(())
}
