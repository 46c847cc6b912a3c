//! The answers, compared with the engine of the filter on every request over small alphabets.

mod documents;

use std::env;
use std::net::IpAddr;
use std::rc::Rc;

use documents::{Documents, NOW, requests};

use super::super::PolicySet;
use super::super::workload::Proxy;
use super::cube::{Budget, Cube, outside};
use super::diff::{ChangeKind, candidates, differences};
use super::minimal::{MAX_COMPARED, minimal};
use super::set::Set;
use super::space::{CALLER, Found, Given, Space};
use super::who::allowed;
use super::{CallerKind, NotDecided, Question, STEPS, prove, who};
use crate::case::CaseRequest;
use crate::decision::{DenyReason, Verdict};
use crate::host::{AddressOf, HostFailure, RequestAttributes};
use crate::identity::Identity;
use crate::metadata::Object;
use crate::request::Request;

/// The number of pairs of documents, which ANALYSIS_ROUNDS replaces.
fn rounds() -> u64 {
    env::var("ANALYSIS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(60)
}

fn compiled(document: &serde_json::Value) -> PolicySet {
    PolicySet::from_json_for(document.to_string().as_bytes(), Proxy::Unknown)
        .unwrap_or_else(|diagnostics| panic!("{document}: {diagnostics:#?}"))
}

/// Returns the class of each attribute of a request. Classes that every matcher treats alike are the same.
fn classes_of(space: &Space<'_>, request: &CaseRequest) -> Vec<usize> {
    let identities: Vec<Identity> =
        space.settings.iter().map(|settings| request.identity_of_caller(settings)).collect();
    let fetched = Request::new(request, NOW);
    let found = space.matched.iter().enumerate().map(|(attribute, matched)| {
        let is_alike = |class: &usize| {
            let is_same_identity = attribute != CALLER
                || space.sides.iter().all(|side| {
                    let own = request.identity_of_caller(side.policies.identity());
                    own.rejection() == side.identities.0[*class].rejection()
                });
            is_same_identity
                && matched.iter().all(|(settings, matcher, set)| {
                    let identity = &identities[*settings];
                    let is_rejected = attribute == CALLER && identity.rejection().is_some();
                    let matches = !is_rejected && matcher.matches(identity.peer(), &fetched) == Ok(true);
                    matches == set.contains(*class)
                })
        };
        let class = (0..space.sizes[attribute]).find(is_alike);
        class.unwrap_or_else(|| panic!("no class of {}: {request:?}", space.attributes[attribute].0))
    });
    found.collect()
}

fn contains(cube: &Cube, classes: &[usize]) -> bool {
    classes.iter().enumerate().all(|(attribute, class)| cube.get(attribute).is_none_or(|set| set.contains(*class)))
}

/// The verdict and the rule of the filter.
fn decided(policies: &PolicySet, request: &CaseRequest) -> (Verdict, Option<(String, u32)>) {
    let decision = request.decide(policies, NOW).decision;
    (decision.verdict, decision.rule.map(|rule| (rule.policy.to_owned(), rule.position)))
}

fn named(policies: &PolicySet, found: Found) -> (Verdict, Option<(String, u32)>) {
    let rule = found.rule.and_then(|rule| policies.rule_name(rule));
    (found.verdict, rule.map(|rule| (rule.policy.to_owned(), rule.position)))
}

/// Asserts that each region has a request that no other one has, and that none can have more classes of an attribute.
fn assert_minimal(cubes: &[Cube], sizes: &[usize], budget: &mut Budget) {
    let mut is_covered = |cube: Cube, by: Vec<&Cube>| outside(vec![cube], by, sizes, budget).unwrap().is_empty();
    for (position, cube) in cubes.iter().enumerate() {
        let others = cubes.iter().enumerate().filter(|(other, _)| *other != position).map(|(_, other)| other);
        assert!(!is_covered(cube.clone(), others.collect()), "a region is superfluous: {cube:?} {cubes:?}");
        for (attribute, size) in sizes.iter().enumerate() {
            let Some(own) = cube.get(attribute) else { continue };
            for class in (0..*size).filter(|class| !own.contains(*class)) {
                let larger = cube.with(attribute, Some(Rc::new(own.or(&Set::from_iter([class])))));
                assert!(!is_covered(larger, cubes.iter().collect()), "a region is too small: {cube:?} {cubes:?}");
            }
        }
    }
}

/// The kind of the caller of a request, by the names in the document.
fn kind_of(policies: &PolicySet, request: &CaseRequest) -> CallerKind {
    let settings = policies.identity();
    let identity = request.identity_of_caller(settings);
    let Some(peer) = identity.peer() else { return CallerKind::Anonymous };
    match peer.trust_domain() {
        name if *name == *settings.trust_domains.local => CallerKind::Local,
        name if settings.trust_domains.aliases.iter().any(|alias| **alias == *name) => CallerKind::Alias,
        _ => CallerKind::Federated,
    }
}

/// The number of comparisons, and that of each kind of change.
#[derive(Debug, Default)]
struct Compared {
    requests: u64,
    granted: u64,
    revoked: u64,
    reason: u64,
    pairs_without_change: u64,
}

#[test]
fn differences_are_those_of_every_request() {
    let mut compared = Compared::default();
    for round in 0..rounds() {
        let mut documents = Documents::new(round);
        let (old, new) = documents.pair();
        let (old_set, new_set) = (compiled(&old), compiled(&new));
        let space = Space::new(&[&old_set, &new_set], &Given::default(), NOW).unwrap();
        let mut budget = Budget::new(STEPS);
        let groups = differences(&space, &candidates(&space, NOW), &mut budget).unwrap();
        let minimal: Vec<Vec<Cube>> =
            groups.iter().map(|(.., cubes)| minimal(cubes.clone(), &space.sizes, &mut budget).unwrap()).collect();
        for cubes in minimal.iter().filter(|cubes| cubes.len() <= MAX_COMPARED) {
            assert_minimal(cubes, &space.sizes, &mut budget);
        }
        // Each witness is checked.
        super::diff(&old_set, &new_set, NOW).unwrap_or_else(|error| panic!("{old}\n{new}\n{error}"));
        compared.pairs_without_change += u64::from(groups.is_empty());
        for request in requests(&mut documents) {
            let classes = classes_of(&space, &request);
            let (before, after) = (decided(&old_set, &request), decided(&new_set, &request));
            let kind = ChangeKind::of(before.0, after.0);
            let context = || format!("round {round}\n{old}\n{new}\n{request:?}\n{before:?} {after:?}");
            let mut is_found = false;
            for ((found_old, found_new, found_kind, cubes), minimal) in groups.iter().zip(&minimal) {
                let is_in = cubes.iter().any(|cube| contains(cube, &classes));
                assert_eq!(is_in, minimal.iter().any(|cube| contains(cube, &classes)), "minimal {}", context());
                if is_in {
                    is_found = true;
                    assert_eq!(Some(*found_kind), kind, "{}", context());
                    assert_eq!(named(&old_set, *found_old), before, "{}", context());
                    assert_eq!(named(&new_set, *found_new), after, "{}", context());
                }
            }
            assert_eq!(is_found, kind.is_some(), "{}", context());
            compared.requests += 1;
            match kind {
                Some(ChangeKind::Granted) => compared.granted += 1,
                Some(ChangeKind::Revoked) => compared.revoked += 1,
                Some(ChangeKind::Reason) => compared.reason += 1,
                None => {}
            }
        }
    }
    println!("{compared:?}");
    assert!(compared.requests >= 10_000, "{compared:?}");
    for count in [compared.granted, compared.revoked, compared.reason] {
        assert!(count > 100, "{compared:?}");
    }
}

/// A request of which some attributes are unknown.
struct Partly<'r> {
    request: &'r CaseRequest,
    unknown: u32,
}

