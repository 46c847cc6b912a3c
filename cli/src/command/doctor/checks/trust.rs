//! The authorities that Envoy trusts.

use spiffe_authz::identity::TrustDomains;

use super::Context;
use crate::document::Document;
use crate::envoy::certificate::Certificate;
use crate::envoy::config_dump::Section;
use crate::envoy::message::ValidationContext;
use crate::envoy::moment::Validity;
use crate::envoy::snapshot::Envoy;
use crate::envoy::validator::{Bundle, Bundles, Validator, trust_domains};
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{Place, Report};

/// Checks the validation of callers.
pub(super) fn check(context: Context<'_>, document: Option<&Document>, envoy: &Envoy, report: &mut Report) {
    let validation = match validation(context, envoy) {
        Found::Here(validation) => validation,
        Found::Unknown => return,
        Found::Nowhere => {
            report.find_each(FindingCode::NotValidated, context.places, "there is no validation context");
            return;
        }
    };
    check_exceptions(&validation, context.places, report);
    let realm = document.map(|document| &document.policy.identity().trust_domains);
    let matchers = validation.matchers();
    for domain in realm.into_iter().flat_map(trusted).filter(|domain| !matchers.allow(domain)) {
        let message = format!("no matcher for subject alternative names allows `spiffe://{domain}/…`");
        report.find_each(FindingCode::TrustDomainFiltered, context.places, message);
    }
    if !has_arrived(context, envoy) {
        return;
    }
    let places = secret_places(context);
    let validator = validation.validator(envoy);
    match &validator {
        Validator::None => {
            report.find_each(FindingCode::NotValidated, &places, "the validation context does not name an authority");
        }
        Validator::System => {
            report.find_each(
                FindingCode::BundlesPooled,
                &places,
                "Envoy trusts every authority that the machine trusts",
            );
        }
        _ => check_validator(&validator, &places, envoy, report),
    }
    if let (Some(realm), Validator::Spiffe(Bundles::Here(bundles))) = (realm, &validator) {
        compare(bundles, realm, &places, report);
    }
}

/// A validation context.
pub(super) enum Found {
    Here(Box<ValidationContext>),
    /// The secret has not arrived, which the layer of secrets reports.
    Unknown,
    Nowhere,
}

/// Returns the validation context of TLS settings.
pub(super) fn validation(context: Context<'_>, envoy: &Envoy) -> Found {
    match context.tls.validation(envoy) {
        Some(validation) => Found::Here(Box::new(validation)),
        None if context.tls.validation_secret().is_some() => Found::Unknown,
        None => Found::Nowhere,
    }
}

/// Returns `true` if the secret with the validation context arrived, or if there is none.
pub(super) fn has_arrived(context: Context<'_>, envoy: &Envoy) -> bool {
    context.tls.validation_secret().is_none_or(|config| {
        envoy.has(Section::Secrets)
            && envoy.secret(&config.name).is_some_and(|secret| secret.validation_context.is_some())
    })
}

/// Returns the places of the validation context.
pub(super) fn secret_places(context: Context<'_>) -> Vec<Place> {
    let secret = context.tls.validation_secret();
    secret.map_or_else(|| context.places.to_vec(), |config| context.at_secret(&config.name))
}

/// Checks settings that accept certificates without validating them.
pub(super) fn check_exceptions(context: &ValidationContext, places: &[Place], report: &mut Report) {
    if context.trust_chain_verification == "ACCEPT_UNTRUSTED" {
        report.find_each(FindingCode::UntrustedAccepted, places, "`trust_chain_verification` is `ACCEPT_UNTRUSTED`");
    }
    if context.allow_expired_certificate {
        report.find_each(FindingCode::ExpiredAccepted, places, "`allow_expired_certificate` is set");
    }
}

/// Checks a validator with its bundles, independent of the peers.
pub(super) fn check_validator(validator: &Validator, places: &[Place], envoy: &Envoy, report: &mut Report) {
    match validator {
        Validator::None | Validator::System => {}
        Validator::Other(name) => {
            report.find_each(FindingCode::SpiffeValidatorMissing, places, format!("the validator is `{name}`"));
        }
        Validator::Default(authorities) => check_authorities(authorities.as_deref(), places, envoy, report),
        Validator::Spiffe(Bundles::Elsewhere) => {
            report.fine_each(FindingLayer::Trust, places, "the SPIFFE validator is in use; its bundles are in a file");
        }
        Validator::Spiffe(Bundles::Unreadable(error)) => {
            report.find_each(FindingCode::BundleUnreadable, places, error.clone());
        }
        Validator::Spiffe(Bundles::Here(bundles)) => check_bundles(bundles, places, envoy, report),
    }
}

