//! `learn`, as a user runs it: the learned document allows what was seen, what its report says, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// The outcome of a command.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn run(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spiffe-authz"));
    let output = command.args(arguments).current_dir(directory).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran { status: output.status.code(), out, err }
}

/// Random numbers that a seed determines (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(bound).unwrap()).unwrap()
    }

    fn pick<'c>(&mut self, choices: &[&'c str]) -> &'c str {
        choices[self.below(choices.len())]
    }
}

/// A request: the caller, the method and the path.
type Request = (String, String, String);

fn request(caller: &str, method: &str, path: &str) -> Request {
    (format!("spiffe://{caller}"), method.to_owned(), path.to_owned())
}

/// The formats of a line about an allowed request.
const FORMATS: usize = 7;

/// Returns a line about an allowed request in one of the formats.
fn line(request: &Request, format: usize) -> String {
    let (peer, method, path) = request;
    let mut access = json!({
        "time": "2026-02-11T09:30:00.123Z", "method": method, "path": path, "host": "api:8443", "port": 8443,
        "source_ip": "10.0.0.7", "remote_ip": "10.0.0.7", "sni": null, "peer": peer,
    });
    let audit = json!({
        "event": "audit", "mode": "enforce", "reason": null, "peer": peer, "method": method, "path": path, "host": "a",
        "policy": "p", "rule": 0
    });
    match format {
        0 => {
            access["decision"] = "allow default/p 0".into();
            access.to_string()
        }
        1 => {
            access["decision"] = "allow".into();
            format!("2026-02-11T09:30:01.5Z stdout F {access}")
        }
        2 => {
            access["verdict"] = "allow".into();
            access.to_string()
        }
        3 => {
            access["verdict"] = "allow".into();
            json!({"log": format!("{access}\n"), "stream": "stdout", "time": "2026-02-11T09:30:01.5Z"}).to_string()
        }
        4 => format!("[2026-02-11 09:30:01.500][21][warning][wasm] [x.cc:1] wasm log spiffe-authz: {audit}"),
        5 => format!("2026-02-11T09:30:01.5Z\twarning\tenvoy wasm x.cc:1\twasm log spiffe-authz: {audit}\tthread=21"),
        _ => json!({"level": "warning", "msg": format!("spiffe-authz: {audit}"), "thread": "21"}).to_string(),
    }
}

/// Writes a log, and learns from it. Returns the report.
fn learn(directory: &Path, lines: &[String], options: &[&str]) -> Value {
    fs::write(directory.join("access.log"), lines.join("\n")).unwrap();
    let fixed = [
        "learn",
        "--trust-domain=example.org",
        "--federated-trust-domain=example.io",
        "--output=policy.yaml",
        "--table=table.yaml",
        "--format=json",
        "access.log",
    ];
    let Ran { status, err: report, .. } = run(directory, &[&fixed, options].concat());
    assert_eq!(status, Some(0), "{report}");
    let Ran { status, out, err } = run(directory, &["test", "--quiet", "table.yaml"]);
    assert_eq!(status, Some(0), "{out}{err}");
    let Ran { status, out, err } = run(directory, &["check", "--fail-level=error", "policy.yaml"]);
    assert_eq!(status, Some(0), "{out}{err}");
    serde_json::from_str(&report).unwrap()
}

/// Decides requests with the learned document, and returns those that it allows.
fn allowed(directory: &Path, requests: &BTreeSet<Request>) -> BTreeSet<Request> {
    let cases: Vec<Value> = requests
        .iter()
        .enumerate()
        .map(|(number, (peer, method, path))| {
            let request = json!({"peer": peer, "method": method, "path": path});
            json!({"name": number.to_string(), "request": request, "expect": {"verdict": "allow"}})
        })
        .collect();
    let table = json!({"policy": "policy.yaml", "cases": cases});
    fs::write(directory.join("all.json"), table.to_string()).unwrap();
    let Ran { out, err, .. } = run(directory, &["test", "--format=json", "all.json"]);
    let result: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    let passed = result["cases"].as_array().unwrap().iter().map(|case| case["passed"].as_bool().unwrap());
    let passed: Vec<bool> = passed.collect();
    assert_eq!(passed.len(), requests.len());
    requests.iter().zip(passed).filter(|(_, passed)| *passed).map(|(request, _)| request.clone()).collect()
}

