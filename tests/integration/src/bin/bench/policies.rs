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

/// Returns `count` policies. The last one allows the caller.
pub(crate) fn policies(kind: Kind, count: u32) -> PolicySet {
    let one = |number: u32| {
        let is_last = number + 1 == count;
        let account = if is_last { "sleep".to_owned() } else { format!("other-{number}") };
        let path = if is_last { "status".to_owned() } else { format!("p{number}") };
        let rule = match kind {
            Kind::Paths => json!({
                "from": [{"source": {"principals": [format!("example.org/ns/default/sa/{account}")]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": [format!("/{path}/*")]}}]
            }),
            Kind::Callers => json!({"from": [{"source": {"serviceAccounts": [account]}}]}),
        };
        json!({"name": format!("p{number:05}"), "namespace": "default", "spec": {"rules": [rule]}})
    };
    (0..count).map(one).collect()
}
