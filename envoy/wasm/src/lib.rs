//! spiffe-authz as a proxy-wasm filter: translates between Envoy and the core, and decides nothing itself.
#![expect(missing_docs, reason = "the SDK's macro writes the public entry point")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod attributes;
mod counters;
mod header_map;
mod host;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel};
use spiffe_authz::decision::{Decision, DenyReason, Outcome};
use spiffe_authz::filter::{Authorizer, Caller};
use spiffe_authz::log_line::{LogLine, RateLimit};
use spiffe_authz::policy::{Mode, Policy};
use spiffe_authz::request::Request;

use attributes::{CurrentConnection, CurrentRequest};
use counters::Counters;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { worker: None }));
}}

const FORBIDDEN: u32 = 403;
const BODY: &str = "spiffe-authz: access denied";

const STATE_PEER: &str = "spiffe_authz_peer";
const STATE_TRUST_DOMAIN: &str = "spiffe_authz_trust_domain";
const STATE_NAMESPACE: &str = "spiffe_authz_namespace";
const STATE_SERVICE_ACCOUNT: &str = "spiffe_authz_service_account";
const STATE_VERDICT: &str = "spiffe_authz_verdict";
const STATE_REASON: &str = "spiffe_authz_reason";
const STATE_POLICY: &str = "spiffe_authz_policy";
const STATE_RULE: &str = "spiffe_authz_rule";

/// One configuration of the filter on one worker.
struct Root {
    worker: Option<Rc<Worker>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let configuration = proxy_wasm::hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
        let text = configuration.ok().flatten().unwrap_or_default();
        match Policy::from_json(&text) {
            Ok(policy) => {
                for key in [STATE_PEER, STATE_TRUST_DOMAIN, STATE_NAMESPACE, STATE_SERVICE_ACCOUNT] {
                    host::keep_filter_state_for_connection(key);
                }
                self.worker = Some(Rc::new(Worker::new(policy)));
                true
            }
            Err(diagnostics) => {
                for diagnostic in &diagnostics {
                    log::error!("spiffe-authz: {diagnostic}");
                }
                log::error!("spiffe-authz: configuration refused: {} to mend", diagnostics.len());
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { worker: self.worker.clone() }))
    }
}

/// What the requests of one worker share.
struct Worker {
    authorizer: Authorizer,
    counters: RefCell<Counters>,
    log_limit: RefCell<RateLimit>,
}

impl Worker {
    fn new(policy: Policy) -> Self {
        Self { authorizer: Authorizer::new(policy), counters: RefCell::default(), log_limit: RefCell::default() }
    }

    fn on_request(&self) -> Action {
        let (caller, is_new) = self.authorizer.caller(&CurrentConnection);
        if is_new {
            record_peer(&caller);
        }
        let request = Request::new(CurrentRequest);
        let outcome = self.authorizer.authorize(&caller, &request);
        record_decision(&outcome.decision);
        self.count(&outcome);
        if let Some(line) = LogLine::of(&outcome, caller.peer(), &request)
            && let Some(suppressed) = self.log_limit.borrow_mut().pass(host::seconds())
        {
            log::warn!("{}", line.to_json(suppressed));
        }
        match outcome.decision.verdict.reason() {
            None => Action::Continue,
            Some(reason) => deny(reason),
        }
    }

    fn count(&self, outcome: &Outcome<'_>) {
        let mut counters = self.counters.borrow_mut();
        counters.decision(Mode::Enforce, &outcome.decision);
        if let Some(shadow) = &outcome.shadow {
            counters.decision(Mode::Shadow, shadow);
        }
        if let Some(rule) = outcome.audit {
            counters.audit(rule);
        }
    }
}

/// Refuses the request. Whether or not Envoy could be told, it goes no further.
fn deny(reason: DenyReason) -> Action {
    if host::respond(FORBIDDEN, &format!("spiffe_authz_denied[{}]", reason.slug()), BODY).is_err() {
        log::error!("spiffe-authz: Envoy took no response for a denied request; it is left hanging");
    }
    Action::Pause
}

fn record_peer(caller: &Caller) {
    let Some(peer) = caller.peer() else { return };
    host::set_filter_state(STATE_PEER, peer.spiffe_id().as_bytes());
    host::set_filter_state(STATE_TRUST_DOMAIN, peer.trust_domain().as_bytes());
    for (key, value) in [(STATE_NAMESPACE, peer.namespace()), (STATE_SERVICE_ACCOUNT, peer.service_account())] {
        if let Some(value) = value {
            host::set_filter_state(key, value.as_bytes());
        }
    }
}

fn record_decision(decision: &Decision<'_>) {
    host::set_filter_state(STATE_VERDICT, decision.verdict.slug().as_bytes());
    if let Some(reason) = decision.verdict.reason() {
        host::set_filter_state(STATE_REASON, reason.slug().as_bytes());
    }
    if let Some(rule) = decision.rule {
        host::set_filter_state(STATE_POLICY, rule.policy.as_bytes());
        host::set_filter_state(STATE_RULE, rule.position.to_string().as_bytes());
    }
}

/// One request and its response.
struct Stream {
    worker: Option<Rc<Worker>>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // Envoy sends no request to a configuration that it refused; were one to come, nothing could allow it.
        self.worker.as_ref().map_or_else(|| deny(DenyReason::NotConfigured), |worker| worker.on_request())
    }
}