const CALLERS: [&str; 5] = [
    "example.org/ns/a/sa/one",
    "example.org/ns/a/sa/two",
    "example.org/ns/b/sa/one",
    "example.io/ns/a/sa/one",
    "example.org/ns/a/sa/never-seen",
];
const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "get"];
/// Paths with two places for identifiers, and others next to them.
const PATHS: [&str; 22] = [
    "/",
    "/a",
    "/a/",
    "/a/1",
    "/a/2",
    "/a/3",
    "/a/4",
    "/a/x",
    "/a/admin",
    "/a/1/b",
    "/a/2/b",
    "/a/3/b",
    "/a/me/b",
    "/a/1/b/1",
    "/a/1/b/2",
    "/a/2/b/1",
    "/a/2/b/2",
    "/a/2026-01-31",
    "/1",
    "/2",
    "/b/1",
    "/a'\"b",
];

fn every_request() -> BTreeSet<Request> {
    let all = CALLERS.iter().flat_map(|caller| {
        METHODS.iter().flat_map(move |method| PATHS.iter().map(move |path| request(caller, method, path)))
    });
    all.collect()
}

/// Returns some requests, without the caller that is never seen.
fn some_requests(random: &mut Random) -> BTreeSet<Request> {
    let count = 1 + random.below(60);
    (0..count).map(|_| request(random.pick(&CALLERS[..4]), random.pick(&METHODS[..3]), random.pick(&PATHS))).collect()
}

/// Returns lines about requests, some of them repeated, in any order and format.
fn lines(random: &mut Random, requests: &BTreeSet<Request>) -> Vec<String> {
    let mut requests: Vec<&Request> = requests.iter().collect();
    for _ in 0..requests.len() {
        let (one, other) = (random.below(requests.len()), random.below(requests.len()));
        requests.swap(one, other);
        requests.push(requests[one]);
    }
    requests.iter().map(|request| line(request, random.below(FORMATS))).collect()
}

#[test]
fn the_order_of_lines_does_not_matter() {
    let mut random = Random(3);
    let seen = some_requests(&mut random);
    let documents: BTreeSet<String> = (0..4)
        .map(|_| {
            let directory = tempfile::tempdir().unwrap();
            learn(directory.path(), &lines(&mut random, &seen), &["--threshold=2"]);
            fs::read_to_string(directory.path().join("policy.yaml")).unwrap()
        })
        .collect();
    assert_eq!(documents.len(), 1);
}

#[test]
fn exact_policies_allow_exactly_what_was_seen() {
    let all = every_request();
    for seed in 0..12 {
        let mut random = Random(seed);
        let seen = some_requests(&mut random);
        let directory = tempfile::tempdir().unwrap();
        let report = learn(directory.path(), &lines(&mut random, &seen), &["--exact"]);
        assert_eq!(report["generalizations"], json!([]));
        assert_eq!(allowed(directory.path(), &all), seen, "seed {seed}");
    }
}

