//! The properties of each target. Every function panics if its input breaks one.

use spiffe_authz::case::CaseRequest;
use spiffe_authz::certificate::{Svid, examine};
use spiffe_authz::decision::{Decision, DenyReason, Outcome, PolicyId, RuleName, Verdict};
use spiffe_authz::identity::xfcc::caller;
use spiffe_authz::lint::{Target as LintTarget, lint};
use spiffe_authz::metadata::Object;
use spiffe_authz::policy::{Action, Explanation, Layer, Mode, Node, PolicySet, PolicyTrace, Proxy};
use spiffe_authz::request::Request;
use spiffe_authz::spiffe_id::{SpiffeId, TrustDomain};
use spiffe_authz::timestamp::Timestamp;

/// The proxy of the target `xfcc`.
pub const PROXY: &str = "spiffe://example.org/ns/istio-system/sa/gateway";

/// The time of a request that does not state one.
pub const NOW: Timestamp = Timestamp::from_seconds(0);

/// A SPIFFE ID is the input itself, and its parts add up to it. The offset of an error is inside the input.
pub fn spiffe_id(data: &[u8]) {
    match SpiffeId::parse(data) {
        Ok(id) => {
            assert_eq!(id.as_str().as_bytes(), data);
            assert_eq!(id.to_string(), format!("spiffe://{}{}", id.trust_domain().as_str(), id.path()));
            assert!(TrustDomain::parse(id.trust_domain().as_str().as_bytes()).is_ok());
            assert!(data.len() <= 2048 && data.is_ascii() && !data.iter().any(u8::is_ascii_control));
            let segments = id.path().split('/').skip(1);
            assert!(segments.clone().all(|segment| !matches!(segment, "" | "." | "..")), "{id}");
        }
        Err(error) => assert!(error.offset() <= data.len() && !error.to_string().is_empty()),
    }
}

/// The first rule that `examine` finds broken is the error of `parse`, and an SVID has a valid ID with a path.
pub fn certificate(data: &[u8]) {
    let checks = examine(data);
    let broken = checks.iter().find_map(|check| check.result.err());
    match Svid::parse(data) {
        Ok(svid) => {
            assert_eq!(broken, None);
            let id = SpiffeId::parse(svid.spiffe_id().as_str().as_bytes()).expect("the ID of an SVID is valid");
            assert!(!id.path().is_empty());
        }
        Err(error) => {
            assert_eq!(broken, Some(error));
            assert!(!error.to_string().is_empty());
        }
    }
}

/// The input is the lines of the header. A URI is accepted only from one line, and only if a client cannot have written
/// text before or after it.
pub fn xfcc(data: &[u8]) {
    const CLIENT: &[u8] = b"URI=spiffe://example.org/ns/default/sa/admin";
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let Ok(uri) = caller(lines.iter().copied(), PROXY) else { return };
    let [line] = lines.as_slice() else { panic!("several lines were accepted") };
    assert!(line.windows(uri.len()).any(|part| part == uri));
    let joined = |parts: [&[u8]; 2]| parts.join(&b","[..]);
    for several in [joined([CLIENT, line]), joined([line, CLIENT])] {
        assert!(caller([&*several], PROXY).is_err(), "an additional element was accepted");
    }
    assert!(caller([*line, CLIENT], PROXY).is_err() && caller([CLIENT, *line], PROXY).is_err());
}

/// Reading ends, and finds nothing under a name that the message does not contain.
pub fn metadata(data: &[u8]) {
    let Ok(object) = Object::from_metadata(data) else { return };
    let name = "envoy.filters.http.jwt_authn";
    let found = object.get(&[name]);
    if !data.windows(name.len()).any(|part| part == name.as_bytes()) {
        assert!(matches!(found, Ok(None)));
    }
    if let Ok(Some(value)) = object.get(&[name, "payload", "iss"]) {
        value.any_text(|text| {
            assert!(data.windows(text.len().max(1)).any(|part| part == text) || text.is_empty());
            false
        });
    }
}

