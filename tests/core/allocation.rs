//! A decision allocates nothing, however many policies there are.
#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::support::{self, GET, Plain};
use serde_json::{Value, json};
use spiffe_authz::decision::Verdict;
use spiffe_authz::policy::Policy;
use spiffe_authz::request::Request;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; the count needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decisions_do_not_allocate() {
    let mut policies: Vec<Value> = (0..200)
        .map(|number| {
            json!({"name": format!("p{number}"), "namespace": "default", "rules": [{
                "from": [{"source": {"namespaces": ["default"]}}],
                "to": [{"operation": {"paths": [format!("/p{number}/*"), "/t/{*}/x"], "hosts": ["*.org"]}}]
            }]})
        })
        .collect();
    policies.push(json!({"name": "deny", "action": "DENY", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}]}]}));
    let document = json!({"trustDomain": "example.org", "policies": policies});
    let policy = Policy::from_json(document.to_string().as_bytes()).expect("a good document");
    let peer = support::peer(&policy, "spiffe://example.org/ns/default/sa/sleep");
    let candidates = policy.candidates(peer.as_ref());
    for (path, method, verdict) in
        [("/p77/a?b", "GET", Some(Verdict::Allow)), ("/no", "GET", None), ("/p1/", "PUT", None)]
    {
        let request = Request::new(Plain { path, method, ..GET });
        let before = ALLOCATIONS.get();
        let outcome = policy.decide(peer.as_ref(), &candidates, &request);
        assert_eq!(ALLOCATIONS.get(), before, "{path}");
        if let Some(verdict) = verdict {
            assert_eq!(outcome.decision.verdict, verdict);
        }
    }
    // The count counts.
    let before = ALLOCATIONS.get();
    drop(Box::new(1));
    assert!(ALLOCATIONS.get() > before);
}
