//! The matrix as one HTML page without external parts. Without scripts, it has plain tables.

use std::collections::BTreeSet;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::{CallerKind, Condition, Permission};

use super::workloads::Entry;
use super::{counts, operation, rule};
use crate::answer;
use crate::printable::Printable;

const STYLE: &str = include_str!("page.css");
/// Reads the tables only, and writes text only.
const SCRIPT: &str = include_str!("page.js");

/// Part of the page. Values are escaped before they are appended.
struct Html(String);

impl Html {
    /// Appends markup without values.
    fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Appends a value, for an element or an attribute in double quotes.
    fn text(&mut self, text: &str) -> &mut Self {
        for character in Printable(text).to_string().chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                character => self.0.push(character),
            }
        }
        self
    }
}

pub(super) fn write(out: &mut impl Write, entries: &[Entry], layer: Layer) -> io::Result<()> {
    let mut html = Html(String::new());
    head(&mut html);
    html.markup("<body>\n<header>\n<h1>Who can do what</h1>\n<p>").text(&counts(entries));
    html.markup(if layer == Layer::Tcp { ", TCP connections" } else { ", HTTP requests" });
    html.markup(". Written by <code>spiffe-authz matrix</code>.</p>\n</header>\n<main>\n");
    legend(&mut html);
    filters(&mut html, entries, layer);
    html.markup("<section id=\"grid\" hidden aria-label=\"Callers and workloads\"></section>\n");
    entries.iter().for_each(|entry| section(&mut html, entry, layer));
    html.markup("<p id=\"nothing\" hidden>No permission matches the filters.</p>\n</main>\n");
    html.markup("<dialog id=\"cell\" aria-labelledby=\"cell-title\"></dialog>\n<script>");
    html.markup(SCRIPT).markup("</script>\n</body>\n</html>\n");
    out.write_all(html.0.as_bytes())
}

fn head(html: &mut Html) {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    html.markup("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.markup("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; base-uri 'none'; ");
    html.markup("form-action 'none'; style-src 'sha256-").text(&hash(STYLE));
    html.markup("'; script-src 'sha256-").text(&hash(SCRIPT)).markup("'\">\n");
    html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.markup(
        "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n",
    );
    html.markup("<title>Who can do what</title>\n<style>").markup(STYLE).markup("</style>\n</head>\n");
}

fn legend(html: &mut Html) {
    html.markup("<ul class=\"legend\" aria-label=\"Marks\">");
    for (class, text, meaning) in [
        ("local", "local", "callers of the local trust domain"),
        ("alias", "alias", "callers of a former name of it"),
        ("federated", "federated", "callers of a federated trust domain"),
        ("no-identity", "no-identity", "callers without an identity"),
        ("everyone", "every caller", "every caller that is accepted"),
    ] {
        html.markup("<li>");
        badge(html, class, text);
        html.markup(" ").text(meaning).markup("</li>");
    }
    html.markup("</ul>\n");
}

fn badge(html: &mut Html, class: &str, text: &str) {
    html.markup("<span class=\"kind ").text(class).markup("\">").text(text).markup("</span>");
}

fn filters(html: &mut Html, entries: &[Entry], layer: Layer) {
    html.markup("<form id=\"filters\" hidden>\n<label class=\"wide\">Search ");
    html.markup(
        "<input id=\"search\" type=\"search\" autocomplete=\"off\" placeholder=\"caller, path, policy …\"></label>\n",
    );
    let select = |html: &mut Html, id: &'static str, title: &'static str, all: &'static str, values: Vec<String>| {
        html.markup("<label>").markup(title).markup(" <select id=\"").markup(id).markup("\"><option value=\"\">");
        html.markup(all).markup("</option>");
        for value in values {
            html.markup("<option>").text(&value).markup("</option>");
        }
        html.markup("</select></label>\n");
    };
    let distinct = |values: BTreeSet<String>| values.into_iter().collect::<Vec<_>>();
    select(html, "namespace", "Namespace", "all", distinct(entries.iter().map(namespace).collect()));
    select(html, "workload", "Workload", "all", entries.iter().map(|entry| entry.workload.name()).collect());
    let kinds = [CallerKind::Local, CallerKind::Alias, CallerKind::Federated, CallerKind::Anonymous];
    let mut kinds: Vec<String> = kinds.iter().map(|kind| kind.slug().to_owned()).collect();
    kinds.push("every caller".to_owned());
    select(html, "kind", "Trust domain", "all", kinds);
    if layer == Layer::Http {
        let permissions = entries.iter().filter_map(Entry::permissions).flatten();
        select(html, "method", "Method", "all", distinct(permissions.map(method).collect()));
    }
    html.markup(
        "<button type=\"reset\">Reset</button>\n<output id=\"shown\" aria-live=\"polite\"></output>\n</form>\n",
    );
}

