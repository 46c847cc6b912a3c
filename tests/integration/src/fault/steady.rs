//! The environment in which faults are injected, and the requests in it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::bootstrap::{Bootstrap, GATEWAY_HOST, SERVER_HOST};
use crate::federation::{CALLERS, Changes, FEDERATED, Federation, LOCAL};
use crate::load::{Call, Caller};
use crate::scratch::write_whole;

/// The file with the filter's configuration, which Envoy watches.
pub(super) const FILTER_FILE: &str = "filter.json";

/// SVIDs are valid for 16 seconds and renewed after three: SPIRE backdates them by ten seconds and renews them at half
/// of their lifetime. Connections are renewed every second, so that new SVIDs are used. Policies come from a file. A
/// failed request contains its cause.
pub const STEADY: Changes =
    Changes { ttl: Duration::from_secs(16), httpbin, gateway: with_filter, client, ..Changes::NONE };

fn httpbin(bootstrap: Bootstrap, directory: &Path) -> Result<Bootstrap> {
    let file = directory.join(FILTER_FILE);
    let (bootstrap, content) = with_filter(bootstrap)?.watched_filter(&file)?;
    // A successor in a hot restart keeps the current policies.
    if !file.exists() {
        write_whole(&file, &content)?;
    }
    Ok(bootstrap)
}

fn with_filter(bootstrap: Bootstrap) -> Result<Bootstrap> {
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

/// Denials and Envoy's own errors have the response flags and details in their body.
fn local_replies() -> Value {
    let replies = json!({"op": "GE", "value": {"default_value": 403, "runtime_key": "local_replies"}});
    let text = json!({"text_format_source": {"inline_string": "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%"}});
    json!({"mappers": [{"filter": {"status_code_filter": {"comparison": replies}}, "body_format_override": text}]})
}

/// Returns the callers of the examples, with requests that are allowed and requests that are denied.
///
/// # Errors
/// Returns an error if the address of an Envoy is unknown.
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
                // The policy for `sleep` of the local domain must not match the federated one.
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
