//! The policies that are measured.

use serde_json::json;
use spiffe_authz_integration::istio::PolicySet;

/// What a policy says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A caller by `principals`, which Istio compares as text, GET, and a path of its own.
    Paths,
    /// A caller by `serviceAccounts`, which is a regular expression in Istio, and nothing else.
    Callers,
}

/// The last of `count` policies lets the caller in.
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
