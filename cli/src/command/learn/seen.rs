//! The allowed requests in logs, without repetition, and the number of the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::rc::Rc;

use spiffe_authz::case::ExpectedVerdict;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::host::RequestAttributes as _;
use spiffe_authz::identity::{Identity, IdentityReason, IdentitySettings};
use spiffe_authz::policy::Layer;
use spiffe_authz::spiffe_id::SpiffeId;

use crate::logged_request::Logged;
use crate::printable::is_hostile;

/// The maximum number of distinct requests.
const MAX_REQUESTS: usize = if cfg!(test) { 1_000 } else { 1_000_000 };
/// The maximum size of their strings in bytes.
const MAX_TEXT: usize = 256 << 20;
/// The maximum length of a path or host in bytes.
const MAX_VALUE_BYTES: usize = 4096;
/// The maximum number of trust domains that are counted by name.
const MAX_TRUST_DOMAINS: usize = 100;

/// A request that was allowed. An attribute that the policies do not use is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Seen<'s> {
    /// The SPIFFE ID without `spiffe://`.
    pub(super) caller: &'s str,
    /// Empty for a connection, as is the path.
    pub(super) method: &'s str,
    /// The path without its query.
    pub(super) path: &'s str,
    pub(super) host: Option<&'s str>,
    pub(super) port: Option<u16>,
}

/// The reason why a request is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum NotUsed {
    Denied,
    DeniedInShadow,
    AlsoDenied,
    NoIdentity,
    TrustDomain,
    NotAccepted,
    OtherLayer,
    Incomplete,
    NotExact,
    NotNormalized,
    TooLong,
}

impl NotUsed {
    /// The stable name.
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::DeniedInShadow => "denied-in-shadow",
            Self::AlsoDenied => "also-denied",
            Self::NoIdentity => "no-identity",
            Self::TrustDomain => "trust-domain",
            Self::NotAccepted => "identity-not-accepted",
            Self::OtherLayer => "other-layer",
            Self::Incomplete => "incomplete",
            Self::NotExact => "not-exact",
            Self::NotNormalized => "not-normalized",
            Self::TooLong => "too-long",
        }
    }

    /// The meaning, which follows a number of requests.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::DeniedInShadow => "denied by shadow policies",
            Self::AlsoDenied => "allowed and, at another time or with other attributes, denied",
            Self::NoIdentity => "of callers without an identity",
            Self::TrustDomain => "of trust domains that are neither local nor federated",
            Self::NotAccepted => "of callers whose identity is not accepted",
            Self::OtherLayer => "on the other layer (use `--layer`)",
            Self::Incomplete => "with an attribute that the log lacks or cuts",
            Self::NotExact => "with a value that no policy can name exactly",
            Self::NotNormalized => "with a path that is not normalized",
            Self::TooLong => "with a path or host of more than 4096 bytes",
        }
    }
}

/// The attributes that rules use, in addition to the method and the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) layer: Layer,
    pub(super) hosts: bool,
    pub(super) ports: bool,
}

/// Strings without repetition, by their number.
#[derive(Default)]
struct Texts {
    numbers: HashMap<Rc<str>, u32>,
    texts: Vec<Rc<str>>,
    bytes: usize,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Rc<str> = text.into();
        self.bytes += text.len();
        self.texts.push(Rc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    fn get(&self, number: u32) -> &str {
        usize::try_from(number).ok().and_then(|index| self.texts.get(index)).map_or("", |text| text)
    }
}

/// The numbers of the strings of a request.
#[derive(PartialEq, Eq, Hash)]
struct Numbers {
    caller: u32,
    method: u32,
    path: u32,
    host: Option<u32>,
    port: Option<u16>,
}

/// The requests of all logs.
pub(super) struct Observed<'i> {
    settings: &'i IdentitySettings,
    used: Used,
    texts: Texts,
    /// The allowed requests with the number of their lines.
    allowed: HashMap<Numbers, u64>,
    /// The requests of accepted callers that policies denied.
    denied: HashSet<Numbers>,
    not_used: BTreeMap<NotUsed, u64>,
    /// The requests of each trust domain that is not accepted.
    pub(super) trust_domains: BTreeMap<String, u64>,
}

