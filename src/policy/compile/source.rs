//! The fields of a `source`, which conditions on the caller share.

use super::values::{addresses, values};
use super::{Home, selector_object};
use crate::diagnostic::Code;
use crate::host::AddressOf;
use crate::policy::action::Action;
use crate::policy::compile::pointer::Pointer;
use crate::policy::compile::reader::{Object, Reader};
use crate::policy::field::{Field, Names, Selector};
use crate::policy::node::Node;
use crate::policy::rule::Matcher;
use crate::policy::values::{Glob, Namespace, RequestPrincipal, Scope, ServiceAccount, Text};
use crate::spiffe_id::{SpiffeId, TrustDomain, is_segment_byte};

/// Istio's limit on `serviceAccounts`.
const MAX_SERVICE_ACCOUNTS: usize = 16;

/// The trust domains that `namespaces` and `serviceAccounts`, and their negated forms, apply to.
#[derive(Clone, Copy)]
pub(super) struct Scopes {
    positive: Scope,
    negative: Scope,
}

impl Scopes {
    /// If the rule does not name a trust domain, the reading that grants less applies.
    pub(super) const fn of(action: Action, names_trust_domain: bool) -> Self {
        match action {
            _ if names_trust_domain => Self { positive: Scope::Any, negative: Scope::Any },
            Action::Allow => Self { positive: Scope::Local, negative: Scope::Any },
            Action::Deny | Action::Audit => Self { positive: Scope::Any, negative: Scope::Local },
        }
    }

    const fn pick(self, negated: bool) -> Scope {
        if negated { self.negative } else { self.positive }
    }
}

pub(super) fn read_source(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: &Home<'_>,
    conditions_name_trust_domain: bool,
) -> Option<Box<[Matcher]>> {
    let fields = selector_object(r, node, at, Selector::Source)?;
    let uses = |field: Field| field.names().into_iter().any(|name| fields.has(name));
    if uses(Field::ServiceAccounts) && (uses(Field::Principals) || uses(Field::Namespaces)) {
        let message = "`serviceAccounts` cannot be combined with `principals` or `namespaces`".to_owned();
        let help = "remove the other field: a service account already names its namespace";
        r.report(at, Code::ConflictingFields, message, help);
    }
    let [trust_domains, _] = Field::TrustDomains.names();
    let scopes = Scopes::of(home.action, conditions_name_trust_domain || fields.has(trust_domains));
    let matchers = [
        read_principals(r, &fields, Field::Principals.names()),
        read_namespaces(r, &fields, Field::Namespaces.names(), home, scopes),
        read_service_accounts(r, &fields, Field::ServiceAccounts.names(), home, scopes),
        read_trust_domains(r, &fields, Field::TrustDomains.names()),
        addresses(r, &fields, Field::IpBlocks.names(), AddressOf::Source),
        addresses(r, &fields, Field::RemoteIpBlocks.names(), AddressOf::Remote),
        read_request_principals(r, &fields, Field::RequestPrincipals.names()),
    ];
    Some(matchers.into_iter().flatten().collect())
}

pub(super) fn read_principals(r: &mut Reader, fields: &Object<'_, '_>, names: Names) -> Option<Matcher> {
    values(r, fields, names, |r, n, at, _| read_principal(r, n, at)).map(Matcher::Principals)
}

pub(super) fn read_request_principals(r: &mut Reader, fields: &Object<'_, '_>, names: Names) -> Option<Matcher> {
    values(r, fields, names, |r, n, at, _| {
        let value = r.string(n, at)?;
        if !value.contains(['/', '*']) {
            let message = format!("`{value}` has no subject, and every token has one");
            r.report(at, Code::NeverMatches, message, "use `<issuer>/<subject>`, a `*` at one end, or `*`");
            return None;
        }
        Some(RequestPrincipal::new(&value))
    })
    .map(Matcher::RequestPrincipals)
}

pub(super) fn read_namespaces(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    names: Names,
    home: &Home<'_>,
    scopes: Scopes,
) -> Option<Matcher> {
    values(r, fields, names, |r, n, at, negated| {
        pattern_contains(r, at, home.pattern.has_namespace(), "{namespace}")?;
        Some(Namespace { name: Glob::new(&r.string(n, at)?), scope: scopes.pick(negated) })
    })
    .map(Matcher::Namespaces)
}

