//! Compares the index with a walk over all rules, in the order of the document.
#![cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]

use std::net::IpAddr;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::rule::{Matcher, Rule, Untraced};
use super::{Action, Layer, Mode, PolicySet, RuleId, Subject};
use crate::decision::{Decision, DenyReason, Outcome, Verdict};
use crate::host::{AddressOf, HostFailure, RequestAttributes};
use crate::identity::{Identity, Peer};
use crate::lint::{Lint, Target, lint};
use crate::metadata::Object;
use crate::policy::Node;
use crate::request::Request;
use crate::timestamp::Timestamp;

impl PolicySet {
    /// Decides without the index: `decide` must return the same.
    fn decide_plainly<A: RequestAttributes>(&self, peer: Option<&Peer>, request: &Request<A>) -> Outcome<'_> {
        let first = |action, modes: &[Mode]| -> Result<Option<RuleId>, HostFailure> {
            let rules = RuleId::of_all(&self.rules).filter(|(_, rule)| {
                let policy = &self.policies[rule.policy.index()];
                policy.action == action
                    && !rule.left_out
                    && policy.period.contains(request.now())
                    && modes.contains(&policy.mode)
            });
            let results: Vec<(RuleId, Option<bool>)> =
                rules.map(|(id, rule)| (id, matches_plainly(rule, peer, request))).collect();
            match results.iter().find(|(_, result)| *result == Some(true)) {
                Some((id, _)) => Ok(Some(*id)),
                None if results.iter().any(|(_, result)| result.is_none()) => Err(HostFailure),
                None => Ok(None),
            }
        };
        let conclude = |modes: &[Mode]| -> Decision<'_> {
            let deny = first(Action::Deny, modes);
            let allow = if deny == Ok(None) { first(Action::Allow, modes) } else { Ok(None) };
            let has_allow = self.policies.iter().any(|name| name.action == Action::Allow && modes.contains(&name.mode));
            self.conclude(deny, allow, has_allow)
        };
        let has_shadow = self.policies.iter().any(|name| name.mode == Mode::Shadow);
        Outcome {
            decision: conclude(&[Mode::Enforce]),
            shadow: has_shadow.then(|| conclude(&[Mode::Enforce, Mode::Shadow])),
            audit: first(Action::Audit, &[Mode::Enforce]).ok().flatten().and_then(|id| self.rule_name(id)),
        }
    }
}

/// Evaluates every matcher of a rule. `None` is unknown: an attribute that cannot be read decides.
fn matches_plainly<A: RequestAttributes>(rule: &Rule, peer: Option<&Peer>, request: &Request<A>) -> Option<bool> {
    let all = |results: &mut dyn Iterator<Item = Option<bool>>| {
        let results: Vec<_> = results.collect();
        if results.contains(&Some(false)) {
            return Some(false);
        }
        (!results.contains(&None)).then_some(true)
    };
    let fields = |fields: &[Matcher]| all(&mut fields.iter().map(|matcher| matcher.matches(peer, request).ok()));
    let any = |selectors: &[Box<[Matcher]>]| {
        if selectors.is_empty() {
            return Some(true);
        }
        // One must match: not all of them fail to.
        all(&mut selectors.iter().map(|selector| fields(selector).map(|result| !result))).map(|none| !none)
    };
    all(&mut [any(&rule.sources), any(&rule.operations), fields(&rule.conditions)].into_iter())
}

/// The subject of this SPIFFE ID. A string that is not one is an anonymous caller.
fn subject(policies: &PolicySet, id: &str) -> Subject {
    match policies.identity().identify(Some(id.as_bytes())) {
        Identity::Rejected(_) => policies.subject(Identity::Anonymous),
        identity => policies.subject(identity),
    }
}

const PRINCIPALS: [&str; 7] =
    ["*", "a.org/*", "*/sa/x", "a.org/ns/n/sa/x", "a.org/ns/n/sa/y", "b.org/ns/n/sa/x", "b.org/ns/*"];
const NAMESPACES: [&str; 5] = ["n", "m", "*", "n*", "*m"];
const ACCOUNTS: [&str; 3] = ["n/x", "m/y", "x"];
const TRUST_DOMAINS: [&str; 5] = ["a.org", "b.org", "*.org", "a*", "*"];
const PATHS: [&str; 12] =
    ["/a", "/a/*", "*/b", "*", "/a/{*}", "/{**}", "/a/{**}/b", "/", "/c*", "/{*}/b", "/{*}/x/{*}", "/{*}"];