impl Partly<'_> {
    fn known<T>(&self, attribute: u32, value: Result<T, HostFailure>) -> Result<T, HostFailure> {
        if self.unknown & (1 << attribute) == 0 { value } else { Err(HostFailure) }
    }
}

impl<'r> RequestAttributes for &Partly<'r> {
    type Text = &'r str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'r str>, HostFailure> {
        self.known(0, self.request.method())
    }

    fn path(&self) -> Result<Option<&'r str>, HostFailure> {
        self.known(1, self.request.path())
    }

    fn authority(&self) -> Result<Option<&'r str>, HostFailure> {
        self.known(2, self.request.authority())
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        self.known(3, self.request.destination_port())
    }

    fn headers(&self) -> Result<Self::Headers, HostFailure> {
        self.known(4, self.request.headers())
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        self.known(5, self.request.address(of))
    }

    fn server_name(&self) -> Result<Option<&'r str>, HostFailure> {
        self.known(6, self.request.server_name())
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        self.known(7, self.request.metadata())
    }
}

#[test]
fn rules_that_match_are_those_of_the_explanation() {
    let (mut matched, mut undecided) = (0_u64, 0_u64);
    for round in 0..rounds() {
        let mut documents = Documents::new(round);
        let (document, _) = documents.pair();
        let policies = compiled(&document);
        let infos: Vec<_> = policies.rule_infos().collect();
        for (number, request) in (0_u32..).zip(requests(&mut documents)) {
            let subject = policies.subject(request.identity(policies.identity()));
            if subject.identity().rejection().is_some() {
                continue;
            }
            let explanation = policies.explain(&subject, &Request::new(&request, NOW)).unwrap();
            let expected: Vec<_> = explanation.policies.iter().flat_map(|policy| &policy.rules).collect();
            assert_eq!(expected.len(), infos.len());
            let possible = policies.rules_for(subject.peer());
            let partly = Partly { request: &request, unknown: number % 256 };
            for (index, (rule, info)) in expected.iter().zip(&infos).enumerate() {
                assert_eq!(rule.pointer, info.pointer);
                let found = policies.rule_matches(index, subject.peer(), &Request::new(&request, NOW));
                assert_eq!(found, Some(rule.matched), "{document}\n{request:?}\n{info:?}");
                assert!(!rule.matched || possible.contains(&index), "{document}\n{request:?}\n{info:?}");
                matched += u64::from(rule.matched);
                // An unknown attribute never changes a result that is known.
                match policies.rule_matches(index, subject.peer(), &Request::new(&partly, NOW)) {
                    Some(found) => assert_eq!(found, rule.matched, "{document}\n{request:?}\n{info:?}"),
                    None => undecided += 1,
                }
            }
        }
    }
    assert!(matched > 1000 && undecided > 1000, "{matched} {undecided}");
}

