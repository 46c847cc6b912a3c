//! The client side: the TLS settings of clusters that present an SVID.

use super::{Context, Facts, identity, trust};
use crate::command::doctor::secret_requests::Upstream;
use crate::envoy::matchers::Matchers;
use crate::envoy::validator::{Bundles, Validator};
use crate::examine::Usage;
use crate::examine::validation::{check_exceptions, check_validator};
use crate::finding::FindingCode;
use crate::report::{Place, Report};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for Upstream { tls, clusters } in &facts.requests.upstreams {
        let places: Vec<Place> = clusters.iter().map(|(place, _)| place.clone()).collect();
        let context = Context { tls, places: &places };
        if identity::presents_svid(context, facts.envoy) {
            identity::check(context, None, facts, report);
            check_server(context, clusters, facts, report);
        }
    }
}

/// Checks the validation of the server's certificate.
fn check_server(context: Context<'_>, clusters: &[(Place, Matchers)], facts: &Facts<'_>, report: &mut Report) {
    let validation = match trust::validation(context, facts.envoy) {
        trust::Found::Here(validation) => validation,
        trust::Found::Unknown => return,
        trust::Found::Nowhere => {
            report.find_each(FindingCode::ServerNotValidated, context.places, "the cluster has no validation context");
            return;
        }
    };
    check_exceptions(&validation, context.places, report);
    if !trust::has_arrived(context, facts.envoy) {
        return;
    }
    let validator = validation.validator(facts.envoy);
    let places = trust::secret_places(context);
    check_validator(&validator, Usage { places: &places, stale: trust::stale(context, facts) }, facts.envoy, report);
    if let Validator::None = validator {
        let message = "the validation context does not name an authority";
        report.find_each(FindingCode::ServerNotValidated, context.places, message);
        return;
    }
    for (place, matchers) in clusters {
        check_matchers(place, matchers, &validator, report);
    }
}

fn check_matchers(place: &Place, matchers: &Matchers, validator: &Validator, report: &mut Report) {
    if matchers.is_empty() {
        report.find(FindingCode::ServerUnchecked, place, "the cluster has no matchers for subject alternative names");
        return;
    }
    let Validator::Spiffe(bundles) = validator else { return };
    if matchers.exclude_spiffe_ids() {
        let message = "no matcher for subject alternative names allows a SPIFFE ID";
        report.find(FindingCode::ServerNameFiltered, place, message);
        return;
    }
    let (Bundles::Here(bundles), Some(named)) = (bundles, matchers.trust_domains()) else { return };
    for domain in named {
        if !bundles.iter().any(|bundle| bundle.trust_domain == domain) {
            let message = format!("Envoy has no bundle of `{domain}`, the trust domain in the cluster's matchers");
            report.find(FindingCode::BundleMissing, place, message);
        }
    }
}
