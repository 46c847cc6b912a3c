//! The settings of routes that change the decisions of the filter.

use std::rc::Rc;

use spiffe_authz::policy::Mode;

use super::Facts;
use crate::command::doctor::channel::Channel;
use crate::command::doctor::compiled::RouteSettings;
use crate::command::doctor::installation::{Installation, Installed};
use crate::command::doctor::route_overrides::{Override, overrides, table_not_here, tables};
use crate::finding::{FindingCode, FindingLayer};
use crate::report::Report;

/// Checks the routes of a connection manager. Returns the filter chain once for each document that replaces that of the
/// filter.
pub(super) fn check<'e>(channel: &Channel<'e>, facts: &Facts<'_>, report: &mut Report) -> Vec<Channel<'e>> {
    let (Some(manager), Some(installed)) = (&channel.manager, channel.installed()) else { return Vec::new() };
    let name = &installed.name;
    if let Some(table) = table_not_here(manager, facts.envoy) {
        let message = format!(
            "`config_dump` has no route table `{table}`, so it is unknown whether its routes disable `{name}` or change its decisions"
        );
        report.find(FindingCode::PagesIncomplete, &channel.http_place, message);
    }
    let mut own = Vec::new();
    for Override { part, disabled: is_off, settings } in
        tables(manager, facts.envoy).iter().flat_map(|table| overrides(table, name, facts.catalog))
    {
        let place = channel.http_place.route(&part);
        if is_off {
            report.find(FindingCode::FilterDisabled, &place, format!("a route disables `{name}`"));
        }
        match settings {
            None => {}
            Some(Err(errors)) => {
                for error in errors {
                    report.find(FindingCode::ConfigurationRefused, &place, error);
                }
            }
            Some(Ok(RouteSettings { mode, document })) => {
                if mode == Mode::Shadow {
                    report.find(
                        FindingCode::RouteShadow,
                        &place,
                        format!("the route sets `mode: shadow` for `{name}`"),
                    );
                }
                if let Some(document) = document {
                    if let Ok(document) = document.as_ref() {
                        let domain = &document.policy.identity().trust_domains.local;
                        let message = format!("`{name}` uses the route's document for `{domain}`");
                        report.fine(FindingLayer::Filter, &place, message);
                    }
                    let installed = Installed { document, ..installed.clone() };
                    let filter = Some(Rc::new(Installation::Loaded(Box::new(installed))));
                    let mut on_route = channel.clone();
                    (on_route.http_place, on_route.filter) = (place, filter);
                    own.push(on_route);
                }
            }
        }
    }
    own
}
