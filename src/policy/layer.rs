//! The layer that policies are asked on: requests of HTTP, or connections of TCP.
//!
//! What a rule asks of HTTP is unknown on TCP. As in Istio, the reading that grants less is taken: an ALLOW rule that
//! asks for any of it is left out, and in a DENY or AUDIT rule what cannot be asked counts as matched.

use super::rule::{Action, Field, JWT_PAYLOAD, Rule};

/// What policies decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Each request.
    #[default]
    Http,
    /// Each connection, whatever is spoken on it.
    Tcp,
}

impl Rule {
    /// The rule as it is asked on TCP, if its policy has this action.
    pub(super) fn on_tcp(self, action: Action) -> Self {
        let mut fields = self.sources.iter().chain(&self.operations).flatten().chain(&self.conditions);
        if action == Action::Allow {
            let left_out = fields.any(Field::is_http_only);
            return Self { left_out, ..self };
        }
        let selectors = |selectors: Box<[Box<[Field]>]>| selectors.into_iter().map(without_http).collect();
        Self {
            sources: selectors(self.sources),
            operations: selectors(self.operations),
            conditions: without_http(self.conditions),
            ..self
        }
    }
}

/// The same fields in the same places; those of HTTP are not asked.
fn without_http(fields: Box<[Field]>) -> Box<[Field]> {
    fields.into_iter().map(|field| if field.is_http_only() { Field::Unasked(Box::new(field)) } else { field }).collect()
}

impl Field {
    /// Whether only a request has what this field asks for.
    fn is_http_only(&self) -> bool {
        match self {
            Self::Hosts(..) | Self::Methods(_) | Self::Paths(..) | Self::RequestPrincipals(_) | Self::Header(..) => {
                true
            }
            // A claim of a token; the whole payload is what an `experimental` key asks for, which Istio keeps on TCP.
            Self::Metadata(path, _) => {
                matches!(&**path, [filter, payload, _, ..] if [&**filter, &**payload] == JWT_PAYLOAD)
            }
            Self::Principals(_)
            | Self::Namespaces(_)
            | Self::ServiceAccounts(_)
            | Self::TrustDomains(_)
            | Self::Addresses(..)
            | Self::Ports(_)
            | Self::ServerNames(_)
            | Self::Unasked(_) => false,
        }
    }
}