pub(super) fn read_service_accounts(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    names: Names,
    home: &Home<'_>,
    scopes: Scopes,
) -> Option<Matcher> {
    let pattern = home.pattern;
    let accounts = values(r, fields, names, |r, n, at, negated| {
        pattern_contains(r, at, pattern.has_namespace() && pattern.has_service_account(), "{serviceAccount}")?;
        read_service_account(r, n, at, home.namespace, scopes.pick(negated))
    })?;
    if accounts.any_of.len().max(accounts.none_of.len()) > MAX_SERVICE_ACCOUNTS {
        let message = format!("expected at most {MAX_SERVICE_ACCOUNTS} service accounts in a list");
        r.report(fields.place(), Code::InvalidValue, message, "split the list into several sources");
    }
    Some(Matcher::ServiceAccounts(accounts))
}

pub(super) fn read_trust_domains(r: &mut Reader, fields: &Object<'_, '_>, names: Names) -> Option<Matcher> {
    values(r, fields, names, |r, n, at, _| read_trust_domain(r, n, at)).map(Matcher::TrustDomains)
}

/// Rejects a field that matches a part of the SPIFFE ID which the pattern does not contain. In a DENY policy, such a field would
/// protect nothing.
fn pattern_contains(r: &mut Reader, at: &Pointer<'_>, contains: bool, part: &str) -> Option<()> {
    if !contains {
        let message = format!("`identity.pattern` does not contain `{part}`");
        r.report(at, Code::NeverMatches, message, "use `principals` or `trustDomains`, or change the pattern");
    }
    contains.then_some(())
}

/// The next step for a principal that is probably the name of a service account.
const NO_PATH: &str = "use `<trust domain>/ns/<namespace>/sa/<service account>`, or `serviceAccounts`";

fn read_principal(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Text> {
    let value = r.string(node, at)?;
    let text = Text::new(&value);
    let help = "use `<trust domain>/<path>`, `prefix*`, `*suffix`, or `*`, without `spiffe://`";
    if value.contains("spiffe://") {
        r.report(at, Code::NeverMatches, format!("`{value}` contains `spiffe://`"), help);
        return None;
    }
    if !text.literal().bytes().all(|byte| byte == b'/' || is_segment_byte(byte)) {
        r.report(at, Code::NeverMatches, format!("`{value}` contains a character that no SPIFFE ID contains"), help);
        return None;
    }
    if let Text::Exact(principal) = &text {
        let id = format!("spiffe://{principal}");
        if let Err(error) = SpiffeId::parse_workload(id.as_bytes()) {
            let message = format!("`{id}` is not the SPIFFE ID of a workload: {error}");
            let help = if value.contains('/') { help } else { NO_PATH };
            r.report(at, Code::NeverMatches, message, help);
            return None;
        }
    }
    Some(text)
}

fn read_service_account(
    r: &mut Reader,
    node: &Node,
    at: &Pointer<'_>,
    home: Option<&str>,
    scope: Scope,
) -> Option<ServiceAccount> {
    let value = r.string(node, at)?;
    let help = "use `<namespace>/<service account>`, or set the `namespace` of the policy; wildcards are not supported";
    let (namespace, name) = match (value.split_once('/'), home) {
        (Some(parts), _) => parts,
        (None, Some(home)) => (home, &*value),
        (None, None) => {
            r.report(
                at,
                Code::InvalidValue,
                format!("`{value}` does not contain a namespace, and the policy does not set one"),
                help,
            );
            return None;
        }
    };
    if [namespace, name].iter().any(|part| part.is_empty() || !part.bytes().all(is_segment_byte)) {
        r.report(at, Code::InvalidValue, format!("`{value}` is not a service account"), help);
        return None;
    }
    Some(ServiceAccount { namespace: namespace.into(), name: name.into(), scope })
}

fn read_trust_domain(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Text> {
    let value = r.string(node, at)?;
    let text = Text::new(&value);
    if text != Text::Present
        && let Err(error) = TrustDomain::parse(text.literal().as_bytes())
    {
        let help = "use the name of a trust domain, `prefix*`, `*suffix`, or `*`";
        r.report(at, Code::InvalidValue, format!("`{value}`: {error}"), help);
        return None;
    }
    Some(text)
}