impl<'i> Observed<'i> {
    pub(super) fn new(settings: &'i IdentitySettings, used: Used) -> Self {
        Self {
            settings,
            used,
            texts: Texts::default(),
            allowed: HashMap::new(),
            denied: HashSet::new(),
            not_used: BTreeMap::new(),
            trust_domains: BTreeMap::new(),
        }
    }

    /// Adds a request, or counts it as not used.
    ///
    /// # Errors
    /// Returns an error if there are too many distinct requests.
    pub(super) fn add(&mut self, logged: &Logged) -> io::Result<()> {
        let denied = match (logged.verdict, logged.is_denied_in_shadow) {
            _ if logged.layer != self.used.layer => Some(NotUsed::OtherLayer),
            (ExpectedVerdict::Deny, _) => Some(NotUsed::Denied),
            (ExpectedVerdict::Allow, true) => Some(NotUsed::DeniedInShadow),
            (ExpectedVerdict::Allow, false) => None,
        };
        if let Some(reason) = denied {
            *self.not_used.entry(reason).or_default() += 1;
            // The policies must not allow what policies denied.
            let is_by_policy = matches!(logged.reason, Some(DenyReason::DeniedByPolicy | DenyReason::NoPolicyAllows));
            if reason == NotUsed::Denied && is_by_policy {
                let denied = self.read(logged).ok();
                self.denied.extend(denied);
            }
        } else {
            match self.read(logged) {
                Ok(numbers) => *self.allowed.entry(numbers).or_default() += 1,
                Err(reason) => *self.not_used.entry(reason).or_default() += 1,
            }
        }
        if self.allowed.len() + self.denied.len() > MAX_REQUESTS || self.texts.bytes > MAX_TEXT {
            return Err(io::Error::other(format!(
                "more than {MAX_REQUESTS} distinct requests, or {} MiB of strings in them (use fewer logs)",
                MAX_TEXT >> 20
            )));
        }
        Ok(())
    }

    fn read(&mut self, logged: &Logged) -> Result<Numbers, NotUsed> {
        let peer = match logged.request.identity_of_caller(self.settings) {
            Identity::Peer(peer) => peer,
            Identity::Anonymous => return Err(NotUsed::NoIdentity),
            Identity::Rejected(IdentityReason::NoPeerCertificate) => return Err(NotUsed::NoIdentity),
            Identity::Rejected(IdentityReason::ForeignTrustDomain) => {
                self.count_trust_domain(logged.request.peer.as_deref().unwrap_or_default());
                return Err(NotUsed::TrustDomain);
            }
            Identity::Rejected(_) => return Err(NotUsed::NotAccepted),
        };
        let exact =
            |value: Result<Option<&'_ str>, _>| value.ok().flatten().map(str::to_owned).ok_or(NotUsed::Incomplete);
        let (mut method, mut path) = (String::new(), String::new());
        if self.used.layer == Layer::Http {
            method = exact(logged.method())?;
            path = exact(logged.path())?;
            path.truncate(path.find(['?', '#']).unwrap_or(path.len()));
            check_method(&method)?;
            check_path(&path)?;
        }
        let host = match self.used.hosts {
            true => Some(checked_host(&exact(logged.authority())?)?),
            false => None,
        };
        let port = match self.used.ports {
            true => Some(logged.request.port.filter(|port| *port > 0).ok_or(NotUsed::Incomplete)?),
            false => None,
        };
        let texts = &mut self.texts;
        Ok(Numbers {
            caller: texts.number(peer.principal()),
            method: texts.number(&method),
            path: texts.number(&path),
            host: host.map(|host| texts.number(&host)),
            port,
        })
    }

