//! The HTTP filter: one request at a time.

use spiffe_authz::decision::DenyReason;
use spiffe_authz::policy::Layer;
use spiffe_authz::request::Request;

use crate::attributes::CurrentRequest;
use crate::exports::Action;
use crate::host::{self, Level};
use crate::plugin::Plugin;

const FORBIDDEN: u32 = 403;
const BODY: &str = "spiffe-authz: access denied";

/// Lets the request pass, or answers it.
pub(crate) fn on_request(plugin: Option<&Plugin>) -> Action {
    let denial = match plugin.and_then(|plugin| plugin.worker(Layer::Http)) {
        Some(worker) => worker.decide(&Request::new(CurrentRequest)),
        None => Some(DenyReason::NotConfigured),
    };
    denial.map_or(Action::Continue, deny)
}

/// Refuses the request. Whether or not Envoy could be told, it goes no further.
fn deny(reason: DenyReason) -> Action {
    if host::respond(FORBIDDEN, &format!("spiffe_authz_denied[{}]", reason.slug()), BODY).is_err() {
        host::log(Level::Error, "spiffe-authz: Envoy took no response for a denied request; it is left hanging");
    }
    Action::Pause
}
