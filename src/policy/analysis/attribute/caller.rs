//! The classes of callers.

use super::super::super::rule::Matcher;
use super::super::super::values::{Namespace, Scope, ServiceAccount, Text};
use super::super::NotDecided;
use super::super::automaton::{self, Grammar};
use super::super::language::{Chars, Language};
use super::{Atoms, Class, Classes, Value};
use crate::case::CaseRequest;
use crate::identity::pattern::{Form, NAMESPACE, SERVICE_ACCOUNT, Segment};
use crate::identity::{Federated, Identity, IdentitySettings, Pattern};

/// The identity of each class of callers under the settings of a document.
#[derive(Debug)]
pub(in super::super) struct Acceptance(pub(in super::super) Vec<Identity>);

impl Acceptance {
    pub(in super::super) fn new(classes: &Classes, settings: &IdentitySettings) -> Self {
        let identity = |class: &Class| {
            let mut request = CaseRequest::default();
            class.value.apply(&super::Attribute::Caller, &mut request);
            request.identity_of_caller(settings)
        };
        Self(classes.classes.iter().map(identity).collect())
    }
}

/// Returns the classes of callers: one without an identity, and those of SPIFFE IDs. Each matcher has the number of its settings.
pub(super) fn classes(matchers: &[(usize, &Matcher)], settings: &[&IdentitySettings]) -> Result<Classes, NotDecided> {
    let mut atoms = Atoms::new();
    for (number, (of, matcher)) in matchers.iter().enumerate() {
        languages(matcher, settings[*of]).into_iter().for_each(|language| atoms.add(language, Some(number)));
    }
    for settings in settings {
        distinguished(settings).into_iter().for_each(|language| atoms.add(language, None));
    }
    let found = automaton::classes(Grammar::Principal, &atoms.atoms, "caller")?;
    let mut classes: Vec<Class> = found
        .into_iter()
        .map(|automaton::Class { text, languages }| Class { value: Value::Text(text), atoms: languages })
        .collect();
    classes.push(Class { value: Value::Absent, atoms: Box::default() });
    let displays = atoms.atoms.into_iter().map(|language| language.display).collect();
    Ok(Classes { classes, atoms: displays, uses: atoms.uses, spelled: 0, limit: None })
}

/// Returns the languages that the settings distinguish: the trust domains, the pattern, reserved paths, and revoked identities.
fn distinguished(settings: &IdentitySettings) -> Vec<Language> {
    let all = |language: Language| language.literal("/").any(Chars::All);
    let mut languages: Vec<Language> = local_names(settings).map(|name| all(Language::new().literal(name))).collect();
    if let Federated::Listed { names, suffixes } = &settings.trust_domains.federated {
        languages.extend(names.iter().map(|name| all(Language::new().literal(name))));
        languages.extend(suffixes.iter().map(|suffix| all(Language::new().some(Chars::Segment).literal(suffix))));
    }
    let revoked = &settings.revoked;
    languages.extend(revoked.trust_domains.iter().map(|name| all(Language::new().literal(name))));
    let ids = revoked.spiffe_ids.iter().filter_map(|id| id.strip_prefix("spiffe://"));
    languages.extend(ids.map(|id| Language::new().literal(id)));
    for form in forms(&settings.pattern) {
        languages.push(with_parts(Language::new().some(Chars::Segment), form, None, None));
    }
    languages.push(Language::new().some(Chars::Segment).literal("/spire"));
    languages.push(all(Language::new().some(Chars::Segment).literal("/spire")));
    languages
}

/// Returns the names of the local trust domain.
fn local_names(settings: &IdentitySettings) -> impl Iterator<Item = &str> {
    [&settings.trust_domains.local].into_iter().chain(&settings.trust_domains.aliases).map(|name| &**name)
}

/// Returns the segments of the paths from which the pattern reads a namespace and a service account.
fn forms(pattern: &Pattern) -> Vec<Vec<Segment>> {
    match &pattern.0 {
        Form::Template(segments) => vec![segments.to_vec()],
        Form::Any => forms(&Pattern::istio()),
    }
}

/// Appends a path of this form, with a namespace and a service account.
fn with_parts(
    trust_domain: Language,
    form: Vec<Segment>,
    namespace: Option<&dyn Fn(Language) -> Language>,
    service_account: Option<&str>,
) -> Language {
    form.into_iter().fold(trust_domain, |language, segment| {
        let language = language.literal("/");
        match segment {
            Segment::Literal(literal) => language.literal(&literal),
            Segment::Placeholder(name) if *name == *NAMESPACE && namespace.is_some() => {
                namespace.map_or_else(Language::new, |append| append(language))
            }
            Segment::Placeholder(name) if *name == *SERVICE_ACCOUNT && service_account.is_some() => {
                language.literal(service_account.unwrap_or_default())
            }
            Segment::Placeholder(_) => language.some(Chars::Segment),
        }
    })
}

/// Returns the beginnings of principals in the trust domains of a namespace or service account.
fn trust_domains(scope: Scope, settings: &IdentitySettings) -> Vec<Language> {
    match scope {
        Scope::Any => vec![Language::new().some(Chars::Segment)],
        Scope::Local => local_names(settings).map(|name| Language::new().literal(name)).collect(),
    }
}

/// Returns the values of a matcher of the caller.
fn languages(matcher: &Matcher, settings: &IdentitySettings) -> Vec<Language> {
    let each = |scope: Scope, complete: &dyn Fn(Language, Vec<Segment>) -> Language| {
        let starts = trust_domains(scope, settings);
        let forms = forms(&settings.pattern);
        starts
            .into_iter()
            .flat_map(|start| forms.iter().map(move |form| complete(start.clone(), form.clone())))
            .collect::<Vec<_>>()
    };
    match matcher {
        Matcher::Principals(values) => values.any_of.iter().chain(&values.none_of).map(Language::of_text).collect(),
        Matcher::TrustDomains(values) => values
            .any_of
            .iter()
            .chain(&values.none_of)
            .map(|text: &Text| Language::new().text(text, Chars::Segment).literal("/").any(Chars::All))
            .collect(),
        Matcher::Namespaces(values) => values
            .any_of
            .iter()
            .chain(&values.none_of)
            .flat_map(|Namespace { name, scope }| {
                each(*scope, &|start, form| {
                    with_parts(start, form, Some(&|language| language.glob(name, Chars::Segment)), None)
                })
            })
            .collect(),
        Matcher::ServiceAccounts(values) => values
            .any_of
            .iter()
            .chain(&values.none_of)
            .flat_map(|ServiceAccount { namespace, name, scope }| {
                each(*scope, &|start, form| {
                    with_parts(start, form, Some(&|language| language.literal(namespace)), Some(name))
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}