#[test]
fn permissions_are_those_of_every_request() {
    let (mut requests_compared, mut permitted) = (0_u64, 0_u64);
    for round in 0..rounds() {
        let mut documents = Documents::new(round);
        let (document, _) = documents.pair();
        let policies = compiled(&document);
        let space = Space::new(&[&policies], &Given::default(), NOW).unwrap();
        let regions = allowed(&space, &mut Budget::new(STEPS)).unwrap();
        let found = who(&policies, &Question::default(), NOW).unwrap_or_else(|error| panic!("{document}\n{error}"));
        let kinds: Vec<CallerKind> = found.permissions.iter().flat_map(|permission| permission.kinds.clone()).collect();
        for request in requests(&mut documents) {
            let classes = classes_of(&space, &request);
            let is_found = regions.iter().any(|(_, cubes)| cubes.iter().any(|cube| contains(cube, &classes)));
            let is_allowed = decided(&policies, &request).0 == Verdict::Allow;
            assert_eq!(is_found, is_allowed, "round {round}\n{document}\n{request:?}");
            let kind = kind_of(&policies, &request);
            assert!(!is_allowed || kinds.contains(&kind), "round {round}\n{document}\n{request:?}\n{kinds:?}");
            requests_compared += 1;
            permitted += u64::from(is_allowed);
        }
        // With a value that the question fixes, the answer is the same.
        for request in requests(&mut documents).into_iter().take(4) {
            let given = Question {
                method: Some(request.method.clone()),
                path: Some(request.path.clone()),
                ..Question::default()
            };
            let found = who(&policies, &given, NOW).unwrap();
            let alike = requests(&mut documents).into_iter();
            let alike = alike.filter(|other| other.method == request.method && other.path == request.path);
            let allows = alike.filter(|other| decided(&policies, other).0 == Verdict::Allow).count();
            assert!(!found.permissions.is_empty() || allows == 0, "round {round}\n{document}\n{request:?}");
            for permission in found.permissions {
                assert_eq!(decided(&policies, &permission.witness).0, Verdict::Allow);
                assert_eq!((&permission.witness.method, &permission.witness.path), (&request.method, &request.path));
            }
        }
    }
    println!("{requests_compared} requests, {permitted} allowed");
    assert!(requests_compared >= 10_000 && permitted > 1_000, "{requests_compared} {permitted}");
}

