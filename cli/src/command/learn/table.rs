//! A test table with seen requests, which are allowed, and similar ones, which are denied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use spiffe_authz::case::{CaseRequest, Lines};
use spiffe_authz::decision::Verdict;
use spiffe_authz::identity::IdentitySource;
use spiffe_authz::policy::{Layer, PolicySet};
use spiffe_authz::timestamp::Timestamp;

use super::policies::Policy;
use super::seen::Seen;
use crate::decision::request_json;
use crate::input;
use crate::located::written::{list, object, text};
use crate::located::{Located, parse_all};

/// The maximum number of cases with seen requests of one policy.
const MAX_SEEN: usize = 20;
/// The maximum number of cases.
const MAX_CASES: usize = 2000;
/// The methods of which a denied request has one.
const METHODS: [&str; 5] = ["DELETE", "PUT", "POST", "PATCH", "GET"];
/// The end of names that nobody was seen with.
const UNSEEN: &str = "-unseen";

/// A case of a table.
pub(super) struct TableCase {
    pub(super) name: String,
    pub(super) request: CaseRequest,
    pub(super) is_allowed: bool,
}

/// Returns the request of a caller, as the filter with these policies gets it.
pub(super) fn request(seen: &Seen<'_>, policies: &PolicySet) -> CaseRequest {
    let id = format!("spiffe://{}", seen.caller);
    let base = CaseRequest {
        method: seen.method.to_owned(),
        path: seen.path.to_owned(),
        host: seen.host.map(str::to_owned),
        port: seen.port,
        ..CaseRequest::default()
    };
    match &policies.identity().source {
        IdentitySource::Xfcc { trusted_proxies, .. } => CaseRequest {
            peer: trusted_proxies.first().map(ToString::to_string),
            headers: BTreeMap::from([("x-forwarded-client-cert".to_owned(), Lines::One(format!("URI={id}")))]),
            ..base
        },
        IdentitySource::Tls { .. } | IdentitySource::PeerPrincipal => CaseRequest { peer: Some(id), ..base },
    }
}

