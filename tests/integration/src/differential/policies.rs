//! Random AuthorizationPolicies that Istio's validation accepts.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{Layer, PolicySet};

/// The placeholder for the port of the set's listener.
pub(super) const PORT: &str = "@port";

type Choices = &'static [&'static str];

const PRINCIPALS: Choices = &[
    "*",
    "example.org/ns/default/sa/sleep",
    "example.org/ns/prod/*",
    "example.org/*",
    "*/sa/curl",
    "*/ns/default/sa/sleep",
    "example.io/ns/default/sa/sleep",
    "example.io/*",
    "cluster.local/ns/default/sa/sleep",
    "cluster.local/ns/prod/*",
    "example.org/workload",
];
const NAMESPACES: Choices = &["default", "prod", "*", "pro*", "*d", "d*t"];
const SERVICE_ACCOUNTS: Choices = &["sleep", "curl", "prod/curl", "default/sleep"];
const TRUST_DOMAINS: Choices = &["example.org", "example.io", "*.io", "example*", "*"];
const REQUEST_PRINCIPALS: Choices = &[
    "*",
    "https://issuer-a/alice",
    "https://issuer-a/*",
    "https://issuer-a/al*",
    "*/alice",
    "*-b/bob",
    "*ob",
    "https://issuer*",
];
const IP_BLOCKS: Choices = &["127.0.0.1", "127.0.0.0/8", "127.0.0.2/32", "10.0.0.0/8", "::/0"];
const REMOTE_IP_BLOCKS: Choices = &["127.0.0.0/8", "203.0.113.0/24", "203.0.113.7", "2001:db8::/32"];
const HOSTS: Choices = &["a.example", "A.EXAMPLE", "*.example", "a.example:*", "a*", "*:8443", "*"];
const PORTS: Choices = &[PORT, "80", "65535"];
const METHODS: Choices = &["GET", "PUT", "G*", "*T", "*"];
const PATHS: Choices = &[
    "/a", "/a/*", "/a*", "*b", "*/b", "*", "/a/{*}/b", "/a/{**}", "/{**}/b", "/{*}", "/a%2fb", "//a", "/a/../b",
    "/a*/b", "*a*", "/",
];

const SOURCE: &[(&str, Choices)] = &[
    ("principals", PRINCIPALS),
    ("namespaces", NAMESPACES),
    ("trustDomains", TRUST_DOMAINS),
    ("requestPrincipals", REQUEST_PRINCIPALS),
    ("ipBlocks", IP_BLOCKS),
    ("remoteIpBlocks", REMOTE_IP_BLOCKS),
];
/// Istio does not combine service accounts with principals or namespaces.
const SOURCE_BY_ACCOUNT: &[(&str, Choices)] = &[
    ("serviceAccounts", SERVICE_ACCOUNTS),
    ("trustDomains", TRUST_DOMAINS),
    ("requestPrincipals", REQUEST_PRINCIPALS),
    ("ipBlocks", IP_BLOCKS),
];
const OPERATION: &[(&str, Choices)] =
    &[("hosts", HOSTS), ("ports", PORTS), ("methods", METHODS), ("paths", PATHS), ("paths", PATHS)];
const CONDITIONS: &[(&str, Choices)] = &[
    ("request.headers[x-role]", &["a", "a*", "*b", "*", "a,b", "A"]),
    ("request.headers[X-Other]", &["", "*", "x"]),
    ("request.headers[:method]", &["GET"]),
    ("source.ip", IP_BLOCKS),
    ("remote.ip", REMOTE_IP_BLOCKS),
    ("source.principal", PRINCIPALS),
    ("source.namespace", NAMESPACES),
    ("source.serviceAccount", SERVICE_ACCOUNTS),
    ("source.trustDomain", TRUST_DOMAINS),
    ("request.auth.principal", REQUEST_PRINCIPALS),
    ("request.auth.audiences", &["api", "w*", "*"]),
    ("request.auth.presenter", &["app", "*"]),
    ("request.auth.claims[groups]", &["dev", "*ps", "*"]),
    ("request.auth.claims[realm][roles]", &["admin", "*"]),
    ("request.auth.claims[level]", &["*", "7"]),
    ("destination.ip", &["127.0.0.0/8", "10.0.0.0/8"]),
    ("destination.port", PORTS),
    ("connection.sni", &["s.example", "*.example", "*"]),
    ("experimental.envoy.filters.http.set_metadata[zone]", &["abc", "a*", "*", "[abc]"]),
    ("experimental.envoy.filters.http.set_metadata[list]", &["[x]", "[x*]", "x", "[*]"]),
];

