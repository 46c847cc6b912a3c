//! The HTTP filter: one request at a time.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::worker::{BODY, FORBIDDEN, details};

use crate::attributes::CurrentRequest;
use crate::host;
use crate::worker::Worker;

/// One request and its response.
pub(crate) struct Stream {
    /// Nobody, where the configuration is not for requests.
    pub(crate) worker: Option<Rc<Worker>>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let denial = match &self.worker {
            Some(worker) => worker.decide(CurrentRequest::default()),
            None => Some(DenyReason::NotConfigured),
        };
        denial.map_or(Action::Continue, deny)
    }
}

/// Refuses the request. Whether or not Envoy could be told, it goes no further.
fn deny(reason: DenyReason) -> Action {
    if host::respond(FORBIDDEN, &details(reason), BODY).is_err() {
        log::error!("spiffe-authz: Envoy took no response for a denied request; it is left hanging");
    }
    Action::Pause
}