/// Returns `true` if a template of the report allows the request.
fn is_generalized(report: &Value, (peer, method, path): &Request) -> bool {
    let policies = report["policies"].as_array().unwrap();
    report["generalizations"].as_array().unwrap().iter().any(|found| {
        let policy = policies.iter().find(|policy| policy["name"] == found["policy"]).unwrap();
        let has = |list: &Value, text: &str| list.as_array().unwrap().iter().any(|item| item == text);
        let template: Vec<&str> = found["path"].as_str().unwrap().split('/').collect();
        let segments: Vec<&str> = path.split('/').collect();
        has(&policy["callers"], peer.strip_prefix("spiffe://").unwrap())
            && has(&found["methods"], method)
            && !has(&found["notPaths"], path)
            && template.len() == segments.len()
            && template.iter().zip(segments).all(|(part, segment)| {
                *part == segment || (*part == "{*}" && !segment.is_empty() && !segment.contains('"'))
            })
    })
}

#[test]
fn generalized_policies_allow_what_was_seen_and_what_the_report_shows() {
    let all = every_request();
    let (mut generalized, mut beyond) = (0, 0);
    for seed in 100..130 {
        let mut random = Random(seed);
        let seen = some_requests(&mut random);
        let directory = tempfile::tempdir().unwrap();
        let report = learn(directory.path(), &lines(&mut random, &seen), &["--threshold=2"]);
        let allowed = allowed(directory.path(), &all);
        let expected: BTreeSet<Request> =
            all.iter().filter(|one| seen.contains(one) || is_generalized(&report, one)).cloned().collect();
        assert_eq!(allowed, expected, "seed {seed}: {report:#}");
        for found in report["generalizations"].as_array().unwrap() {
            generalized += 1;
            let granted = found["granted"].as_array().unwrap();
            assert!(!granted.is_empty(), "{found}");
            for granted in granted {
                let witness = &granted["witness"];
                let text = |name: &str| witness[name].as_str().unwrap().to_owned();
                let witness = (text("peer"), text("method"), text("path"));
                assert!(!seen.contains(&witness) && is_generalized(&report, &witness), "{found}");
            }
        }
        beyond += allowed.difference(&seen).count();
        // No path of a caller becomes one of another caller, unless it has the same form.
        for (peer, method, path) in allowed.difference(&seen) {
            let is_literal =
                path.split('/').skip(2).all(|part| part.is_empty() || !part.starts_with(|c: char| c.is_ascii_digit()));
            let is_of_others = seen.iter().any(|(_, _, other)| other == path);
            assert!(!(is_literal && is_of_others), "seed {seed}: {peer} {method} {path}");
            assert!(!path.contains("admin") || !seen.iter().any(|(_, _, other)| other == path), "{path}");
        }
    }
    assert!(generalized > 20 && beyond > 50, "{generalized} {beyond}");
}

/// A workload with the requests of three callers, and the rest of the requests that they make later.
fn workload() -> Vec<Request> {
    let mut requests = Vec::new();
    for number in 0..40 {
        requests.push(request(CALLERS[0], "GET", &format!("/users/{}?page={number}", 1000 + number)));
        requests.push(request(CALLERS[1], "POST", &format!("/orders/{}/items/{}", number % 8, number % 5)));
        requests.push(request(CALLERS[1], "GET", "/status"));
        requests.push(request(
            CALLERS[3],
            "GET",
            &format!("/files/{:032x}/content", 0x1234_5678_9abc_u64 * (number + 1)),
        ));
        requests.push(request(CALLERS[3], "GET", "/users/me"));
    }
    requests
}