const REQUEST_PRINCIPALS: [&str; 6] = ["i/s", "i/t", "*", "i/*", "*/t", "j/s"];
const CLAIMS: [&str; 4] = ["v", "w", "v*", "*"];
const NETWORKS: [&str; 5] = ["10.0.0.0/8", "10.0.0.1", "10.0.0.0/30", "11.0.0.0/8", "::/0"];
/// Each request has the second of these times.
const MOMENTS: [&str; 3] = ["1960-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1980-01-01T00:00:00Z"];
const HOSTS: [&str; 4] = ["h.example", "*.example", "h*", "*"];
const METHODS: [&str; 3] = ["GET", "PUT", "*"];

fn some(values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    subsequence(values.to_vec(), 1..=2).prop_map(|values| json!(values))
}

fn fields(choices: Vec<(&'static str, &'static [&'static str])>) -> impl Strategy<Value = Value> {
    let field = select(choices).prop_flat_map(|(name, values)| some(values).prop_map(move |value| (name, value)));
    proptest::collection::vec(field, 1..3).prop_map(|fields| {
        let mut object = serde_json::Map::new();
        for (name, value) in fields {
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    })
}

fn source() -> impl Strategy<Value = Value> {
    let accounts = fields(vec![
        ("serviceAccounts", &ACCOUNTS),
        ("notServiceAccounts", &ACCOUNTS),
        ("trustDomains", &TRUST_DOMAINS),
        ("notTrustDomains", &TRUST_DOMAINS),
    ]);
    let others = fields(vec![
        ("principals", &PRINCIPALS),
        ("notPrincipals", &PRINCIPALS),
        ("namespaces", &NAMESPACES),
        ("notNamespaces", &NAMESPACES),
        ("trustDomains", &TRUST_DOMAINS),
    ]);
    let anyone = fields(vec![
        ("ipBlocks", &NETWORKS),
        ("notIpBlocks", &NETWORKS),
        ("remoteIpBlocks", &NETWORKS),
        ("requestPrincipals", &REQUEST_PRINCIPALS),
        ("notRequestPrincipals", &REQUEST_PRINCIPALS),
    ]);
    prop_oneof![accounts, others, anyone].prop_map(|fields| json!({"source": fields}))
}

fn operation() -> impl Strategy<Value = Value> {
    let fields = fields(vec![
        ("paths", &PATHS),
        ("paths", &PATHS),
        ("notPaths", &PATHS),
        ("hosts", &HOSTS),
        ("notHosts", &HOSTS),
        ("methods", &METHODS),
        ("notMethods", &METHODS),
        ("ports", &["80", "81"]),
    ]);
    fields.prop_map(|fields| json!({"operation": fields}))
}

fn condition() -> impl Strategy<Value = Value> {
    let keys: Vec<(&str, &'static [&'static str])> = vec![
        ("request.headers[X]", &["a", "a*", "*b", "*"]),
        ("source.ip", &NETWORKS),
        ("destination.ip", &NETWORKS),
        ("request.auth.principal", &REQUEST_PRINCIPALS),
        ("request.auth.claims[c]", &CLAIMS),
        ("request.auth.claims[d][e]", &CLAIMS),
        ("experimental.envoy.filters.http.f[k]", &["v", "[v]", "[v*]", "*"]),
        ("source.namespace", &NAMESPACES),
        ("source.trustDomain", &TRUST_DOMAINS),
        ("source.principal", &PRINCIPALS),
        ("destination.port", &["80", "81"]),
        ("connection.sni", &["s.example", "*"]),
    ];
    let value = |(key, values)| (Just(key), some(values), select(vec!["values", "notValues"]));
    select(keys).prop_flat_map(value).prop_map(|(key, values, name)| json!({"key": key, name: values}))
}

fn rule() -> impl Strategy<Value = Value> {
    let sources = proptest::collection::vec(source(), 0..3);
    let operations = proptest::collection::vec(operation(), 0..3);
    let conditions = proptest::collection::vec(condition(), 0..2);
    (sources, operations, conditions).prop_map(|(sources, operations, conditions)| {
        let mut rule = json!({});
        for (name, list) in [("from", sources), ("to", operations), ("when", conditions)] {
            if !list.is_empty() {
                rule[name] = json!(list);
            }
        }
        rule
    })
}

fn policy() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![
        6 => Just(("ALLOW", "enforce")), 2 => Just(("DENY", "enforce")), 1 => Just(("AUDIT", "enforce")),
        1 => Just(("ALLOW", "shadow")), 1 => Just(("DENY", "shadow")),
    ];
    let boundary = || prop_oneof![3 => Just(None), 1 => select(MOMENTS.to_vec()).prop_map(Some)];
    (kind, proptest::collection::vec(rule(), 1..4), boundary(), boundary()).prop_map(
        |((action, mode), rules, not_before, expires)| {
            let mut policy = json!({"action": action, "mode": mode, "namespace": "n", "rules": rules});
            if let Some(not_before) = not_before {
                policy["notBefore"] = json!(not_before);
            }
            if let Some(expires) = expires.filter(|expires| not_before.is_none_or(|not_before| not_before < *expires)) {
                policy["expires"] = json!(expires);
            }
            policy
        },
    )
}

#[derive(Debug, Clone)]
struct Sample {
    id: &'static str,
    path: &'static str,
    host: &'static str,
    method: &'static str,
    port: u64,
    lines: Vec<&'static str>,
    /// The last byte of every address.
    address: Option<u8>,
    metadata: Value,
    /// The host cannot read the addresses and the server name.
    is_unreadable: bool,
}

impl RequestAttributes for Sample {
    type Text = &'static str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'static str>, HostFailure> {
        Ok(Some(self.method))
    }

    fn path(&self) -> Result<Option<&'static str>, HostFailure> {
        Ok(Some(self.path))
    }

    fn authority(&self) -> Result<Option<&'static str>, HostFailure> {
        Ok(Some(self.host).filter(|host| !host.is_empty()))
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(Some(self.port))
    }

    fn headers(&self) -> Result<Vec<(String, Vec<u8>)>, HostFailure> {
        Ok(self.lines.iter().map(|line| ("x".to_owned(), line.as_bytes().to_vec())).collect())
    }

    fn address(&self, _: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        if self.is_unreadable {
            return Err(HostFailure);
        }
        Ok(self.address.map(|last| [10, 0, 0, last].into()))
    }

    fn server_name(&self) -> Result<Option<&'static str>, HostFailure> {
        if self.is_unreadable { Err(HostFailure) } else { Ok(Some("s.example")) }
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Ok(self.metadata.as_object().map(Object::from).unwrap_or_default())
    }
}

