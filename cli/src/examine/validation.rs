//! The validation of peers' certificates, independent of the peers.

use super::Usage;
use crate::envoy::certificate::Certificate;
use crate::envoy::message::ValidationContext;
use crate::envoy::moment::{Validity, moment};
use crate::envoy::snapshot::Envoy;
use crate::envoy::validator::{Bundle, Bundles, Validator, trust_domains};
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{Place, Report};

/// Checks settings that accept certificates without validating them.
pub(crate) fn check_exceptions(context: &ValidationContext, places: &[Place], report: &mut Report) {
    if context.trust_chain_verification == "ACCEPT_UNTRUSTED" {
        report.find_each(FindingCode::UntrustedAccepted, places, "`trust_chain_verification` is `ACCEPT_UNTRUSTED`");
    }
    if context.allow_expired_certificate {
        report.find_each(FindingCode::ExpiredAccepted, places, "`allow_expired_certificate` is set");
    }
}

/// Checks a validator with its bundles. A missing validator, and one that trusts every authority of the machine, are left
/// to the caller.
pub(crate) fn check_validator(validator: &Validator, usage: Usage<'_>, envoy: &Envoy, report: &mut Report) {
    let places = usage.places;
    match validator {
        Validator::None | Validator::System => {}
        Validator::Other(name) => {
            report.find_each(FindingCode::SpiffeValidatorMissing, places, format!("the validator is `{name}`"));
        }
        Validator::Default(authorities) => check_authorities(authorities.as_deref(), usage, envoy, report),
        Validator::Spiffe(Bundles::Elsewhere) => {
            report.fine_each(FindingLayer::Trust, places, "the SPIFFE validator is in use; its bundles are in a file");
        }
        Validator::Spiffe(Bundles::Unreadable(error)) => {
            report.find_each(FindingCode::BundleUnreadable, places, error.clone());
        }
        Validator::Spiffe(Bundles::Here(bundles)) => check_bundles(bundles, usage, envoy, report),
    }
}

/// Checks the authorities of the default validator, which belong to one trust domain at best.
fn check_authorities(authorities: Option<&[Certificate]>, usage: Usage<'_>, envoy: &Envoy, report: &mut Report) {
    let places = usage.places;
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
                    "`trusted_ca` contains {} authorities that do not all name a trust domain, so their owners are unknown",
                    several.len()
                );
                report.find_each(FindingCode::SpiffeValidatorMissing, places, message);
            }
        }
        _ => {
            report.find_each(FindingCode::SpiffeValidatorMissing, places, "the authorities are in `trusted_ca`");
        }
    }
    if let Some(authorities) = authorities {
        check_dates("`trusted_ca`", authorities, usage, envoy, report);
    }
}

fn check_bundles(bundles: &[Bundle], usage: Usage<'_>, envoy: &Envoy, report: &mut Report) {
    let places = usage.places;
    let here: Vec<&str> = bundles.iter().map(|bundle| &*bundle.trust_domain).collect();
    report.fine_each(FindingLayer::Trust, places, format!("the SPIFFE validator, with a bundle for {}", list(&here)));
    for Bundle { trust_domain, authorities } in bundles {
        let Some(authorities) = authorities else { continue };
        if authorities.is_empty() {
            let message = format!("the bundle of `{trust_domain}` contains no authority that can be read");
            report.find_each(FindingCode::BundleUnreadable, places, message);
            continue;
        }
        check_dates(&format!("`{trust_domain}`"), authorities, usage, envoy, report);
        let foreign: Vec<&str> = authorities.iter().filter_map(Certificate::trust_domain).collect();
        if foreign.len() == authorities.len() && !foreign.contains(&trust_domain.as_str()) {
            let message = format!("the authorities in the bundle of `{trust_domain}` name `{}`", foreign[0]);
            report.find_each(FindingCode::BundleForeign, places, message);
        }
    }
}

/// Checks that an authority is valid. Rotation leaves expired ones next to it, and prepares the next one.
fn check_dates(whose: &str, authorities: &[Certificate], usage: Usage<'_>, envoy: &Envoy, report: &mut Report) {
    let validity = |authority: &Certificate| envoy.taken.within(authority.not_before, authority.not_after);
    let validities: Vec<Validity> = authorities.iter().map(validity).collect();
    let can_be_valid = validities.iter().any(|validity| matches!(validity, Validity::Valid | Validity::Unknown));
    if validities.is_empty() || can_be_valid {
        return;
    }
    let places = usage.places;
    if validities.contains(&Validity::NotYet) {
        let starts = authorities.iter().filter_map(|authority| authority.not_before);
        // Those that have expired began earlier.
        let start = starts.filter(|start| *start > envoy.taken.earliest()).min().map(moment).unwrap_or_default();
        let message = format!("no authority of {whose} is valid before {start}");
        report.find_each(FindingCode::BundleNotYetGood, places, message);
    } else {
        let message = format!("every authority of {whose} has expired");
        report.follow_each(FindingCode::BundleExpired, places, message, usage.stale);
    }
}

/// Reports a trust domain without a bundle.
pub(crate) fn bundle_missing(whose: &str, trust_domain: &str, places: &[Place], report: &mut Report) {
    let message = format!("Envoy has no bundle of {whose} `{trust_domain}`");
    report.find_each(FindingCode::BundleMissing, places, message);
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
