//! Authorization by SPIFFE ID: the core of an Envoy filter, without I/O, clock or host.
//!
//! A [`PolicySet`](policy::PolicySet) is a compiled configuration document. It decides the requests of a
//! [`Subject`](policy::Subject), which is an identity with the rules that can match it:
//!
//! ```
//! use spiffe_authz::case::CaseRequest;
//! use spiffe_authz::decision::Verdict;
//! use spiffe_authz::policy::PolicySet;
//! use spiffe_authz::request::Request;
//! use spiffe_authz::timestamp::Timestamp;
//!
//! let document = r#"{
//!     "trustDomain": "example.org",
//!     "federatedTrustDomains": ["example.io"],
//!     "policies": [{
//!         "name": "readers",
//!         "rules": [{
//!             "from": [{"source": {"principals": ["example.io/ns/default/sa/sleep"]}}],
//!             "to": [{"operation": {"methods": ["GET"], "paths": ["/status/*"]}}]
//!         }]
//!     }]
//! }"#;
//! let policies = PolicySet::from_json(document.as_bytes()).expect("a document without errors");
//!
//! // Once per caller: check the SPIFFE ID, and find the rules that can match it.
//! let identity = policies.identity().identify(Some(b"spiffe://example.io/ns/default/sa/sleep"));
//! let sleep = policies.subject(identity);
//!
//! // For each request. An adapter implements `host::RequestAttributes` for the requests of its host.
//! let attributes = CaseRequest { path: "/status/200".to_owned(), ..CaseRequest::default() };
//! let request = Request::new(&attributes, Timestamp::from_seconds(0));
//! let outcome = policies.decide(&sleep, &request);
//! assert_eq!(outcome.decision.verdict, Verdict::Allow);
//! assert_eq!(outcome.decision.rule.map(|rule| rule.policy), Some("readers"));
//! ```
//!
//! The modules form three groups:
//!
//! * **Deciding.** [`policy`] compiles documents and decides. [`identity`] decides which SPIFFE IDs are accepted, and reads them
//!   from a [`certificate`], a [`spiffe_id`] or the header `x-forwarded-client-cert`. [`decision`] contains the outcome and its
//!   reasons. [`request`] and [`metadata`] contain the attributes that rules match.
//! * **Adapters.** An adapter implements the traits of [`host`], and [`worker::Outputs`]. A [`worker::Worker`] caches callers,
//!   decides, and records the outcome. [`filter_state`] contains the keys that a bootstrap sets for an adapter.
//! * **Tools.** [`lint`] finds probable mistakes in a document, [`diagnostic`] describes its errors, and [`case`] contains requests
//!   as text, with the expected outcome.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod case;
pub mod certificate;
pub mod decision;
pub mod diagnostic;
pub mod filter_state;
pub mod host;
pub mod identity;
pub mod lint;
pub mod metadata;
pub mod outputs;
pub mod policy;
pub mod request;
mod slug;
pub mod spiffe_id;
pub mod timestamp;
pub mod worker;