fn namespace(entry: &Entry) -> String {
    let workload = &entry.workload;
    workload
        .namespace
        .clone()
        .unwrap_or_else(|| if workload.is_document { "(none)" } else { "other namespaces" }.to_owned())
}

/// Returns the methods of a permission as the filter lists them.
fn method(permission: &Permission) -> String {
    let condition = permission.requests.conditions.iter().find(|condition| condition.attribute == "method");
    condition.map_or_else(|| "any".to_owned(), |condition| answer::patterns(&condition.values))
}

fn section(html: &mut Html, entry: &Entry, layer: Layer) {
    html.markup("<section class=\"workload\" data-workload=\"").text(&entry.workload.name());
    html.markup("\" data-namespace=\"").text(&namespace(entry)).markup("\">\n<h2>");
    html.text(&entry.workload.name()).markup("</h2>\n");
    let class = if entry.is_complete() { "<p class=\"note\">" } else { "<p class=\"note warning\">" };
    for note in entry.notes() {
        html.markup(class).text(&note).markup("</p>\n");
    }
    let permissions = entry.permissions().unwrap_or_default();
    if !permissions.is_empty() {
        html.markup("<table>\n<thead><tr><th scope=\"col\">Callers</th><th scope=\"col\">Trust domain</th>");
        html.markup("<th scope=\"col\">Requests</th><th scope=\"col\">Rule</th></tr></thead>\n<tbody>\n");
        permissions.iter().for_each(|permission| row(html, permission, layer));
        html.markup("</tbody>\n</table>\n");
    }
    html.markup("</section>\n");
}

fn row(html: &mut Html, permission: &Permission, layer: Layer) {
    let callers = answer::patterns(&permission.requests.callers);
    let mut kinds: Vec<&str> = permission.kinds.iter().map(|kind| kind.slug()).collect();
    if permission.has_every_caller {
        kinds.push("every caller");
    }
    html.markup("<tr data-callers=\"").text(&callers).markup("\" data-kinds=\"").text(&kinds.join(","));
    html.markup("\" data-method=\"").text(&method(permission)).markup("\"><td><code>").text(&callers);
    html.markup("</code></td><td>");
    for kind in kinds {
        badge(html, if kind == "every caller" { "everyone" } else { kind }, kind);
        html.markup(" ");
    }
    html.markup("</td><td>");
    if permission.requests.conditions.is_empty() {
        html.text(&operation(&permission.requests, layer));
    }
    for Condition { attribute, values, is_opaque } in &permission.requests.conditions {
        html.markup("<div class=\"condition\">").text(attribute).markup(" <code>").text(&answer::patterns(values));
        html.markup(if *is_opaque { "</code> (written by another filter)</div>" } else { "</code></div>" });
    }
    html.markup("<div class=\"example\">example <code>").text(&answer::request(&permission.witness, layer));
    html.markup("</code></div></td><td><code>").text(&rule(permission)).markup("</code></td></tr>\n");
}
