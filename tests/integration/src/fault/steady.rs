//! The environment on which faults are brought about, and the requests that flow there.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::bootstrap::{Bootstrap, GATEWAY_HOST, SERVER_HOST};
use crate::federation::{CALLERS, FEDERATED, Federation, Fit, LOCAL};
use crate::load::{Call, Caller};
use crate::scratch::write_whole;

/// The file of the filter's settings, which Envoy watches.
pub(super) const FILTER_FILE: &str = "filter.json";

/// Identities are good for 16 seconds and renewed after three (SPIRE dates them back by ten, and renews them at half of their
/// life); connections are renewed every second, so that identities come into use. Policies come from a file. A request that
/// fails says why.
pub const STEADY: Fit = Fit { ttl: Duration::from_secs(16), httpbin, gateway: guarding, client, ..Fit::NONE };

fn httpbin(bootstrap: Bootstrap, directory: &Path) -> Result<Bootstrap> {
    let file = directory.join(FILTER_FILE);
    let (bootstrap, content) = guarding(bootstrap)?.watched_filter(&file)?;
    // An Envoy that takes the place of another goes on with the policies that there are.
    if !file.exists() {
        write_whole(&file, &content)?;
    }
    Ok(bootstrap)
}

fn guarding(bootstrap: Bootstrap) -> Result<Bootstrap> {
    bootstrap.connection_manager(json!({
        "access_log": [],
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST", "max_connection_duration": "1s",
        },
        "local_reply_config": local_replies(),
    }))
}

fn client(bootstrap: Bootstrap) -> Result<Bootstrap> {
    bootstrap.connection_manager(json!({"local_reply_config": local_replies()}))
}

/// Envoy's own errors have the response flags and the details for their text.
fn local_replies() -> Value {
    let errors = json!({"op": "GE", "value": {"default_value": 500, "runtime_key": "local_replies"}});
    let text = json!({"text_format_source": {"inline_string": "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%"}});
    json!({"mappers": [{"filter": {"status_code_filter": {"comparison": errors}}, "body_format_override": text}]})
}

/// The callers of the examples, each with requests that are allowed and requests that are denied.
///
/// # Errors
/// Returns an error if an Envoy does not tell its address.
pub fn callers(environment: &Federation<'_>) -> Result<Vec<Caller>> {
    let calls = |trust_domain: &str, name: &str| -> Vec<Call> {
        let call = |host, method, path, allowed| Call { host, method, path, allowed };
        match (trust_domain, name) {
            (LOCAL, "sleep") => vec![
                call(SERVER_HOST, "GET", "/status/200", true),
                call(SERVER_HOST, "GET", "/public/admin", false),
                call(SERVER_HOST, "POST", "/orders", false),
                call(GATEWAY_HOST, "GET", "/public/news", true),
            ],
            (FEDERATED, "sleep") => vec![
                call(SERVER_HOST, "GET", "/public/news", true),
                // The policy for the own domain's sleep must not match the other's.
                call(SERVER_HOST, "GET", "/status/200", false),
                call(GATEWAY_HOST, "GET", "/partners/news", true),
                call(GATEWAY_HOST, "GET", "/public/news", false),
            ],
            (FEDERATED, "web") => vec![
                call(SERVER_HOST, "POST", "/orders", true),
                call(SERVER_HOST, "GET", "/status/200", false),
                call(GATEWAY_HOST, "GET", "/orders", false),
            ],
            _ => vec![call(SERVER_HOST, "GET", "/public/news", false), call(SERVER_HOST, "GET", "/orders", false)],
        }
    };
    let caller = |(trust_domain, name): (&'static str, &'static str)| {
        let address = environment.caller(trust_domain, name)?.address()?;
        Ok(Caller { name: format!("{trust_domain}/{name}"), address, calls: calls(trust_domain, name) })
    };
    CALLERS.into_iter().map(caller).collect()
}
