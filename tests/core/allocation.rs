//! A decision allocates no memory, regardless of the number of policies, and compiling needs a bounded amount for each policy.
#![expect(unsafe_code, reason = "implementing an allocator is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::support::{self, GET, NOW, Plain};
use serde_json::{Value, json};
use spiffe_authz::decision::{DenyReason, Verdict};
use spiffe_authz::policy::PolicySet;
use spiffe_authz::request::Request;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// The bytes that are allocated now, and the maximum.
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system allocator does everything, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(BYTES.get()));
        // SAFETY: the caller fulfills the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the caller fulfills the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";

/// Decides each request of a caller, and checks that no decision allocates.
fn assert_no_allocation(policies: &[Value], requests: &[(Plain<'_>, Option<Verdict>)]) {
    let document = json!({"trustDomain": "example.org", "policies": policies});
    let policy = PolicySet::from_json(document.to_string().as_bytes()).expect("a valid document");
    let subject = support::subject(&policy, SLEEP);
    for (attributes, verdict) in requests {
        let request = Request::new(*attributes, NOW);
        // The owned values that a host returns are its own allocations. Fetch them before the decision.
        let _ = (request.headers().map(drop), request.metadata().map(drop));
        let before = ALLOCATIONS.get();
        let outcome = policy.decide(&subject, &request);
        assert_eq!(ALLOCATIONS.get(), before, "{attributes:?}");
        if let Some(verdict) = verdict {
            assert_eq!(outcome.decision.verdict, *verdict, "{attributes:?}");
        }
    }
}

fn policy(number: usize, rule: &Value) -> Value {
    json!({"name": format!("p{number}"), "namespace": "default", "rules": [rule]})
}

#[test]
fn decisions_do_not_allocate() {
    let mut policies: Vec<Value> = (0..200)
        .map(|number| {
            policy(
                number,
                &json!({
                    "from": [{"source": {"namespaces": ["default"]}}],
                    "to": [{"operation": {"paths": [format!("/p{number}/*"), "/t/{*}/x"], "hosts": ["*.org"]}}]
                }),
            )
        })
        .collect();
    policies.push(json!({"name": "deny", "action": "DENY", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}]}]}));
    assert_no_allocation(
        &policies,
        &[
            (Plain { path: "/p77/a?b", ..GET }, Some(Verdict::Allow)),
            (Plain { path: "/no", ..GET }, None),
            (Plain { path: "/p1/", method: "PUT", ..GET }, None),
        ],
    );
    // Counting works.
    let before = ALLOCATIONS.get();
    drop(Box::new(1));
    assert!(ALLOCATIONS.get() > before);
}

#[test]
fn the_worst_cases_do_not_allocate() {
    let rule = |account: &str, path: String| {
        json!({
            "from": [{"source": {"principals": [format!("example.org/ns/default/sa/{account}")]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [path]}}]
        })
    };
    let strangers: Vec<Value> =
        (0..10_000).map(|number| policy(number, &rule(&format!("other-{number}"), format!("/p{number}")))).collect();
    let nobody = Some(Verdict::Deny(DenyReason::NoPolicyAllows));
    assert_no_allocation(&strangers, &[(Plain { path: "/p9999", ..GET }, nobody)]);
    let same: Vec<Value> = (0..10_000).map(|number| policy(number, &rule("sleep", format!("/p{number}")))).collect();
    assert_no_allocation(
        &same,
        &[(Plain { path: "/p9999", ..GET }, Some(Verdict::Allow)), (Plain { path: "/none", ..GET }, nobody)],
    );
}

#[test]
fn no_field_allocates() {
    let is = |key: &str, value: &str| json!({"key": key, "values": [value]});
    let rule = json!({
        "from": [{"source": {
            "principals": ["*/sa/sleep"], "namespaces": ["def*"], "trustDomains": ["example.org"],
            "ipBlocks": ["10.0.0.0/8"], "remoteIpBlocks": ["203.0.113.0/24"]
        }}, {"source": {"serviceAccounts": ["sleep"]}}],
        "to": [{"operation": {"hosts": ["*.org"], "ports": ["8443"], "methods": ["GET"], "paths": ["/{*}/{**}"]}}],
        "when": [
            is("request.headers[x-role]", "a*"), is("source.ip", "10.0.0.1"), is("remote.ip", "203.0.113.7"),
            is("destination.ip", "10.0.0.2"), is("destination.port", "8443"), is("source.principal", "example.org/*"),
            is("source.namespace", "default"), is("source.serviceAccount", "sleep"),
            is("source.trustDomain", "example.org"), is("connection.sni", "*.example"),
            {"key": "request.auth.principal", "notValues": ["i/s"]},
            {"key": "request.auth.claims[a][b]", "notValues": ["c"]},
            {"key": "request.auth.audiences", "notValues": ["c"]},
            {"key": "experimental.envoy.filters.http.x[k]", "notValues": ["v"]}
        ]
    });
    let request = Plain {
        path: "/a/b",
        headers: &[("x-role", "admin")],
        source: "10.0.0.1",
        remote: "203.0.113.7",
        destination: "10.0.0.2",
        server_name: "a.example",
        ..GET
    };
    assert_no_allocation(&[policy(0, &rule)], &[(request, Some(Verdict::Allow))]);
}

/// Compiles policies, and returns the bytes for each policy at the peak and afterwards, without the text.
fn memory(rule: impl Fn(usize) -> Value) -> (usize, usize) {
    const POLICIES: usize = 10_000;
    let policies: Vec<Value> = (0..POLICIES).map(|number| policy(number, &rule(number))).collect();
    let text = json!({"trustDomain": "example.org", "policies": policies}).to_string();
    drop(policies);
    let before = BYTES.get();
    PEAK.set(before);
    let compiled = PolicySet::from_json(text.as_bytes()).expect("a valid document");
    let (peak, after) = (PEAK.get() - before, BYTES.get() - before);
    assert_eq!(compiled.policy_count(), POLICIES);
    (peak / POLICIES, after / POLICIES)
}

#[test]
fn compiling_needs_little_memory() {
    let principal = |number| format!("example.org/ns/n{}/sa/s{number}", number % 500);
    let callers = memory(|number| {
        json!({
            "from": [{"source": {"principals": [principal(number)]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [format!("/v{number}/*")]}}]
        })
    });
    let headers = memory(|number| json!({"when": [{"key": "request.headers[x-key]", "values": [number.to_string()]}]}));
    eprintln!("bytes for each policy, at the peak and afterwards: {callers:?} by principal, {headers:?} by header");
    for (peak, after) in [callers, headers] {
        assert!(peak <= 800 && after <= peak, "{peak} bytes for each policy at the peak, {after} afterwards");
    }
}