#[test]
fn permissions_have_the_kinds_of_their_callers() {
    use CallerKind::{Alias, Anonymous, Federated, Local};
    for (rule, expected) in [
        (serde_json::json!({"from": [{"source": {"principals": ["c/ns/n/sa/s"]}}]}), vec![Alias]),
        (serde_json::json!({"from": [{"source": {"namespaces": ["n"]}}]}), vec![Local, Alias]),
        (serde_json::json!({"from": [{"source": {"trustDomains": ["b*"]}}]}), vec![Federated]),
        (serde_json::json!({"from": [{"source": {"principals": ["*"]}}]}), vec![Local, Alias, Federated]),
        (serde_json::json!({}), vec![Local, Alias, Federated, Anonymous]),
    ] {
        let policies = compiled(&serde_json::json!({
            "trustDomain": "a", "trustDomainAliases": ["c"], "federatedTrustDomains": ["b", "bb"],
            "identity": {"peer": "optional"}, "policies": [{"name": "p", "rules": [rule]}],
        }));
        let found = who(&policies, &Question::default(), NOW).unwrap();
        let kinds: Vec<_> = found.permissions.iter().map(|permission| permission.kinds.clone()).collect();
        let is_every_rule = expected.contains(&Anonymous);
        assert_eq!(kinds, [expected], "{rule}");
        assert_eq!(found.permissions[0].has_every_caller, is_every_rule, "{rule}");
    }
}

#[test]
fn statements_hold_for_every_request_or_have_a_counterexample() {
    let (mut held, mut broken) = (0_u64, 0_u64);
    for round in 0..rounds() {
        let mut documents = Documents::new(round);
        let (document, _) = documents.pair();
        let statements_document = documents.statements(&document);
        let (policies, statements) = (compiled(&document), compiled(&statements_document));
        let results = prove(&policies, &statements, NOW);
        let results = results.unwrap_or_else(|error| panic!("{document}\n{statements_document}\n{error}"));
        let listed = statements_document["policies"].as_array().unwrap();
        for (result, statement) in results.iter().zip(listed) {
            // A document with this statement only, which every request reaches.
            let mut alone = statements_document.clone();
            alone["policies"] = serde_json::json!([statement]);
            alone["policies"][0]["action"] = "DENY".into();
            let alone = compiled(&alone);
            let denies = statement["action"] == "DENY";
            let breaks = |request: &CaseRequest| {
                let is_matched = decided(&alone, request).0 == Verdict::Deny(DenyReason::DeniedByPolicy);
                is_matched && (decided(&policies, request).0 == Verdict::Allow) == denies
            };
            match &result.counterexample {
                Some(counterexample) => {
                    broken += 1;
                    assert!(
                        breaks(&counterexample.witness),
                        "round {round}\n{document}\n{statement}\n{counterexample:?}"
                    );
                }
                // No request matches it.
                None if !result.limits.is_empty() => {}
                None => {
                    held += 1;
                    let wrong = requests(&mut documents).into_iter().find(breaks);
                    assert!(wrong.is_none(), "round {round}\n{document}\n{statement}\n{wrong:?}");
                }
            }
        }
    }
    println!("{held} statements hold, {broken} do not");
    assert!(held > 20 && broken > 20, "{held} {broken}");
}

