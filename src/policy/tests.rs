//! Compares the index with a walk over all rules, in the order of the document.
#![cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]

use std::net::IpAddr;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::rule::{Rule, Untraced};
use super::{Action, Layer, Mode, PolicySet, RuleId, Subject};
use crate::decision::{Decision, Outcome};
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
        let first = |action, modes: &[Mode]| {
            let matching = (0..).zip(&self.rules).find(|(_, rule)| {
                let policy = &self.policies[usize::try_from(rule.policy).unwrap()];
                policy.action == action
                    && !rule.left_out
                    && policy.period.contains(request.now())
                    && modes.contains(&policy.mode)
                    && rule.matches(peer, request, &mut Untraced).unwrap()
            });
            matching.map(|(id, _): (RuleId, _)| id)
        };
        let conclude = |modes: &[Mode]| -> Decision<'_> {
            let deny = first(Action::Deny, modes);
            let allow = if deny.is_some() { None } else { first(Action::Allow, modes) };
            let has_allow = self.policies.iter().any(|name| name.action == Action::Allow && modes.contains(&name.mode));
            self.conclude(Ok(deny), Ok(allow), has_allow)
        };
        let has_shadow = self.policies.iter().any(|name| name.mode == Mode::Shadow);
        Outcome {
            decision: conclude(&[Mode::Enforce]),
            shadow: has_shadow.then(|| conclude(&[Mode::Enforce, Mode::Shadow])),
            audit: first(Action::Audit, &[Mode::Enforce]).and_then(|id| self.rule_name(id)),
        }
    }
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
const PATHS: [&str; 9] = ["/a", "/a/*", "*/b", "*", "/a/{*}", "/{**}", "/a/{**}/b", "/", "/c*"];
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
    prop_oneof![accounts, others].prop_map(|fields| json!({"source": fields}))
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
        ("source.ip", &["10.0.0.0/8", "11.0.0.0/8"]),
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
        Ok(Some([10, 0, 0, 1].into()))
    }

    fn server_name(&self) -> Result<Option<&'static str>, HostFailure> {
        Ok(Some("s.example"))
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Ok(Object::default())
    }
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
    )
        .prop_map(|(id, path, host, method, port, lines)| Sample { id, path, host, method, port, lines })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_leaves_out_nothing_that_matches(
        policies in proptest::collection::vec(policy(), 0..24),
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
            let request = Request::new(sample, Timestamp::from_seconds(0));
            let indexed = policy.decide(&subject, &request);
            prop_assert_eq!(indexed, policy.decide_plainly(peer, &request));

            let matches = |rule: &Rule| {
                let policy = &policy.policies[usize::try_from(rule.policy).unwrap()];
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
                prop_assert_eq!(verdict(&with), verdict(&without), "{}: {}", finding, text);
            }
        }
    }
}