#[test]
fn a_part_of_the_log_predicts_the_rest_and_no_attack() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let mut lines: Vec<String> = workload().iter().map(|request| line(request, random.below(FORMATS))).collect();
    for position in 0..lines.len() {
        let other = random.below(lines.len());
        lines.swap(position, other);
    }
    let (first, rest) = lines.split_at(lines.len() * 7 / 10);
    learn(directory.path(), first, &[]);
    fs::write(directory.path().join("rest.log"), rest.join("\n")).unwrap();
    let Ran { status, out, err } = run(directory.path(), &["replay", "--policy=policy.yaml", "rest.log"]);
    assert_eq!((status, &*out), (Some(0), ""), "{err}");

    let attacks: BTreeSet<Request> = [
        // Another caller.
        request(CALLERS[4], "GET", "/users/1000"),
        request("example.org/ns/a/sa/one-more", "GET", "/status"),
        request("example.net/ns/a/sa/one", "GET", "/users/1000"),
        request("example.io/ns/a/sa/two", "GET", "/status"),
        // Another method.
        request(CALLERS[0], "DELETE", "/users/1000"),
        request(CALLERS[1], "GET", "/orders/1/items/1"),
        request(CALLERS[1], "POST", "/status"),
        // The path of another caller, and others next to it.
        request(CALLERS[0], "GET", "/users/me"),
        request(CALLERS[0], "GET", "/status"),
        request(CALLERS[3], "GET", "/users/1000"),
        request(CALLERS[0], "GET", "/users"),
        request(CALLERS[0], "GET", "/users/"),
        request(CALLERS[0], "GET", "/users/1000/keys"),
        request(CALLERS[1], "POST", "/orders/1/refund/1"),
        request(CALLERS[3], "GET", "/files/1/contents"),
        request(CALLERS[0], "GET", "/admin"),
        request(CALLERS[0], "GET", "/"),
        // Traversal, encoded separators, and parameters.
        request(CALLERS[0], "GET", "/users/../admin"),
        request(CALLERS[0], "GET", "/users/1000/../../admin"),
        request(CALLERS[0], "GET", "/users//1000"),
        request(CALLERS[0], "GET", "//users/1000"),
        request(CALLERS[0], "GET", "/users%2f1000"),
        request(CALLERS[0], "GET", "/%75sers/1000"),
        request(CALLERS[0], "GET", "/users\\1000"),
        request(CALLERS[1], "GET", "/status;x=y"),
        request(CALLERS[1], "GET", "/status%20"),
        request(CALLERS[1], "GET", "/STATUS"),
    ]
    .into();
    assert_eq!(allowed(directory.path(), &attacks), BTreeSet::new());
}

#[test]
fn requests_that_are_not_learned_are_counted_by_reason() {
    let directory = tempfile::tempdir().unwrap();
    let one = |peer: Value, path: &str, decision: &str| {
        json!({"peer": peer, "method": "GET", "path": path, "decision": decision}).to_string()
    };
    let allow = |path: &str| one(json!("spiffe://example.org/ns/a/sa/b"), path, "allow");
    let peer = |peer: &str| one(json!(peer), "/x", "allow");
    let shadow = json!({
        "event": "deny", "mode": "shadow", "reason": "no-policy-allows", "peer": "spiffe://example.org/ns/a/sa/b",
        "method": "GET", "path": "/x", "host": "h",
    });
    let long = format!("/{}", "a".repeat(1100));
    let cut = json!({"event": "audit", "mode": "enforce", "peer": "spiffe://example.org/ns/a/sa/b", "method": "GET", "path": long});
    let lines = [
        allow("/used"),
        one(json!("spiffe://example.org/ns/a/sa/b"), "/x", "deny no-policy-allows"),
        one(Value::Null, "/x", "deny no-peer-certificate"),
        allow("/sometimes?a"),
        one(json!("spiffe://example.org/ns/a/sa/b"), "/sometimes", "deny denied-by-policy p 0"),
        allow("/sometimes?b"),
        shadow.to_string(),
        one(Value::Null, "/x", "allow"),
        peer("spiffe://example.net/ns/a/sa/b"),
        peer("spiffe://example.net/ns/a/sa/c"),
        peer("spiffe://partner.example/ns/a/sa/b"),
        peer("spiffe://example.org/other"),
        peer("not an ID"),
        json!({"peer": "spiffe://example.org/ns/a/sa/b", "received": 1, "sent": 1, "port": 1, "verdict": "allow"})
            .to_string(),
        cut.to_string(),
        allow("/\u{fffd}"),
        allow("/{*}"),
        allow("/{**}"),
        allow("/x*"),
        allow("*"),
        allow("/a;b"),
        allow("/a\u{1b}[2J"),
        allow("/a/%2e%2e/b"),
        allow(&format!("/{}", "a".repeat(5000))),
        "something else".to_owned(),
    ];
    let report = learn(directory.path(), &lines, &[]);
    let counts: Vec<(&str, u64)> = report["notUsed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["reason"].as_str().unwrap(), one["requests"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("denied", 3),
        ("denied-in-shadow", 1),
        ("also-denied", 2),
        ("no-identity", 1),
        ("trust-domain", 3),
        ("identity-not-accepted", 2),
        ("other-layer", 1),
        ("incomplete", 2),
        ("not-exact", 6),
        ("not-normalized", 1),
        ("too-long", 1),
    ];
    assert_eq!(counts, expected);
    let domains = json!([
        {"trustDomain": "example.net", "requests": 2}, {"trustDomain": "partner.example", "requests": 1},
    ]);
    let of_domains = report["notUsed"].as_array().unwrap().iter().find(|one| one["reason"] == "trust-domain").unwrap();
    assert_eq!(of_domains["trustDomains"], domains);
    assert_eq!((&report["requests"], &report["lines"]["notUnderstood"]), (&json!(1), &json!(1)));
    let all = every_request();
    assert_eq!(allowed(directory.path(), &all), BTreeSet::new());
}