    fn count_trust_domain(&mut self, peer: &str) {
        let Ok(id) = SpiffeId::parse(peer.as_bytes()) else { return };
        let name = id.trust_domain().as_str();
        if self.trust_domains.len() < MAX_TRUST_DOMAINS || self.trust_domains.contains_key(name) {
            *self.trust_domains.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// Returns the distinct requests that are used, in ascending order. A request that was also denied is not used: the verdict
    /// depended on an attribute that the policies would not use.
    pub(super) fn requests(&self) -> Vec<Seen<'_>> {
        self.sorted(self.allowed.keys().filter(|numbers| !self.denied.contains(*numbers)))
    }

    /// Returns the distinct requests that the policies must deny, in ascending order.
    pub(super) fn denied(&self) -> Vec<Seen<'_>> {
        self.sorted(self.denied.iter())
    }

    fn sorted<'s>(&'s self, numbers: impl Iterator<Item = &'s Numbers>) -> Vec<Seen<'s>> {
        let seen = numbers.map(|Numbers { caller, method, path, host, port }| Seen {
            caller: self.texts.get(*caller),
            method: self.texts.get(*method),
            path: self.texts.get(*path),
            host: host.map(|host| self.texts.get(host)),
            port: *port,
        });
        let mut seen: Vec<Seen<'_>> = seen.collect();
        seen.sort_unstable();
        seen
    }

    /// Returns the number of requests that are used, with repetition.
    pub(super) fn count(&self) -> u64 {
        self.allowed.iter().filter(|(numbers, _)| !self.denied.contains(*numbers)).map(|(_, count)| count).sum()
    }

    /// Returns the number of requests that are not used, with repetition, by reason.
    pub(super) fn not_used(&self) -> BTreeMap<NotUsed, u64> {
        let mut not_used = self.not_used.clone();
        let also = self.allowed.iter().filter(|(numbers, _)| self.denied.contains(*numbers)).map(|(_, count)| count);
        match also.sum() {
            0 => {}
            count => drop(not_used.insert(NotUsed::AlsoDenied, count)),
        }
        not_used
    }
}

/// Checks that `methods` can name this method exactly: a token (RFC 9110 section 9.1) without a wildcard.
fn check_method(method: &str) -> Result<(), NotUsed> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_exact = !method.is_empty() && method.bytes().all(is_token) && !has_wildcard(method);
    if is_exact { Ok(()) } else { Err(NotUsed::NotExact) }
}

/// Checks that `paths` can name this path exactly, and that Envoy has normalized it.
fn check_path(path: &str) -> Result<(), NotUsed> {
    if path.len() > MAX_VALUE_BYTES {
        return Err(NotUsed::TooLong);
    }
    // With `;`, a path has several readings, and an exact value matches one of them only.
    let is_exact = path.starts_with('/') && !has_wildcard(path) && !path.contains(['{', '}', ';']) && is_plain(path);
    if !is_exact {
        return Err(NotUsed::NotExact);
    }
    let lower = path.to_ascii_lowercase();
    let is_normalized = !path.contains("//")
        && !path.contains('\\')
        && !["%2f", "%5c", "%2e"].iter().any(|encoded| lower.contains(encoded))
        && !path.split('/').any(|segment| matches!(segment, "." | ".."));
    if is_normalized { Ok(()) } else { Err(NotUsed::NotNormalized) }
}

/// Returns the host in lower case if `hosts` can name it exactly.
fn checked_host(host: &str) -> Result<String, NotUsed> {
    if host.len() > MAX_VALUE_BYTES {
        return Err(NotUsed::TooLong);
    }
    let host = host.to_ascii_lowercase();
    let has_readings = host.contains('@') || host.ends_with('.') || host.contains(".:");
    let is_exact = !host.is_empty() && !has_wildcard(&host) && !has_readings && is_plain(&host);
    if is_exact { Ok(host) } else { Err(NotUsed::NotExact) }
}

