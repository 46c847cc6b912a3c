//! The authorities that Envoy trusts.

use spiffe_authz::identity::{IdentitySettings, IdentitySource, TrustDomains};

use super::{Context, Facts};
use crate::command::doctor::secret_requests::Role;
use crate::document::Document;
use crate::envoy::config_dump::Section;
use crate::envoy::message::ValidationContext;
use crate::envoy::snapshot::Envoy;
use crate::envoy::validator::{Bundle, Bundles, Validator};
use crate::examine::Usage;
use crate::examine::validation::{bundle_missing, check_exceptions, check_validator};
use crate::finding::FindingCode;
use crate::report::{FindingId, Place, Report};

/// Checks the validation of callers.
pub(super) fn check(context: Context<'_>, document: Option<&Document>, facts: &Facts<'_>, report: &mut Report) {
    let envoy = facts.envoy;
    let validation = match validation(context, envoy) {
        Found::Here(validation) => validation,
        Found::Unknown => return,
        Found::Nowhere => {
            report.find_each(FindingCode::NotValidated, context.places, "the filter chain has no validation context");
            return;
        }
    };
    check_exceptions(&validation, context.places, report);
    let settings = document.map(|document| document.policy.identity());
    let matchers = validation.matchers();
    for domain in settings.into_iter().flat_map(presented).filter(|domain| !matchers.allow(domain)) {
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
        _ => check_validator(&validator, Usage { places: &places, stale: stale(context, facts) }, envoy, report),
    }
    let Some(settings) = settings else { return };
    match &validator {
        Validator::Spiffe(Bundles::Here(bundles)) => compare(bundles, settings, &places, report),
        Validator::Spiffe(_) => {}
        _ if settings.trust_domains.federated.is_open() => {
            let message = "a pattern or `validated` in `federatedTrustDomains` accepts every name, from every issuer";
            report.find_each(FindingCode::FederationOpen, &places, message);
        }
        _ => {}
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

/// Returns the finding that explains why no newer validation context arrives.
pub(super) fn stale(context: Context<'_>, facts: &Facts<'_>) -> Option<FindingId> {
    facts.stale(context.tls.validation_secret()?, Role::Bundle)
}

/// Compares the bundles with the trust domains of the document.
fn compare(bundles: &[Bundle], settings: &IdentitySettings, places: &[Place], report: &mut Report) {
    let trust_domains = &settings.trust_domains;
    let has = |domain: &str| bundles.iter().any(|bundle| bundle.trust_domain == domain);
    for domain in presented(settings).into_iter().filter(|domain| !has(domain)) {
        let whose = if *domain == *trust_domains.local { "local" } else { "federated" };
        bundle_missing(&format!("the {whose} trust domain"), domain, places, report);
    }
    for bundle in bundles.iter().filter(|bundle| !trust_domains.accepts(&bundle.trust_domain)) {
        let message = format!("the filter's document does not name `{}`", bundle.trust_domain);
        report.find_each(FindingCode::BundleUnnamed, places, message);
    }
}

/// Returns the trust domains of the certificates that are presented on the connection: with `from: xfcc`, those of trusted
/// proxies.
fn presented(settings: &IdentitySettings) -> Vec<&str> {
    let IdentitySource::Xfcc { trusted_proxies, .. } = &settings.source else {
        return trusted(&settings.trust_domains).collect();
    };
    let mut domains: Vec<&str> = trusted_proxies
        .iter()
        .map(|proxy| proxy.strip_prefix("spiffe://").unwrap_or(proxy))
        .filter_map(|principal| principal.split('/').next())
        .collect();
    domains.sort_unstable();
    domains.dedup();
    domains
}

/// Returns the local trust domain and the federated ones.
fn trusted(trust_domains: &TrustDomains) -> impl Iterator<Item = &str> {
    std::iter::once(&*trust_domains.local).chain(trust_domains.federated.names().iter().map(|domain| &**domain))
}