#[test]
fn a_log_without_a_request_that_is_used_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let denied =
        json!({"peer": null, "method": "GET", "path": "/", "decision": "deny no-peer-certificate"}).to_string();
    let used = line(&request(CALLERS[0], "GET", "/a"), 0);
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("empty", "");
    write("other", "something else\nand more\n");
    write("denied", &denied);
    write("used", &used);
    for (logs, expected) in [
        (&["empty"][..], "error: empty: no request: 0 lines "),
        (&["other"], "error: other: no request: 2 lines, none understood "),
        (&["used", "other"], "error: other: no request: "),
        (&["missing"], "error: missing: "),
        (&["denied"], "error: no request is used: 1 denied\n"),
    ] {
        let fixed = ["learn", "--trust-domain=example.org", "--output=new.yaml"];
        let Ran { status, err, .. } = run(directory.path(), &[&fixed, logs].concat());
        assert_eq!(status, Some(1), "{logs:?}: {err}");
        assert!(err.starts_with(expected), "{logs:?}: {err}");
        assert!(!directory.path().join("new.yaml").exists(), "{logs:?}");
    }
}

#[test]
fn a_table_needs_the_file_of_the_document() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("used"), line(&request(CALLERS[0], "GET", "/a"), 0)).unwrap();
    let arguments = ["learn", "--trust-domain=example.org", "--output=-", "--table=t.yaml", "used"];
    let Ran { status, err, .. } = run(directory.path(), &arguments);
    assert_eq!((status, &*err), (Some(1), "error: `--table` needs a file in `--output`, which the table names\n"));
}

#[test]
fn logs_are_read_from_several_files_and_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let text = |path: &str| line(&request(CALLERS[0], "GET", path), 0);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text("/gzip").as_bytes()).unwrap();
    fs::write(directory.path().join("a.log.gz"), gzip.finish().unwrap()).unwrap();
    fs::write(directory.path().join("b.log"), text("/plain")).unwrap();
    let script = format!("printf '%s' '{}' | \"$0\" learn --trust-domain example.org a.log.gz b.log -", text("/input"));
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_spiffe-authz")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let document = String::from_utf8(output.stdout).unwrap();
    for path in ["/gzip", "/plain", "/input"] {
        assert!(document.contains(&format!("- {path}\n")), "{document}");
    }
}