/// A document is accepted, or rejected with diagnostics. The result is the same if it is parsed first. Lints and the other layer do not
/// fail on an accepted document.
pub fn document(data: &[u8]) {
    match PolicySet::from_json(data) {
        Ok(policy) => {
            let _ = policy.on(Layer::Tcp);
            let node: Node<'_> = serde_json::from_slice(data).expect("an accepted document is JSON");
            assert!(
                PolicySet::from_node(&node, Proxy::Unknown).is_ok(),
                "the same document is rejected if it is parsed first"
            );
            for target in [LintTarget::Http, LintTarget::Tcp, LintTarget::Ztunnel] {
                for finding in lint(&node, target, NOW) {
                    assert!(!finding.message.is_empty() && node.at(&finding.pointer).is_some(), "{finding:?}");
                }
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            assert!(diagnostics.iter().all(|diagnostic| !diagnostic.to_string().is_empty()));
            if let Ok(node) = serde_json::from_slice::<Node<'_>>(data) {
                assert_eq!(PolicySet::from_node(&node, Proxy::Unknown).expect_err("the same errors"), diagnostics);
            }
        }
    }
}

/// The input is a document and a request as in the tables of `tests/corpus`, with a NUL between them. On each layer, the
/// index finds the rule that a walk over all rules finds.
pub fn decide(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    let (document, request) = data.split_at(end);
    let Ok(request) = serde_json::from_slice::<CaseRequest>(&request[1..]) else { return };
    for layer in [Layer::Http, Layer::Tcp] {
        let Ok(policy) = PolicySet::from_json(document) else { return };
        decide_on(&policy.on(layer), &request);
    }
}

fn decide_on(policy: &PolicySet, request: &CaseRequest) {
    let outcome = request.decide(policy, NOW);
    let subject = policy.subject(request.identity(policy.identity()));
    let explained = policy.explain(&subject, &Request::new(request, request.time.unwrap_or(NOW)));
    let Ok(Explanation { outcome: same, policies }) = explained else { return };
    assert_eq!(outcome, same);
    if let Some(reason) = subject.identity().rejection() {
        assert_eq!(outcome.decision.verdict, Verdict::Deny(DenyReason::Identity(reason)));
        return;
    }
    assert_eq!(outcome, plainly(&policies));
}

/// The outcome of the matching rules, in the order of the document.
fn plainly<'p>(policies: &[PolicyTrace<'p>]) -> Outcome<'p> {
    let first = |action: Action, modes: &[Mode]| {
        let policies =
            policies.iter().enumerate().filter(|(_, policy)| policy.action == action && modes.contains(&policy.mode));
        policies.into_iter().find_map(|(index, policy)| {
            let (position, _) = (0..).zip(&policy.rules).find(|(_, rule)| rule.matched && !rule.left_out)?;
            Some(RuleName { policy: policy.name, policy_id: PolicyId::of_index(index), position })
        })
    };
    let conclude = |modes: &[Mode]| {
        let (deny, allow) = (first(Action::Deny, modes), first(Action::Allow, modes));
        let has_allow = policies.iter().any(|policy| policy.action == Action::Allow && modes.contains(&policy.mode));
        match (deny, allow) {
            (Some(_), _) => Decision { verdict: Verdict::Deny(DenyReason::DeniedByPolicy), rule: deny },
            (None, None) if has_allow => Decision { verdict: Verdict::Deny(DenyReason::NoPolicyAllows), rule: None },
            (None, _) => Decision { verdict: Verdict::Allow, rule: allow },
        }
    };
    let has_shadow = policies.iter().any(|policy| policy.mode == Mode::Shadow);
    Outcome {
        decision: conclude(&[Mode::Enforce]),
        shadow: has_shadow.then(|| conclude(&[Mode::Enforce, Mode::Shadow])),
        audit: first(Action::Audit, &[Mode::Enforce]),
    }
}