#[test]
fn what_is_not_decided_is_an_error() {
    let document = |key: &str| {
        compiled(&serde_json::json!({"trustDomain": "t", "policies": [
            {"name": "p", "rules": [{"when": [{"key": key, "values": ["/a"]}]}]}
        ]}))
    };
    let readable = document("request.headers[x-a]");
    let error = super::diff(&readable, &document("request.headers[:path]"), NOW).unwrap_err();
    assert!(matches!(&error, NotDecided::Header(name) if name == ":path"), "{error}");
    let forwarded = compiled(&serde_json::json!({
        "trustDomain": "t", "identity": {"from": "xfcc", "trustedProxies": ["t/proxy"]}, "policies": []
    }));
    assert!(matches!(super::diff(&readable, &forwarded, NOW), Err(NotDecided::Sources)));
}

/// The basis of answers about requests with one reading only.
#[test]
fn a_request_with_several_readings_is_allowed_only_if_each_is() {
    let mut allowed = 0;
    for round in 0..rounds() {
        let mut documents = Documents::new(round);
        let (document, _) = documents.pair();
        let policies = compiled(&document);
        for request in requests(&mut documents) {
            for (path, readings) in [("/a;x", ["/a", "/a"]), ("/a;x/b", ["/a/b", "/a"]), ("/;x/a/b", ["/a/b", "/"])] {
                let with = |path: &str| CaseRequest { path: path.to_owned(), ..request.clone() };
                if decided(&policies, &with(path)).0 == Verdict::Allow {
                    allowed += 1;
                    for reading in readings {
                        let verdict = decided(&policies, &with(reading)).0;
                        assert_eq!(verdict, Verdict::Allow, "round {round}\n{document}\n{request:?}\n{path} {reading}");
                    }
                }
            }
        }
    }
    assert!(allowed > 100, "{allowed}");
}

#[test]
fn too_many_values_are_not_decided() {
    let principals: Vec<String> = (0..300).map(|number| format!("issuer-{number}/subject-{number}")).collect();
    let policies = compiled(&serde_json::json!({"trustDomain": "t", "policies": [
        {"name": "p", "rules": [{"from": [{"source": {"requestPrincipals": principals}}]}]}
    ]}));
    let error = who(&policies, &Question::default(), NOW).unwrap_err();
    assert!(matches!(&error, NotDecided::Attribute(name) if name.starts_with("request.auth.claims[")), "{error}");
    let mut budget = Budget::new(2);
    assert!(budget.spend(2).is_ok() && matches!(budget.spend(1), Err(NotDecided::Budget)));
}

/// Both documents accept the caller, and the same rules mean different callers.
#[test]
fn settings_that_change_the_meaning_of_rules_are_changes() {
    let document = |settings: serde_json::Value| {
        let mut document = serde_json::json!({"trustDomain": "a", "policies": [
            {"name": "p", "rules": [{"from": [{"source": {"namespaces": ["n"]}}]}]}
        ]});
        document.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        compiled(&document)
    };
    let aliased = document(serde_json::json!({"trustDomainAliases": ["c"]}));
    let federated = document(serde_json::json!({"federatedTrustDomains": ["c"]}));
    let any = document(serde_json::json!({"identity": {"pattern": "any"}}));
    let template = document(serde_json::json!({"identity": {"pattern": "/{c}/{namespace}/{serviceAccount}"}}));
    for (old, new, caller) in [(&aliased, &federated, "spiffe://c/ns/n/sa/"), (&template, &any, "spiffe://a/")] {
        let changes = super::diff(old, new, NOW).unwrap().changes;
        let revoked = changes.iter().find(|change| change.kind == ChangeKind::Revoked);
        let peer = revoked.and_then(|change| change.witness.peer.as_deref()).unwrap_or_default();
        let is_no_identity_reason = revoked.is_some_and(|change| {
            change.new.verdict == Verdict::Deny(DenyReason::NoPolicyAllows) && peer.starts_with(caller)
        });
        assert!(is_no_identity_reason, "{changes:#?}");
    }
}