#[test]
fn settings_come_from_a_document_and_its_policies_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = "example.org/ns/a/sa/gateway";
    let old = json!({
        "trustDomain": "example.org", "federatedTrustDomains": ["example.io"],
        "identity": {"from": "xfcc", "trustedProxies": [proxy], "revoked": {"spiffeIds": ["spiffe://example.org/ns/a/sa/two"]}},
        "outputs": {"decision": "both"}, "ignoreLints": ["any-caller"],
        "policies": [{"name": "old", "rules": [{}]}]
    });
    fs::write(directory.path().join("old.json"), old.to_string()).unwrap();
    let lines: Vec<String> = CALLERS[..4].iter().map(|caller| line(&request(caller, "GET", "/a"), 0)).collect();
    fs::write(directory.path().join("access.log"), lines.join("\n")).unwrap();
    let arguments =
        ["learn", "--policy=old.json", "--to=json", "--output=new.json", "--table=table.json", "access.log"];
    let Ran { status, err, .. } = run(directory.path(), &arguments);
    assert_eq!(status, Some(0), "{err}");
    assert!(err.contains("not used: 1 request of callers whose identity is not accepted\n"), "{err}");
    let new: Value = serde_json::from_str(&fs::read_to_string(directory.path().join("new.json")).unwrap()).unwrap();
    for name in ["trustDomain", "federatedTrustDomains", "identity", "outputs"] {
        assert_eq!(new[name], old[name], "{name}");
    }
    assert_eq!(new.get("ignoreLints"), None);
    assert_eq!(new["policies"].as_array().unwrap().len(), 1);
    assert_eq!(new["policies"][0]["rules"][0]["from"][0]["source"]["principals"].as_array().unwrap().len(), 3);
    // The callers of the table are in the header of the proxy.
    let Ran { status, out, err } = run(directory.path(), &["test", "table.json"]);
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.contains("may not GET /a: ok"), "{out}");
}

#[test]
fn hosts_and_ports_restrict_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<String> = [("a", 1, "/x"), ("A", 2, "/x"), ("b", 1, "/y")]
        .iter()
        .map(|(host, port, path)| {
            let peer = "spiffe://example.org/ns/a/sa/b";
            json!({"peer": peer, "method": "GET", "path": path, "host": host, "port": port, "decision": "allow"})
                .to_string()
        })
        .collect();
    fs::write(directory.path().join("access.log"), lines.join("\n")).unwrap();
    let operations = |options: &[&str]| {
        let fixed =
            ["learn", "--trust-domain=example.org", "--to=json", "--output=new.json", "--table=t.json", "access.log"];
        let Ran { status, err, .. } = run(directory.path(), &[&fixed, options].concat());
        assert_eq!(status, Some(0), "{err}");
        let Ran { status, out, err } = run(directory.path(), &["test", "t.json"]);
        assert_eq!(status, Some(0), "{out}{err}");
        let new: Value = serde_json::from_str(&fs::read_to_string(directory.path().join("new.json")).unwrap()).unwrap();
        let operations = new["policies"][0]["rules"][0]["to"].as_array().unwrap().clone();
        operations.into_iter().map(|mut entry| entry["operation"].take()).collect::<Vec<_>>()
    };
    assert_eq!(operations(&[]), [json!({"methods": ["GET"], "paths": ["/x", "/y"]})]);
    assert_eq!(
        operations(&["--hosts", "--ports"]),
        [
            json!({"methods": ["GET"], "paths": ["/x"], "hosts": ["a"], "ports": ["1", "2"]}),
            json!({"methods": ["GET"], "paths": ["/y"], "hosts": ["b"], "ports": ["1"]}),
        ]
    );
}

