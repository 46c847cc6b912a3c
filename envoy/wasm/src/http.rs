//! The HTTP filter: one request at a time.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::request::Request;

use crate::attributes::CurrentRequest;
use crate::host;
use crate::worker::Worker;

const FORBIDDEN: u32 = 403;
const BODY: &str = "spiffe-authz: access denied";

/// One request and its response.
pub(crate) struct Stream {
    /// Nobody, where the configuration is not for requests.
    pub(crate) worker: Option<Rc<Worker>>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let denial = match &self.worker {
            Some(worker) => worker.decide(&Request::new(CurrentRequest)),
            None => Some(DenyReason::NotConfigured),
        };
        denial.map_or(Action::Continue, deny)
    }
}

/// Refuses the request. Whether or not Envoy could be told, it goes no further.
fn deny(reason: DenyReason) -> Action {
    if host::respond(FORBIDDEN, &format!("spiffe_authz_denied[{}]", reason.slug()), BODY).is_err() {
        log::error!("spiffe-authz: Envoy took no response for a denied request; it is left hanging");
    }
    Action::Pause
}