/// Returns `true` if a value begins or ends with `*`.
fn has_wildcard(value: &str) -> bool {
    value.starts_with('*') || value.ends_with('*')
}

/// Returns `true` if a value has neither spaces nor characters that change how others are shown.
fn is_plain(value: &str) -> bool {
    !value.contains(|character: char| character.is_whitespace() || is_hostile(character))
}

#[cfg(test)]
mod tests {
    use std::{fs, slice};

    use spiffe_authz::policy::{Layer, PolicySet};

    use super::{MAX_REQUESTS, NotUsed, Observed, Used, check_method, check_path, checked_host};
    use crate::logged_request;

    /// Each request counts once, and denied ones count, too.
    #[test]
    fn the_number_of_distinct_requests_is_limited() {
        let policies = PolicySet::from_json(br#"{"trustDomain": "example.org", "policies": []}"#).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let read = |count: usize| {
            let line = |number: usize| {
                let decision = if number.is_multiple_of(2) { "allow" } else { "deny no-policy-allows" };
                let peer = "spiffe://example.org/ns/a/sa/b";
                format!(
                    r#"{{"peer":"{peer}","method":"GET","path":"/{}","decision":"{decision}"}}"#,
                    number / 4 * 2 + number % 2
                )
            };
            fs::write(&log, (0..2 * count).map(line).collect::<Vec<_>>().join("\n")).unwrap();
            let used = Used { layer: Layer::Http, hosts: false, ports: false };
            let mut observed = Observed::new(policies.identity(), used);
            let (counts, _) = logged_request::read_all(slice::from_ref(&log), |_, _, logged| observed.add(&logged))
                .map_err(|error| error.to_string())?;
            assert_eq!(counts.requests, u64::try_from(2 * count).unwrap());
            Ok::<_, String>(observed.requests().len() + observed.denied().len())
        };
        assert_eq!(read(MAX_REQUESTS), Ok(MAX_REQUESTS));
        let error = read(MAX_REQUESTS + 1).unwrap_err();
        assert!(error.starts_with("more than 1000 distinct requests, "), "{error}");
    }

    #[test]
    fn only_values_that_a_policy_names_exactly_are_used() {
        use NotUsed::{NotExact, NotNormalized, TooLong};
        for path in ["/", "/a", "/a/", "/a*b/c", "/a:b@c,d", "/%20", "/é", "/a.b/..c", "/<x>"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for (path, reason) in [
            ("", NotExact),
            ("*", NotExact),
            ("a", NotExact),
            ("/a*", NotExact),
            ("/{*}", NotExact),
            ("/a{b", NotExact),
            ("/a}", NotExact),
            ("/a;b=c", NotExact),
            ("/a b", NotExact),
            ("/a\u{1b}[31m", NotExact),
            ("/\u{202e}", NotExact),
            ("/a//b", NotNormalized),
            ("/a/../b", NotNormalized),
            ("/.", NotNormalized),
            ("/a%2Fb", NotNormalized),
            ("/%2e%2e/b", NotNormalized),
            ("/a\\b", NotNormalized),
            (&*format!("/{}", "a".repeat(4096)), TooLong),
        ] {
            assert_eq!(check_path(path), Err(reason), "{path}");
        }
        for (method, is_used) in
            [("GET", true), ("M-SEARCH", true), ("", false), ("G*", false), ("*", false), ("G T", false)]
        {
            assert_eq!(check_method(method).is_ok(), is_used, "{method}");
        }
        assert_eq!(checked_host("A.example:80"), Ok("a.example:80".to_owned()));
        for host in ["", "*", "*.example", "a.*", "a.", "a.:80", "x@a", "a b"] {
            assert_eq!(checked_host(host), Err(NotExact), "{host}");
        }
    }
}
