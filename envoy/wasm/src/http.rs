//! The HTTP filter.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::worker::{BODY, FORBIDDEN, details};

use crate::attributes::CurrentRequest;
use crate::host;
use crate::worker::Worker;

/// A request.
pub(crate) struct Stream {
    worker: Option<Rc<Worker>>,
    is_denied: bool,
}

impl Stream {
    /// `worker` is `None` if the configuration is not for requests.
    pub(crate) const fn new(worker: Option<Rc<Worker>>) -> Self {
        Self { worker, is_denied: false }
    }

    /// Stops a denied request, even if Envoy did not accept the response.
    const fn action(&self) -> Action {
        if self.is_denied { Action::Pause } else { Action::Continue }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let denial = match &self.worker {
            Some(worker) => worker.decide(CurrentRequest::default()),
            None => Some(DenyReason::NotConfigured),
        };
        if let Some(reason) = denial {
            self.is_denied = true;
            respond(reason);
        }
        self.action()
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.action()
    }
}

fn respond(reason: DenyReason) {
    if host::respond(FORBIDDEN, &details(reason), BODY).is_err() {
        log::error!("spiffe-authz: Envoy did not accept the response to a denied request, which stays open");
    }
}