/// The claims of a token, and the metadata of another filter.
fn metadata() -> impl Strategy<Value = Value> {
    let claim = || select(vec![json!("v"), json!("w"), json!(["v", "x"]), json!(1), json!({"e": "v"}), Value::Null]);
    let text = || select(vec![json!("i"), json!("j"), json!("s"), json!("t"), json!(["s"])]);
    (text(), text(), claim(), claim(), claim()).prop_map(|(issuer, subject, c, d, k)| {
        let [filter, payload] = super::JWT_PAYLOAD;
        json!({
            filter: {payload: {"iss": issuer, "sub": subject, "c": c, "d": d}},
            "envoy.filters.http.f": {"k": k},
        })
    })
}

fn sample() -> impl Strategy<Value = Sample> {
    let ids = ["", "a.org/ns/n/sa/x", "a.org/ns/n/sa/y", "b.org/ns/n/sa/x", "a.org/ns/m/sa/y", "old.org/ns/n/sa/x"];
    let paths = ["/", "/a", "/a/b", "/a/x/b", "/b", "/c?d", "/cc", "/a/", "/a;x", "/a;x/b", "/c;/a/b", "/;x/b"];
    (
        select(ids.to_vec()),
        select(paths.to_vec()),
        select(vec!["h.example", "H.example", "h", "", "h.example.", "x@h.example", "x@h.:80"]),
        select(vec!["GET", "PUT"]),
        80..83u64,
        subsequence(vec!["a", "b", "ab", "a,b", "a, ab"], 0..3),
        select(vec![None, Some(1), Some(2), Some(9)]),
        metadata(),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(id, path, host, method, port, lines, address, metadata, is_unreadable)| Sample {
            id,
            path,
            host,
            method,
            port,
            lines,
            address,
            metadata,
            is_unreadable,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_leaves_out_nothing_that_matches(
        policies in prop_oneof![proptest::collection::vec(policy(), 0..24), proptest::collection::vec(policy(), 40..60)],
        samples in proptest::collection::vec(sample(), 16),
        layer in select(vec![Layer::Http, Layer::Tcp]),
    ) {
        let policies: Vec<Value> = policies.into_iter().enumerate().map(|(number, mut policy)| {
            policy["name"] = json!(format!("p{number}"));
            policy
        }).collect();
        let document = json!({
            "trustDomain": "a.org", "federatedTrustDomains": ["b.org"], "trustDomainAliases": ["old.org"],
            "policies": policies,
        });
        let policy = PolicySet::from_json(document.to_string().as_bytes()).unwrap().on(layer);
        for sample in samples {
            let id = format!("spiffe://{}", sample.id);
            let subject = subject(&policy, &id);
            let peer = subject.peer();
            let is_unreadable = sample.is_unreadable;
            let request = Request::new(sample, Timestamp::from_seconds(0));
            let indexed = policy.decide(&subject, &request);
            let plain = policy.decide_plainly(peer, &request);
            if is_unreadable {
                // An unreadable attribute may cause a denial, and never a different verdict.
                let unreadable = Verdict::Deny(DenyReason::RequestUnreadable);
                prop_assert!(
                    [unreadable, plain.decision.verdict].contains(&indexed.decision.verdict),
                    "{indexed:?}, and plainly {plain:?}"
                );
                continue;
            }
            prop_assert_eq!(indexed, plain);

            let matches = |rule: &Rule| {
                let policy = &policy.policies[rule.policy.index()];
                policy.period.contains(request.now()) && rule.matches(peer, &request, &mut Untraced).unwrap()
            };
            let untraced: Vec<bool> = policy.rules.iter().map(|rule| !rule.left_out && matches(rule)).collect();
            let explanation = policy.explain(&subject, &request).unwrap();
            prop_assert_eq!(explanation.outcome, indexed);
            let rules = explanation.policies.iter().flat_map(|policy| policy.rules.iter().map(|rule| (policy.applies, rule)));
            let traced: Vec<_> =
                rules.map(|(applies, rule)| (rule.matched, applies && rule.misses == 0 && !rule.left_out)).collect();
            prop_assert_eq!(traced, untraced.into_iter().map(|matched| (matched, matched)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_rule_that_lints_call_useless_changes_no_verdict(
        policies in proptest::collection::vec(policy(), 1..4),
        conditions in proptest::collection::vec(condition(), 16),
        action in select(vec!["ALLOW", "DENY"]),
        samples in proptest::collection::vec(sample(), 64),
    ) {
        let mut policies: Vec<Value> = policies;
        // The same rules again, each with one more condition, so that many are covered.
        let rules = policies.iter().flat_map(|policy| policy["rules"].as_array().unwrap().clone());
        let narrower: Vec<Value> = rules.zip(conditions).map(|(mut rule, condition)| {
            match rule["when"].as_array_mut() {
                Some(when) => when.push(condition),
                None => rule["when"] = json!([condition]),
            }
            rule
        }).collect();
        policies.push(json!({"action": action, "namespace": "n", "rules": narrower}));
        for (number, policy) in policies.iter_mut().enumerate() {
            policy["name"] = json!(format!("p{number}"));
        }
        let document = |policies: &[Value]| {
            json!({"trustDomain": "a.org", "federatedTrustDomains": ["b.org"], "trustDomainAliases": ["old.org"],
                   "policies": policies}).to_string()
        };
        let compile = |policies: &[Value]| PolicySet::from_json(document(policies).as_bytes()).unwrap();
        let text = document(&policies);
        let root: Node<'_> = serde_json::from_str(&text).unwrap();
        let useless = [Lint::ShadowedRule, Lint::DuplicateRule, Lint::UnreachableAllow];
        let found = lint(&root, Target::Http, Timestamp::from_seconds(0));
        for finding in found.iter().filter(|finding| useless.contains(&finding.lint)) {
            let [policy, rule] = ["/policies/", "/rules/"].map(|name| {
                let rest = finding.pointer.split_once(name).unwrap().1;
                rest.split('/').next().unwrap().parse::<usize>().unwrap()
            });
            let mut fewer = policies.clone();
            // A rule that matches nothing, so that the policy is not empty.
            fewer[policy]["rules"][rule] = json!({"when": [{"key": "request.headers[none]", "values": ["x"]}]});
            let (with, without) = (compile(&policies), compile(&fewer));
            for sample in &samples {
                let id = format!("spiffe://{}", sample.id);
                let request = Request::new(sample.clone(), Timestamp::from_seconds(0));
                let verdict = |policy: &PolicySet| {
                    policy.decide(&subject(policy, &id), &request).decision.verdict
                };
                let (with, without) = (verdict(&with), verdict(&without));
                // A rule that is not needed may still read an attribute that the host does not expose.
                if sample.is_unreadable && [with, without].contains(&Verdict::Deny(DenyReason::RequestUnreadable)) {
                    continue;
                }
                prop_assert_eq!(with, without, "{}: {}", finding, text);
            }
        }
    }
}
