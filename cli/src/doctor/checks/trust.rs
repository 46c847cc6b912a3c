//! Whom Envoy believes, and by whose word.

use spiffe_authz::certificate::Described;
use spiffe_authz::peer::Realm;

use super::Way;
use crate::doctor::dump::Envoy;
use crate::doctor::finding::{Check, Layer, Place, Report};
use crate::doctor::message::{DownstreamTls, ValidationContext};
use crate::doctor::trust::{Bundle, Validator, trust_domains};

pub(super) fn check(way: &Way<'_>, tls: &DownstreamTls, envoy: &Envoy, report: &mut Report) {
    let common = &tls.common_tls_context;
    let secret = common.validation_secret();
    let place = secret.map_or_else(|| way.place.clone(), |config| way.place.secret(&config.name));
    let arrived = secret.is_none_or(|config| envoy.secret(&config.name).is_some());
    let Some(context) = common.validation(envoy) else {
        // A secret that is missing was told of already.
        if arrived {
            report.find(Check::NotValidated, &place, "there is no validation context");
        }
        return;
    };
    check_exceptions(&context, &way.place, report);
    let realm = way.document().map(|document| document.policy.realm());
    for domain in realm.into_iter().flat_map(trusted).filter(|domain| !context.lets_in(domain)) {
        let message = format!("no matcher for subject alternative names lets `spiffe://{domain}/…` pass");
        report.find(Check::TrustDomainFiltered, &way.place, message);
    }
    if arrived {
        check_validator(&context.validator(envoy), realm, &place, envoy, report);
    }
}

/// What lets certificates pass that should not.
fn check_exceptions(context: &ValidationContext, place: &Place, report: &mut Report) {
    if context.trust_chain_verification == "ACCEPT_UNTRUSTED" {
        report.find(Check::UntrustedAccepted, place, "`trust_chain_verification` is `ACCEPT_UNTRUSTED`");
    }
    if context.allow_expired_certificate {
        report.find(Check::ExpiredAccepted, place, "`allow_expired_certificate` is set");
    }
}

fn check_validator(validator: &Validator, realm: Option<&Realm>, place: &Place, envoy: &Envoy, report: &mut Report) {
    match validator {
        Validator::None => report.find(Check::NotValidated, place, "the validation context names no authority"),
        Validator::System => {
            report.find(Check::BundlesPooled, place, "every authority that the machine trusts is let in");
        }
        Validator::Other(name) => {
            report.find(Check::SpiffeValidatorMissing, place, format!("the validator is `{name}`"));
        }
        Validator::Default(authorities) => check_authorities(authorities.as_deref(), place, report),
        Validator::Spiffe(None) => {
            report.fine(Layer::Trust, place, "the SPIFFE validator, with bundles that are not in the dump");
        }
        Validator::Spiffe(Some(bundles)) => check_bundles(bundles, realm, place, envoy, report),
    }
}

/// The authorities of the default validator: of one trust domain at best.
fn check_authorities(authorities: Option<&[Described]>, place: &Place, report: &mut Report) {
    let domains = authorities.and_then(trust_domains);
    match (domains.as_deref(), authorities) {
        (Some([only]), _) => {
            let message = format!("the authorities of `{only}` stand in `trusted_ca`");
            report.find(Check::SpiffeValidatorMissing, place, message);
        }
        (Some(several @ [_, _, ..]), _) => {
            report.find(Check::BundlesPooled, place, format!("`trusted_ca` holds authorities of {}", list(several)));
        }
        (_, Some(several @ [_, _, ..])) => {
            let message =
                format!("`trusted_ca` holds {} authorities that do not all name their trust domain", several.len());
            report.find(Check::BundlesPooled, place, message);
        }
        _ => report.find(Check::SpiffeValidatorMissing, place, "the authorities stand in `trusted_ca`"),
    }
}

fn check_bundles(bundles: &[Bundle], realm: Option<&Realm>, place: &Place, envoy: &Envoy, report: &mut Report) {
    let there: Vec<&str> = bundles.iter().map(|bundle| &*bundle.trust_domain).collect();
    report.fine(Layer::Trust, place, format!("the SPIFFE validator, with a bundle for {}", list(&there)));
    for Bundle { trust_domain, authorities } in bundles {
        let expired = |authority: &Described| authority.not_after < envoy.taken;
        if authorities.as_ref().is_some_and(|all| !all.is_empty() && all.iter().all(expired)) {
            report.find(Check::BundleExpired, place, format!("every authority of `{trust_domain}` has expired"));
        }
    }
    let Some(realm) = realm else { return };
    for domain in trusted(realm).filter(|domain| !there.contains(domain)) {
        let whose = if *domain == *realm.trust_domain { "the own trust domain" } else { "the federated trust domain" };
        report.find(Check::BundleMissing, place, format!("there is no bundle of {whose} `{domain}`"));
    }
    let named =
        |domain: &str| trusted(realm).chain(realm.aliases.iter().map(|alias| &**alias)).any(|one| one == domain);
    for domain in there.into_iter().filter(|domain| !named(domain)) {
        report.find(Check::BundleUnnamed, place, format!("the filter's configuration does not name `{domain}`"));
    }
}

/// The trust domains whose workloads are let in, former names aside.
fn trusted(realm: &Realm) -> impl Iterator<Item = &str> {
    std::iter::once(&*realm.trust_domain).chain(realm.federated.iter().map(|domain| &**domain))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