#[test]
fn connections_are_learned_by_caller_and_port() {
    let directory = tempfile::tempdir().unwrap();
    let connection = |account: &str, port: u16| {
        let peer = format!("spiffe://example.org/ns/a/sa/{account}");
        json!({"peer": peer, "received": 1, "sent": 1, "port": port, "decision": "allow"}).to_string()
    };
    let lines = [connection("a", 5432), connection("a", 5433), connection("b", 5432)];
    learn(directory.path(), &lines, &["--layer=tcp"]);
    let cases: Vec<Value> = ["a", "b", "c"]
        .iter()
        .flat_map(|account| [5432, 5433, 5434].map(|port| (account, port)))
        .map(|(account, port)| {
            let seen = [("a", 5432), ("a", 5433), ("b", 5432)].contains(&(account, port));
            let request = json!({"peer": format!("spiffe://example.org/ns/a/sa/{account}"), "port": port});
            let verdict = if seen { "allow" } else { "deny" };
            json!({"name": format!("{account} {port}"), "request": request, "expect": {"verdict": verdict}})
        })
        .collect();
    let table = json!({"policy": "policy.yaml", "layer": "tcp", "cases": cases});
    fs::write(directory.path().join("all.json"), table.to_string()).unwrap();
    let Ran { status, out, err } = run(directory.path(), &["test", "all.json"]);
    assert_eq!(status, Some(0), "{out}{err}");
}

#[test]
fn a_template_matches_no_path_that_was_denied() {
    let directory = tempfile::tempdir().unwrap();
    let mut lines: Vec<String> =
        (0..9).map(|number| line(&request(CALLERS[0], "GET", &format!("/a/{number}")), 0)).collect();
    let allow = "allow default/p 0";
    let denied = |caller: &str, path: &str, reason: &str| {
        line(&request(caller, "GET", path), 0).replace(allow, &format!("deny {reason}"))
    };
    lines.push(denied(CALLERS[0], "/a/10", "no-policy-allows"));
    lines.push(denied(CALLERS[0], "/a/x?y", "denied-by-policy p 0"));
    // These say nothing about the caller's permissions.
    lines.push(denied(CALLERS[1], "/a/11", "no-policy-allows"));
    lines.push(denied(CALLERS[0], "/a/12", "svid-expired"));
    lines.push(denied(CALLERS[0], "/a/../13", "no-policy-allows"));
    let report = learn(directory.path(), &lines, &[]);
    let found = &report["generalizations"][0];
    assert_eq!((&found["path"], &found["notPaths"]), (&json!("/a/{*}"), &json!(["/a/10", "/a/x"])));
    let requests = ["/a/10", "/a/x", "/a/11", "/a/12"].map(|path| request(CALLERS[0], "GET", path)).into();
    let expected = ["/a/11", "/a/12"].map(|path| request(CALLERS[0], "GET", path)).into();
    assert_eq!(allowed(directory.path(), &requests), expected);
    // Too many paths for one template.
    lines.extend((20..40).map(|number| denied(CALLERS[0], &format!("/a/{number}"), "no-policy-allows")));
    let report = learn(directory.path(), &lines, &[]);
    assert_eq!(report["generalizations"], json!([]));
    let expected = json!([{
        "policy": "one.a.example.org", "method": "GET", "path": "/a/{*}", "seen": 9,
        "because": "it would match more than 20 other paths",
    }]);
    assert_eq!(report["notGeneralized"], expected);
}

#[test]
fn a_sensitive_path_prevents_a_template() {
    let directory = tempfile::tempdir().unwrap();
    let mut lines: Vec<String> =
        (0..9).map(|number| line(&request(CALLERS[0], "GET", &format!("/a/{number}/x")), 0)).collect();
    lines.push(line(&request(CALLERS[0], "POST", "/a/admin/x"), 0));
    lines.push(line(&request(CALLERS[0], "GET", "/a/export/x"), 0));
    let report = learn(directory.path(), &lines, &[]);
    assert_eq!(report["generalizations"], json!([]));
    let because = &report["notGeneralized"][0]["because"];
    assert_eq!(because, "it would match /a/admin/x of another caller or method");
    // The caller may use this path with this method.
    lines.push(line(&request(CALLERS[0], "GET", "/a/admin/x"), 0));
    let report = learn(directory.path(), &lines, &[]);
    assert_eq!(report["generalizations"][0]["path"], "/a/{*}/x");
}

