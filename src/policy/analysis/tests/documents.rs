//! Random documents and requests over small alphabets.

use serde_json::{Map, Value, json};

use crate::case::{CaseRequest, Lines};
use crate::timestamp::Timestamp;

/// The moment of all decisions.
pub(super) const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

type Choices = &'static [&'static str];

const PRINCIPALS: Choices =
    &["*", "a/ns/n/sa/s", "a/*", "a/ns/n/*", "*/sa/s", "*/ns/n/sa/s", "b/ns/m/sa/s", "b*", "a/w", "*s"];
const NAMESPACES: Choices = &["n", "m", "*", "n*", "*m", "n*m"];
const SERVICE_ACCOUNTS: Choices = &["n/s", "m/s", "n/t"];
const TRUST_DOMAINS: Choices = &["a", "b", "*", "a*", "*.b"];
const REQUEST_PRINCIPALS: Choices = &["*", "i/x", "i/*", "*x", "j*", "i/x*"];
const ADDRESSES: Choices =
    &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "::ffff:10.0.0.0/104", "2001:db8::/32", "0.0.0.0/0"];
const HOSTS: Choices = &["h", "*.h", "h*", "*", "*:80", "A.h"];
const PORTS: Choices = &["80", "443"];
const METHODS: Choices = &["GET", "PUT", "G*", "*T", "*"];
const PATHS: Choices = &["/a", "/a/*", "/a*", "*b", "*/b", "*", "/a/{*}", "/{*}/b", "/a/{**}", "/{**}/b", "/", "/{*}"];
const SNI: Choices = &["h", "*.h", "*"];
const LINES: Choices = &["a", "a*", "*b", "*", "a,b"];
const CLAIMS: Choices = &["x", "x*", "*", "y", "[x]"];

const SOURCE: &[(&str, &str, Choices)] = &[
    ("principals", "notPrincipals", PRINCIPALS),
    ("namespaces", "notNamespaces", NAMESPACES),
    ("trustDomains", "notTrustDomains", TRUST_DOMAINS),
    ("requestPrincipals", "notRequestPrincipals", REQUEST_PRINCIPALS),
    ("ipBlocks", "notIpBlocks", ADDRESSES),
    ("remoteIpBlocks", "notRemoteIpBlocks", ADDRESSES),
];
const ACCOUNTS: &[(&str, &str, Choices)] =
    &[("serviceAccounts", "notServiceAccounts", SERVICE_ACCOUNTS), ("trustDomains", "notTrustDomains", TRUST_DOMAINS)];
const OPERATION: &[(&str, &str, Choices)] = &[
    ("hosts", "notHosts", HOSTS),
    ("ports", "notPorts", PORTS),
    ("methods", "notMethods", METHODS),
    ("paths", "notPaths", PATHS),
    ("paths", "notPaths", PATHS),
];
const CONDITIONS: &[(&str, Choices)] = &[
    ("request.headers[x-a]", LINES),
    ("request.headers[:method]", METHODS),
    ("source.ip", ADDRESSES),
    ("source.principal", PRINCIPALS),
    ("source.namespace", NAMESPACES),
    ("source.trustDomain", TRUST_DOMAINS),
    ("request.auth.claims[g]", CLAIMS),
    ("request.auth.claims[g][h]", CLAIMS),
    ("request.auth.claims[sub]", CLAIMS),
    ("request.auth.audiences", CLAIMS),
    ("destination.port", PORTS),
    ("connection.sni", SNI),
    ("experimental.envoy.filters.http.x[k]", CLAIMS),
    ("experimental.envoy.filters.http.jwt_authn[other]", CLAIMS),
];

/// A generator of documents and requests, which a seed determines.
pub(super) struct Documents {
    state: u64,
}