/// Returns the cases, each with the verdict that the policies give.
///
/// # Errors
/// Returns an error if a verdict is not the expected one.
pub(super) fn cases(
    learned: &[Policy<'_>],
    requests: &[Seen<'_>],
    policies: &PolicySet,
    layer: Layer,
    now: Timestamp,
) -> io::Result<Vec<TableCase>> {
    let mut of_callers: BTreeMap<&str, &[Seen<'_>]> = BTreeMap::new();
    for part in requests.chunk_by(|one, other| one.caller == other.caller) {
        of_callers.extend(part.first().map(|first| (first.caller, part)));
    }
    let mut cases = Vec::new();
    for policy in learned {
        let own: Vec<&[Seen<'_>]> =
            policy.callers.iter().filter_map(|caller| of_callers.get(caller).copied()).collect();
        let each = (MAX_SEEN / own.len().max(1)).max(1);
        let shown = own.iter().flat_map(|requests| spread(requests, each)).take(MAX_SEEN);
        for seen in shown {
            add(&mut cases, seen, true, policies, layer, now)?;
        }
        let Some(first) = own.first().and_then(|requests| requests.first()) else { continue };
        for (caller, method, path, port) in
            neighbors(first, own.first().copied().unwrap_or_default(), &of_callers, layer)
        {
            let neighbor = Seen { caller: &caller, method: &method, path: &path, port, ..*first };
            add(&mut cases, &neighbor, false, policies, layer, now)?;
        }
        if cases.len() >= MAX_CASES {
            break;
        }
    }
    Ok(cases)
}

/// Returns some of the items, from the whole list.
fn spread<T>(items: &[T], count: usize) -> impl Iterator<Item = &T> {
    items.iter().step_by(items.len().div_ceil(count.max(1)).max(1))
}

/// The caller, method, path and port of a request.
type Neighbor = (String, String, String, Option<u16>);

/// Returns requests that differ from a seen one in one attribute, and that no caller was seen with.
fn neighbors(
    seen: &Seen<'_>,
    own: &[Seen<'_>],
    of_callers: &BTreeMap<&str, &[Seen<'_>]>,
    layer: Layer,
) -> Vec<Neighbor> {
    let owned = str::to_owned;
    let mut neighbors = Vec::new();
    let unseen = (1..).map(|number| format!("{}{}", seen.caller, UNSEEN.repeat(number)));
    let unseen = unseen.into_iter().find(|caller| !of_callers.contains_key(&**caller));
    neighbors.extend(unseen.map(|caller| (caller, owned(seen.method), owned(seen.path), seen.port)));
    if layer == Layer::Tcp {
        let ports: BTreeSet<u16> = own.iter().filter_map(|own| own.port).collect();
        let port = (1..=u16::MAX).find(|port| !ports.contains(port));
        neighbors.push((owned(seen.caller), String::new(), String::new(), port));
        return neighbors;
    }
    let methods: BTreeSet<&str> = own.iter().map(|own| own.method).collect();
    let method = METHODS.into_iter().find(|method| !methods.contains(method));
    neighbors.extend(method.map(|method| (owned(seen.caller), owned(method), owned(seen.path), seen.port)));
    // No template matches so many segments.
    let depth = own.iter().map(|own| own.path.split('/').count()).max().unwrap_or_default();
    let path = format!("{}{}", seen.path.trim_end_matches('/'), "/unseen".repeat(depth));
    neighbors.push((owned(seen.caller), owned(seen.method), path, seen.port));
    neighbors
}

fn add(
    cases: &mut Vec<TableCase>,
    seen: &Seen<'_>,
    is_allowed: bool,
    policies: &PolicySet,
    layer: Layer,
    now: Timestamp,
) -> io::Result<()> {
    let request = request(seen, policies);
    let verdict = request.decide(policies, now).decision.verdict;
    if (verdict == Verdict::Allow) != is_allowed {
        let request = request_json(&request, layer);
        return Err(super::bug(&format!("the policies give the verdict `{}` on {request}", verdict.slug())));
    }
    let what = match (layer, seen.port) {
        (Layer::Http, _) => format!("{} {}", seen.method, seen.path),
        (Layer::Tcp, port) => format!("port {}", port.unwrap_or_default()),
    };
    let does = if is_allowed { "may" } else { "may not" };
    let name = format!("{}: {} {does} {what}", cases.len() + 1, seen.caller);
    cases.push(TableCase { name, request, is_allowed });
    Ok(())
}

/// Returns the name of a file relative to the directory of another one.
///
/// # Errors
/// Returns an error if the directory of one of the files cannot be found.
pub(super) fn relative(file: &Path, from: &Path) -> io::Result<String> {
    let directory = |file: &Path| {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::canonicalize(parent).map_err(|error| input::named(file, &error))
    };
    let (target, start) = (directory(file)?, directory(from)?);
    let common = target.components().zip(start.components()).take_while(|(one, other)| one == other).count();
    let up = start.components().skip(common).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(target.components().skip(common)).collect();
    Ok(path.join(file.file_name().unwrap_or_default()).display().to_string())
}

/// Returns the table with these cases for the document in the file `policy`.
///
/// # Errors
/// Returns an error if a request has no form in JSON.
pub(super) fn to_located(cases: &[TableCase], policy: &str, layer: Layer) -> io::Result<Located> {
    let cases = cases.iter().map(|TableCase { name, request, is_allowed }| {
        let verdict = if *is_allowed { "allow" } else { "deny" };
        let request = request_json(request, layer).to_string();
        let request = parse_all(&request).map_err(|error| io::Error::other(error.message))?.pop();
        Ok(object([
            ("name", text(name.clone())),
            ("request", request.unwrap_or_else(|| object([]))),
            ("expect", object([("verdict", text(verdict))])),
        ]))
    });
    let cases = cases.collect::<io::Result<Vec<_>>>()?;
    let layer = (layer == Layer::Tcp).then(|| ("layer", text("tcp")));
    Ok(object([("policy", text(policy))].into_iter().chain(layer).chain([("cases", list(cases))])))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{relative, spread};

    #[test]
    fn the_document_is_named_from_the_table() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["a/b", "c"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for (file, from, expected) in [
            ("p.yaml", "t.yaml", "p.yaml"),
            ("a/p.yaml", "t.yaml", "a/p.yaml"),
            ("p.yaml", "a/b/t.yaml", "../../p.yaml"),
            ("a/p.yaml", "c/t.yaml", "../a/p.yaml"),
        ] {
            assert_eq!(relative(&root.join(file), &root.join(from)).unwrap(), expected);
        }
    }

    #[test]
    fn items_are_from_the_whole_list() {
        let items: Vec<u32> = (0..10).collect();
        for (count, expected) in [(3, &[0, 4, 8][..]), (10, &items), (20, &items), (1, &[0])] {
            assert_eq!(spread(&items, count).copied().collect::<Vec<_>>(), expected);
        }
    }
}