/// The callers of a policy were seen with different paths, so the exceptions are those that they share.
#[test]
fn callers_of_one_policy_have_one_entry() {
    let directory = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for (caller, numbers) in [(CALLERS[0], 0..8), (CALLERS[1], 5..13), (CALLERS[2], 20..25)] {
        lines.extend(numbers.map(|number| line(&request(caller, "GET", &format!("/a/{number}")), 0)));
    }
    let entry = |lines: &[String]| {
        let report = learn(directory.path(), lines, &[]);
        let [found] = &report["generalizations"].as_array().unwrap()[..] else { panic!("{report:#}") };
        let [granted] = &found["granted"].as_array().unwrap()[..] else { panic!("{found:#}") };
        assert_eq!(
            granted["callers"].as_array().unwrap().len(),
            report["policies"][0]["callers"].as_array().unwrap().len()
        );
        granted["conditions"][1]["values"][0]["except"].clone()
    };
    assert_eq!(entry(&lines), json!([]));
    assert_eq!(entry(&lines[..16]), json!(["/a/5", "/a/6", "/a/7"]));
}

/// Numbers and dates are two templates with one spelling.
#[test]
fn identifiers_of_several_forms_are_generalized_together() {
    let directory = tempfile::tempdir().unwrap();
    let dates = (10..16).map(|day| format!("/a/2026-01-{day}"));
    let paths = (0..6).map(|number| format!("/a/{number}")).chain(dates);
    let lines: Vec<String> = paths.map(|path| line(&request(CALLERS[0], "GET", &path), 0)).collect();
    let report = learn(directory.path(), &lines, &[]);
    let [found] = &report["generalizations"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&found["path"], &found["seen"]), (&json!("/a/{*}"), &json!(12)));
}

/// The analysis compares some of these paths with the template, and the example is none of them.
#[test]
fn many_identifiers_are_one_template() {
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<String> =
        (0..3000).map(|number| line(&request(CALLERS[0], "GET", &format!("/a/{number}")), 0)).collect();
    let report = learn(directory.path(), &lines, &[]);
    let [found] = &report["generalizations"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&found["path"], &found["seen"]), (&json!("/a/{*}"), &json!(3000)));
    assert_eq!(found["granted"].as_array().unwrap().len(), 1, "{found}");
}

/// The table on the page has every reason and every sensitive word.
#[test]
fn the_page_has_the_rules() {
    const PAGE: &str = include_str!("../../docs/policies.md");
    const SEEN: &str = include_str!("../src/command/learn/seen.rs");
    const TEMPLATE: &str = include_str!("../src/command/learn/template.rs");
    let section = |name: &str| {
        let (_, rest) = PAGE.split_once(&format!("\n### {name}\n")).unwrap();
        rest.split("\n## ").next().unwrap().split("\n### ").next().unwrap().to_owned()
    };
    let names = |text: &str| -> BTreeSet<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let slugs: BTreeSet<String> = SEEN
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.strip_suffix("\","))
        .filter(|text| !text.contains(' '))
        .map(str::to_owned)
        .collect();
    let rows: BTreeSet<String> = section("What is learned")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .flat_map(|row| names(&format!("`{}", row.split(" | ").next().unwrap())))
        .collect();
    // `denied` is a word and a slug.
    assert_eq!(rows, slugs);
    let (_, words) = TEMPLATE.split_once("const SENSITIVE").unwrap();
    let words: BTreeSet<String> =
        words.split("];").next().unwrap().split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let row = section("How paths are generalized");
    let row = row.lines().find(|line| line.contains("sensitive word")).unwrap();
    let documented = names(row.rsplit_once(", also as").unwrap().0);
    assert_eq!(documented, words);
}
