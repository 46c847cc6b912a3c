//! Whether routes change what the filter decides.

use std::rc::Rc;

use spiffe_authz::policy::Mode;

use super::Way;
use crate::doctor::dump::Envoy;
use crate::doctor::filter::{Installation, Installed};
use crate::doctor::finding::{Check, Layer, Report};
use crate::doctor::route::{Override, Settings, overrides, tables};

/// Checks the routes of a connection manager. Returns the filter chain once for each document that replaces that of the
/// filter.
pub(super) fn check<'e>(way: &Way<'e>, envoy: &Envoy, report: &mut Report) -> Vec<Way<'e>> {
    let (Some(manager), Some(installed)) = (&way.manager, way.installed()) else { return Vec::new() };
    let Installed { name, carrier, failure, disabled, document: _ } = installed;
    let mut own = Vec::new();
    for Override { part, disabled: is_off, settings } in
        tables(manager, envoy).into_iter().flat_map(|table| overrides(table, name))
    {
        let place = way.http_place.route(&part);
        if is_off {
            report.find(Check::FilterDisabled, &place, format!("a route switches `{name}` off"));
        }
        match settings {
            None => {}
            Some(Err(mistakes)) => {
                for mistake in mistakes {
                    report.find(Check::ConfigurationRefused, &place, mistake);
                }
            }
            Some(Ok(Settings { mode, document })) => {
                if mode == Mode::Shadow {
                    report.find(Check::RouteShadow, &place, format!("`mode: shadow` for `{name}`"));
                }
                if let Some(document) = document {
                    let domain = &document.policy.realm().trust_domain;
                    report.fine(
                        Layer::Filter,
                        &place,
                        format!("`{name}` decides for `{domain}`, by the route's document"),
                    );
                    let (name, carrier, failure, disabled) = (name.clone(), *carrier, *failure, *disabled);
                    let installed = Installed { name, carrier, failure, disabled, document: Ok(document) };
                    let filter = Some(Rc::new(Installation::Loaded(Box::new(installed))));
                    own.push(Way { http_place: place, filter, ..way.clone() });
                }
            }
        }
    }
    own
}