/// Returns one to five policies in the namespace `default`.
pub(super) fn random_set(rng: &mut Rng, layer: Layer) -> PolicySet {
    (0..rng.usize(1..=5))
        .map(|number| {
            let deny = rng.usize(..10) < 3;
            let mut spec = json!({"action": if deny { "DENY" } else { "ALLOW" }});
            if deny || rng.usize(..20) > 0 {
                spec["rules"] = (0..rng.usize(1..=3)).map(|_| random_rule(rng, layer)).collect();
            }
            json!({"name": format!("p{number}"), "namespace": "default", "spec": spec})
        })
        .collect()
}

fn random_rule(rng: &mut Rng, layer: Layer) -> Value {
    // On TCP, one HTTP field decides a whole rule. If such fields were frequent, the others would rarely matter.
    let layer = if rng.usize(..4) == 0 { Layer::Http } else { layer };
    let mut rule = json!({});
    let from = random_list(rng, |rng| {
        let fields = if rng.usize(..4) == 0 { SOURCE_BY_ACCOUNT } else { SOURCE };
        json!({"source": random_fields(rng, fields, layer)})
    });
    let to = random_list(rng, |rng| json!({"operation": random_fields(rng, OPERATION, layer)}));
    let when = random_list(rng, |rng| random_condition(rng, layer));
    for (name, list) in [("from", from), ("to", to), ("when", when)] {
        if !list.is_empty() {
            rule[name] = json!(list);
        }
    }
    rule
}

/// Returns no item, one, or rarely two.
fn random_list(rng: &mut Rng, make: impl Fn(&mut Rng) -> Value) -> Vec<Value> {
    let count = [0, 0, 1, 1, 1, 2][rng.usize(..6)];
    (0..count).map(|_| make(rng)).collect()
}

fn random_fields(rng: &mut Rng, choices: &[(&str, Choices)], layer: Layer) -> Value {
    let mut fields = Map::new();
    for _ in 0..rng.usize(1..=2) {
        let (name, values) = choose(rng, choices, layer);
        let name = if rng.usize(..10) < 3 { negated(name) } else { name.to_owned() };
        fields.insert(name, random_values(rng, values));
    }
    Value::Object(fields)
}

fn choose<'c>(rng: &mut Rng, choices: &[(&'c str, Choices)], layer: Layer) -> (&'c str, Choices) {
    loop {
        let (name, values) = choices[rng.usize(..choices.len())];
        let of_http = name.starts_with("request.") || HTTP_ONLY.contains(&name);
        if layer == Layer::Http || !of_http {
            return (name, values);
        }
    }
}

/// The HTTP-only fields. Conditions with the prefix `request.` are also HTTP-only.
const HTTP_ONLY: [&str; 4] = ["hosts", "methods", "paths", "requestPrincipals"];

fn negated(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("not{}{rest}", first.to_ascii_uppercase())
}

fn random_condition(rng: &mut Rng, layer: Layer) -> Value {
    let (key, values) = choose(rng, CONDITIONS, layer);
    let values: Vec<&str> = values.iter().copied().filter(|value| !value.is_empty()).collect();
    let mut condition = json!({"key": key});
    let kinds: &[&str] = [&["values"][..], &["values"], &["notValues"], &["values", "notValues"]][rng.usize(..4)];
    for kind in kinds {
        condition[kind] = random_values(rng, &values);
    }
    condition
}

fn random_values(rng: &mut Rng, choices: &[&str]) -> Value {
    (0..rng.usize(1..=2)).map(|_| choices[rng.usize(..choices.len())]).collect()
}
