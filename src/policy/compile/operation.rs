//! The fields of an `operation`.

use super::selector_object;
use super::values::{ports, texts, values};
use crate::diagnostic::Code;
use crate::policy::action::Action;
use crate::policy::compile::pointer::Pointer;
use crate::policy::compile::reader::Reader;
use crate::policy::field::{Field, Selector};
use crate::policy::node::Node;
use crate::policy::path_template::PathTemplate;
use crate::policy::rule::Matcher;
use crate::policy::values::{Path, Reading, Text};

pub(super) fn read_operation(r: &mut Reader, node: &Node, at: &Pointer<'_>, action: Action) -> Option<Box<[Matcher]>> {
    let reading = Reading::of(action);
    let fields = selector_object(r, node, at, Selector::Operation)?;
    // In the order of evaluation: the path and the method exclude most rules, and cost least to fetch.
    let paths =
        values(r, &fields, Field::Paths.names(), |r, n, at, negated| read_path(r, n, at, reading.needs_every(negated)));
    let methods = texts(r, &fields, Field::Methods.names());
    let hosts =
        values(r, &fields, Field::Hosts.names(), |r, n, at, negated| read_host(r, n, at, reading.needs_every(negated)));
    let matchers = [
        paths.map(|values| Matcher::Paths(values, reading)),
        methods.map(Matcher::Methods),
        hosts.map(|values| Matcher::Hosts(values, reading)),
        ports(r, &fields, Field::Ports.names()),
    ];
    Some(matchers.into_iter().flatten().collect())
}

/// Reads a host. With `every`, each reading of the request's host must match, and one of them has neither user information nor
/// a trailing dot.
fn read_host(r: &mut Reader, node: &Node, at: &Pointer<'_>, every: bool) -> Option<Text> {
    let text = Text::new(&r.string(node, at)?.to_ascii_lowercase());
    let host = text.literal();
    let dotted = !matches!(text, Text::Prefix(_)) && (host.ends_with('.') || host.contains(".:"));
    if every && (host.contains('@') || dotted) {
        let message =
            format!("`{host}` contains user information or a trailing dot, which one reading of the host lacks");
        r.report(at, Code::NeverMatches, message, "remove the user information and the trailing dot");
        return None;
    }
    Some(text)
}

/// Reads a path. With `every`, each reading of the request's path must match, and one of them has no path parameters.
fn read_path(r: &mut Reader, node: &Node, at: &Pointer<'_>, every: bool) -> Option<Path> {
    let value = r.string(node, at)?;
    if value.contains(['?', '#']) {
        let message = format!("`{value}` contains a query or a fragment, which is not part of the path");
        r.report(at, Code::NeverMatches, message, "remove `?` or `#` and the characters after it");
        return None;
    }
    if every && value.contains(';') {
        let message = format!("`{value}` contains path parameters, which one reading of the path lacks");
        r.report(at, Code::NeverMatches, message, "remove `;` and the parameters");
        return None;
    }
    if !PathTemplate::recognizes(&value) {
        return Some(Path::Text(Text::new(&value)));
    }
    match PathTemplate::new(&value) {
        Ok(template) => Some(Path::Template(template)),
        Err(error) => {
            let help = "use `{*}` for one segment, as in `/a/{*}/b`, or `{**}` for any number of them";
            r.report(at, Code::InvalidValue, format!("`{value}`: {error}"), help);
            None
        }
    }
}