impl Documents {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d }
    }

    /// Returns a number below `bound` (SplitMix64).
    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(bound).unwrap()).unwrap()
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[self.below(choices.len())]
    }

    fn values(&mut self, choices: Choices) -> Value {
        let count = 1 + self.below(2);
        (0..count).map(|_| Value::from(*self.pick(choices))).collect()
    }

    /// Returns two documents, of which the second one is usually a small change of the first one.
    pub(super) fn pair(&mut self) -> (Value, Value) {
        let old = self.document();
        let mut new = old.clone();
        if self.chance(6) {
            new["policies"] = self.policies();
            return (old, new);
        }
        if self.chance(8) {
            return (old.clone(), old);
        }
        if self.chance(4) {
            self.settings(&mut new);
        }
        let count = new["policies"].as_array().unwrap().len();
        match self.below(3) {
            0 if count > 0 => {
                let position = self.below(count);
                new["policies"].as_array_mut().unwrap().remove(position);
            }
            1 if count > 0 => {
                let position = self.below(count);
                let policy = self.policy(position);
                new["policies"][position] = policy;
            }
            _ => {
                let policy = self.policy(count);
                new["policies"].as_array_mut().unwrap().push(policy);
            }
        }
        (old, new)
    }

    fn document(&mut self) -> Value {
        let mut document = json!({"policies": self.policies()});
        self.settings(&mut document);
        document
    }

    /// Replaces the settings of a document. The pattern keeps the placeholders that policies need.
    fn settings(&mut self, document: &mut Value) {
        let patterns = ["istio", "istio", "any", "/{c}/{namespace}/{serviceAccount}"];
        document["trustDomain"] = json!("a");
        let federated = [json!([]), json!(["b"]), json!(["b", "*.b"])];
        document["federatedTrustDomains"] = self.pick(&federated).clone();
        document["trustDomainAliases"] = json!([]);
        // The same trust domain as a local and as a federated one.
        match self.below(4) {
            0 | 1 => document["trustDomainAliases"] = json!(["c"]),
            2 => document["federatedTrustDomains"].as_array_mut().unwrap().push(json!("c")),
            _ => {}
        }
        document["identity"] = json!({"pattern": self.pick(&patterns), "requireValidated": true});
        if self.chance(3) {
            document["identity"]["peer"] = json!("optional");
        }
        if self.chance(4) {
            document["identity"]["revoked"] = json!({"spiffeIds": ["spiffe://a/ns/n/sa/s"]});
        }
    }

    fn policies(&mut self) -> Value {
        let count = self.below(5);
        (0..count).map(|number| self.policy(number)).collect()
    }

    fn policy(&mut self, number: usize) -> Value {
        let action = *self.pick(&["ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"]);
        let mut policy = json!({"name": format!("p{number}"), "namespace": "n", "action": action});
        let count = if action == "ALLOW" { self.below(3) } else { 1 + self.below(2) };
        policy["rules"] = (0..count).map(|_| self.rule()).collect();
        if action != "AUDIT" && self.chance(6) {
            policy["mode"] = json!("shadow");
        }
        match self.below(8) {
            0 => policy["expires"] = json!("2020-01-01T00:00:00Z"),
            1 => policy["expires"] = json!("2030-01-01T00:00:00Z"),
            2 => policy["notBefore"] = json!("2030-01-01T00:00:00Z"),
            _ => {}
        }
        policy
    }

    fn rule(&mut self) -> Value {
        let mut rule = json!({});
        let count = self.below(3);
        if count > 0 {
            rule["from"] = (0..count)
                .map(|_| {
                    let fields = if self.chance(4) { ACCOUNTS } else { SOURCE };
                    json!({"source": self.fields(fields)})
                })
                .collect();
        }
        let count = self.below(3);
        if count > 0 {
            rule["to"] = (0..count).map(|_| json!({"operation": self.fields(OPERATION)})).collect();
        }
        if self.chance(2) {
            let count = 1 + self.below(2);
            rule["when"] = (0..count)
                .map(|_| {
                    let (key, choices) = *self.pick(CONDITIONS);
                    let mut condition = json!({"key": key});
                    let is_negated = self.chance(3);
                    condition[if is_negated { "notValues" } else { "values" }] = self.values(choices);
                    condition
                })
                .collect();
        }
        rule
    }

    fn fields(&mut self, fields: &[(&'static str, &'static str, Choices)]) -> Value {
        let mut selected = Map::new();
        let count = 1 + self.below(2);
        for _ in 0..count {
            let (name, negated, choices) = *self.pick(fields);
            let values = self.values(choices);
            let name = if self.chance(4) { negated } else { name };
            selected.insert(name.to_owned(), values);
        }
        Value::Object(selected)
    }

    /// Returns a document with statements about another document.
    pub(super) fn statements(&mut self, document: &Value) -> Value {
        let mut statements = document.clone();
        statements["policies"] = (0..3)
            .map(|number| {
                let action = *self.pick(&["DENY", "DENY", "ALLOW"]);
                let rule = if action == "DENY" { self.rule() } else { self.unambiguous_rule() };
                json!({"name": format!("s{number}"), "namespace": "n", "action": action, "rules": [rule]})
            })
            .collect();
        statements
    }

    /// Returns a rule that means the same in ALLOW and DENY policies.
    fn unambiguous_rule(&mut self) -> Value {
        let mut rule = json!({});
        if self.chance(2) {
            rule["from"] = json!([{"source": {"principals": self.values(PRINCIPALS)}}]);
        }
        rule["to"] = json!([{"operation": {"methods": self.values(METHODS), "paths": self.values(PATHS)}}]);
        rule
    }
}

