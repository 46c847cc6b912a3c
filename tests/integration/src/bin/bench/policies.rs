//! The policies of the benchmark.

use serde_json::json;
use spiffe_authz_integration::istio::PolicySet;

/// The form of the policies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GET, a path for each policy, and a caller in `principals`, which Istio compares as a string.
    Paths,
    /// Only a caller in `serviceAccounts`, which Istio matches with a regular expression.
    Callers,
}

/// The caller and the path that a policy allows.
pub(crate) struct Allowed {
    /// The service account of the caller, in the namespace `default`.
    pub(crate) account: String,
    /// The prefix of the path.
    pub(crate) path: String,
}

/// Returns the callers and paths of `count` policies. Only the last one allows the caller, and no two have the same caller or path.
pub(crate) fn allowed(count: u32) -> impl Iterator<Item = Allowed> {
    (1..=count).map(move |number| {
        let is_last = number == count;
        Allowed {
            account: if is_last { "sleep".to_owned() } else { format!("other-{number}") },
            path: if is_last { "/status/".to_owned() } else { format!("/p{number}/") },
        }
    })
}

/// Returns `count` policies. The last one allows the caller.
pub(crate) fn policies(kind: Kind, count: u32) -> PolicySet {
    let one = |(number, Allowed { account, path })| {
        let rule = match kind {
            Kind::Paths => json!({
                "from": [{"source": {"principals": [format!("example.org/ns/default/sa/{account}")]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": [format!("{path}*")]}}]
            }),
            Kind::Callers => json!({"from": [{"source": {"serviceAccounts": [account]}}]}),
        };
        json!({"name": format!("p{number:05}"), "namespace": "default", "spec": {"rules": [rule]}})
    };
    (0_u32..).zip(allowed(count)).map(one).collect()
}
