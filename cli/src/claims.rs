//! The claims of tokens: the fields that read them, and those that Envoy splits at spaces before the filter gets them.

use serde_json::{Value, json};
use spiffe_authz::case::CaseRequest;
use spiffe_authz::policy::field::Field;

/// The HTTP filter that validates tokens, which is also the namespace of the dynamic metadata with the claims.
pub(crate) const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// The fields that read claims.
pub(crate) const FIELDS: [Field; 4] = [Field::RequestPrincipals, Field::Audiences, Field::Presenter, Field::Claim];

/// The claims that Istio makes Envoy split: `buildSpaceDelimitedClaims` in `pilot/pkg/security/authn/policy_applier.go`.
pub(crate) const OF_ISTIO: [&str; 2] = ["scope", "permission"];

/// Returns the request as Envoy passes it to the filter, with these claims as lists.
pub(crate) fn split<N: AsRef<str>>(request: &CaseRequest, names: &[N]) -> CaseRequest {
    let mut request = request.clone();
    for name in names.iter().map(AsRef::as_ref) {
        if let Some(claim) = request.claims.as_mut().and_then(|claims| claims.get_mut(name))
            && let Value::String(text) = claim
        {
            *claim = json!(text.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>());
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiffe_authz::case::CaseRequest;

    use super::{OF_ISTIO, split};

    #[test]
    fn named_claims_are_split() {
        let claims = json!({"scope": "a  b", "permission": ["c d"], "name": "e f"}).as_object().cloned();
        let request = CaseRequest { claims, ..CaseRequest::default() };
        let expected = json!({"scope": ["a", "b"], "permission": ["c d"], "name": "e f"});
        assert_eq!(split(&request, &OF_ISTIO).claims.as_ref(), expected.as_object());
        assert_eq!(split::<&str>(&request, &[]).claims, request.claims);
    }
}