const PEERS: &[Option<&str>] = &[
    None,
    Some("a/ns/n/sa/s"),
    Some("a/ns/nm/sa/t"),
    Some("a/ns/m/sa/s"),
    Some("b/ns/n/sa/s"),
    Some("b/ns/m/sa/s"),
    Some("c/ns/n/sa/t"),
    Some("x.b/ns/n/sa/s"),
    Some("z/ns/n/sa/s"),
    Some("a/w"),
    Some("a/ns/n/s"),
    Some("a/spire/x"),
];

/// Returns requests: every combination of callers, methods and paths, each with random other attributes.
pub(super) fn requests(documents: &mut Documents) -> Vec<CaseRequest> {
    let mut requests = Vec::new();
    for peer in PEERS {
        for method in ["GET", "PUT", "X"] {
            for path in ["/", "/a", "/ab", "/a/b", "/b/b", "/c", "/a/\"/b"] {
                let mut request = CaseRequest {
                    peer: peer.map(|principal| format!("spiffe://{principal}")),
                    method: method.to_owned(),
                    path: path.to_owned(),
                    ..CaseRequest::default()
                };
                fill(documents, &mut request);
                requests.push(request);
            }
        }
    }
    requests
}

/// Sets the other attributes of a request.
fn fill(documents: &mut Documents, request: &mut CaseRequest) {
    let hosts = [None, Some("h"), Some("x.h"), Some("a.h"), Some("h:80"), Some("z")];
    request.host = documents.pick(&hosts).map(str::to_owned);
    request.port = *documents.pick(&[None, Some(80), Some(443), Some(1)]);
    let addresses = ["10.1.2.3", "10.1.2.4", "10.2.0.1", "11.0.0.1", "2001:db8::1", "::1", "::ffff:10.1.2.3"];
    let address = |documents: &mut Documents| match documents.below(addresses.len() + 1) {
        number if number < addresses.len() => addresses[number].parse().ok(),
        _ => None,
    };
    request.source_ip = address(documents);
    request.remote_ip = address(documents);
    request.sni = documents.pick(&[None, Some("h"), Some("x.h"), Some("z")]).map(str::to_owned);
    if let Some(line) = documents.pick(&[None, Some("a"), Some("ab"), Some("b"), Some(""), Some("c"), Some("a,b")]) {
        request.headers.insert("x-a".to_owned(), Lines::One((*line).to_owned()));
    }
    let values =
        [json!("x"), json!("xy"), json!("y"), json!("z"), json!(["x", "y"]), json!(["z"]), json!([]), json!(7)];
    let mut claims = Map::new();
    for name in ["iss", "sub", "aud", "g"] {
        if documents.chance(2) {
            let strings = [json!("i"), json!("j"), json!("jj"), json!("x"), json!("xz")];
            let choices = if name == "iss" { &strings[..] } else { &values[..] };
            claims.insert(name.to_owned(), documents.pick(choices).clone());
        }
    }
    if documents.chance(3) {
        claims.insert("g".to_owned(), json!({"h": documents.pick(&values)}));
    }
    if documents.chance(2) {
        request.claims = Some(claims);
    }
    if documents.chance(2) {
        request.metadata.insert("envoy.filters.http.x".to_owned(), json!({"k": documents.pick(&values)}));
    }
}