/// Checks the authorities of the default validator, which belong to one trust domain at best.
fn check_authorities(authorities: Option<&[Certificate]>, places: &[Place], envoy: &Envoy, report: &mut Report) {
    let domains = authorities.and_then(trust_domains);
    match (domains.as_deref(), authorities) {
        (Some([only]), _) => {
            let message = format!("`trusted_ca` contains the authorities of `{only}`");
            report.find_each(FindingCode::SpiffeValidatorMissing, places, message);
        }
        (Some(several @ [_, _, ..]), _) => {
            let message = format!("`trusted_ca` contains authorities of {}", list(several));
            report.find_each(FindingCode::BundlesPooled, places, message);
        }
        (_, Some(several @ [_, _, ..])) => {
            let named: Vec<&str> = {
                let mut named: Vec<&str> = several.iter().filter_map(Certificate::trust_domain).collect();
                named.sort_unstable();
                named.dedup();
                named
            };
            if named.len() > 1 {
                let message = format!("`trusted_ca` contains authorities of {}", list(&named));
                report.find_each(FindingCode::BundlesPooled, places, message);
            } else {
                let message = format!(
                    "`trusted_ca` contains {} authorities that do not all name a trust domain, so whose they are is unknown",
                    several.len()
                );
                report.find_each(FindingCode::SpiffeValidatorMissing, places, message);
            }
        }
        _ => report.find_each(FindingCode::SpiffeValidatorMissing, places, "the authorities are in `trusted_ca`"),
    }
    if let Some(authorities) = authorities {
        check_expiry("`trusted_ca`", authorities, places, envoy, report);
    }
}

fn check_bundles(bundles: &[Bundle], places: &[Place], envoy: &Envoy, report: &mut Report) {
    let here: Vec<&str> = bundles.iter().map(|bundle| &*bundle.trust_domain).collect();
    report.fine_each(FindingLayer::Trust, places, format!("the SPIFFE validator, with a bundle for {}", list(&here)));
    for Bundle { trust_domain, authorities } in bundles {
        let Some(authorities) = authorities else { continue };
        if authorities.is_empty() {
            let message = format!("the bundle of `{trust_domain}` contains no authority that can be read");
            report.find_each(FindingCode::BundleUnreadable, places, message);
            continue;
        }
        check_expiry(&format!("`{trust_domain}`"), authorities, places, envoy, report);
        let foreign: Vec<&str> = authorities.iter().filter_map(Certificate::trust_domain).collect();
        if foreign.len() == authorities.len() && !foreign.contains(&trust_domain.as_str()) {
            let message = format!("the authorities in the bundle of `{trust_domain}` name `{}`", foreign[0]);
            report.find_each(FindingCode::BundleForeign, places, message);
        }
    }
}

/// Checks that an authority is valid. Rotation leaves expired ones next to it.
fn check_expiry(whose: &str, authorities: &[Certificate], places: &[Place], envoy: &Envoy, report: &mut Report) {
    let validities = authorities.iter().map(|authority| envoy.taken.within(None, authority.not_after));
    if !authorities.is_empty() && validities.into_iter().all(|validity| validity == Validity::Expired) {
        report.find_each(FindingCode::BundleExpired, places, format!("every authority of {whose} has expired"));
    }
}

/// Compares the bundles with the trust domains of the document.
fn compare(bundles: &[Bundle], trust_domains: &TrustDomains, places: &[Place], report: &mut Report) {
    let has = |domain: &str| bundles.iter().any(|bundle| bundle.trust_domain == domain);
    for domain in trusted(trust_domains).filter(|domain| !has(domain)) {
        let whose = if *domain == *trust_domains.local { "local" } else { "federated" };
        let message = format!("Envoy has no bundle of the {whose} trust domain `{domain}`");
        report.find_each(FindingCode::BundleMissing, places, message);
    }
    let named = |domain: &str| {
        trusted(trust_domains).chain(trust_domains.aliases.iter().map(|alias| &**alias)).any(|one| one == domain)
    };
    for bundle in bundles.iter().filter(|bundle| !named(&bundle.trust_domain)) {
        let message = format!("the filter's document does not name `{}`", bundle.trust_domain);
        report.find_each(FindingCode::BundleUnnamed, places, message);
    }
}

/// Returns the local trust domain and the federated ones.
fn trusted(trust_domains: &TrustDomains) -> impl Iterator<Item = &str> {
    std::iter::once(&*trust_domains.local).chain(trust_domains.federated.iter().map(|domain| &**domain))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
