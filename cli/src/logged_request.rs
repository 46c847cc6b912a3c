//! Requests in logs: in the JSON access log of the examples, and in the lines of the filter in Envoy's log.
//!
//! Envoy, Istio, container runtimes and log shippers add prefixes and suffixes to a line, or put it into a field of a JSON
//! object.

use std::net::IpAddr;

use serde_json::{Map, Value};
use spiffe_authz::case::{CaseRequest, ExpectedVerdict};
use spiffe_authz::host::{AddressOf, HostFailure, RequestAttributes};
use spiffe_authz::metadata::Object;

/// A request from a log, and its verdict.
pub(crate) struct Logged {
    /// The attributes that the log contains.
    pub(crate) request: CaseRequest,
    /// The verdict in the log.
    pub(crate) verdict: ExpectedVerdict,
    /// The reason of a denial.
    pub(crate) reason: Option<String>,
    fields: Map<String, Value>,
}

/// A line of a log.
pub(crate) enum Line {
    /// A request that the filter decided.
    Request(Box<Logged>),
    /// A line of Envoy or another program that logs in the same format, without a request.
    Other,
    /// A line in an unknown format, or a part of a line.
    NotUnderstood,
}

/// The numbers of lines that have no request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) other: u64,
    pub(crate) not_understood: u64,
}

/// The depth to which objects and strings in a line are searched, such as `{"log": "… {\"msg\": \"… {…}\"}"}`.
const DEPTH: usize = 4;
/// The number of braces in a line at which an object can begin.
const STARTS: usize = 16;
/// The beginning of the filter's lines in Envoy's log.
const OWN: &str = "spiffe-authz: {";
/// The levels of Envoy and Istio.
const LEVELS: [&str; 9] = ["trace", "debug", "info", "warn", "warning", "error", "critical", "fatal", "off"];

impl Line {
    /// Reads a line. Returns `None` for an empty one.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        if let Some(logged) = find(line, DEPTH) {
            return Some(Self::Request(Box::new(logged)));
        }
        let is_object = objects(line).next().is_some();
        let is_cut = !is_object && (line.contains(OWN) || line.starts_with('{'));
        Some(if !is_cut && (is_object || is_envoy(line)) { Self::Other } else { Self::NotUnderstood })
    }
}

impl Skipped {
    /// Returns the counts after the number of requests, or an empty string without such lines.
    pub(crate) fn text(self) -> String {
        let Self { other, not_understood } = self;
        let lines = |count: u64, what: &str| {
            let noun = if count == 1 { "line" } else { "lines" };
            if count == 0 { String::new() } else { format!("; {count} {noun} {what}") }
        };
        lines(other, "without a request") + &lines(not_understood, "not understood")
    }
}

/// Returns the objects in a line: those that begin at a brace, and are not part of an earlier one.
fn objects(line: &str) -> impl Iterator<Item = Map<String, Value>> {
    let mut rest = line;
    let mut starts = 0;
    std::iter::from_fn(move || {
        while let Some(start) = rest.find('{').filter(|_| starts < STARTS) {
            starts += 1;
            let from = rest.get(start..).unwrap_or_default();
            let mut values = serde_json::Deserializer::from_str(from).into_iter();
            let parsed = values.next();
            let end = if matches!(parsed, Some(Ok(_))) { values.byte_offset().max(1) } else { 1 };
            rest = from.get(end..).unwrap_or_default();
            if let Some(Ok(object)) = parsed {
                return Some(object);
            }
        }
        None
    })
}

/// Returns the request in a line.
fn find(line: &str, depth: usize) -> Option<Logged> {
    objects(line).find_map(|object| find_in(object, depth))
}

fn find_in(object: Map<String, Value>, depth: usize) -> Option<Logged> {
    let object = match Logged::of(object) {
        Ok(logged) => return Some(logged),
        Err(object) => object,
    };
    let depth = depth.checked_sub(1)?;
    object.into_iter().find_map(|(_, value)| match value {
        Value::String(text) if text.contains('{') => find(&text, depth),
        Value::Object(object) => find_in(object, depth),
        _ => None,
    })
}

/// Returns `true` for a line in the text formats of Envoy (`[<time>][<thread>][<level>]…`) and Istio
/// (`<time>\t<level>\t…`), with any prefix.
fn is_envoy(line: &str) -> bool {
    let mut words = line.split(['[', ']', '\t', ' ']).filter(|word| !word.is_empty()).take(8);
    words.any(|word| LEVELS.contains(&word)) && line.contains(|character: char| character.is_ascii_digit())
}

impl Logged {
    /// Reads an object of a log. Returns it unchanged if it does not describe a request.
    fn of(fields: Map<String, Value>) -> Result<Self, Map<String, Value>> {
        match Self::read(&fields) {
            Some((request, verdict, reason)) => Ok(Self { request, verdict, reason, fields }),
            None => Err(fields),
        }
    }

    fn read(fields: &Map<String, Value>) -> Option<(CaseRequest, ExpectedVerdict, Option<String>)> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| *text != "-").map(str::to_owned);
        let enforced = text("mode").is_none_or(|mode| mode == "enforce");
        let verdict = match (text("verdict").as_deref(), text("event").as_deref()) {
            (Some("allow"), _) | (None, Some("audit")) => ExpectedVerdict::Allow,
            (Some("deny"), _) => ExpectedVerdict::Deny,
            (None, Some("deny")) => {
                if enforced {
                    ExpectedVerdict::Deny
                } else {
                    ExpectedVerdict::Allow
                }
            }
            _ => return None,
        };
        let address = |name: &str| text(name).and_then(|text| text.parse::<IpAddr>().ok());
        let port = fields.get("port").and_then(|port| port.as_u64().or_else(|| port.as_str()?.parse().ok()));
        let request = CaseRequest {
            peer: text("peer"),
            method: text("method")?,
            path: text("path")?,
            host: text("host"),
            port: port.and_then(|port| u16::try_from(port).ok()),
            source_ip: address("source_ip"),
            remote_ip: address("remote_ip"),
            sni: text("sni"),
            ..CaseRequest::default()
        };
        Some((request, verdict, text("reason")))
    }

    fn known<T>(&self, name: &str, value: T) -> Result<T, HostFailure> {
        if self.fields.contains_key(name) { Ok(value) } else { Err(HostFailure) }
    }
}

/// An attribute that the line lacks is unknown, not absent.
impl<'a> RequestAttributes for &'a Logged {
    type Text = &'a str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(&self.request.method))
    }

    fn path(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(&self.request.path))
    }

    fn authority(&self) -> Result<Option<&'a str>, HostFailure> {
        self.known("host", self.request.host.as_deref())
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        self.known("port", self.request.port.map(u64::from))
    }

    fn headers(&self) -> Result<Self::Headers, HostFailure> {
        Err(HostFailure)
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        match of {
            AddressOf::Source => self.known("source_ip", self.request.source_ip),
            AddressOf::Remote => self.known("remote_ip", self.request.remote_ip),
            AddressOf::Destination => Err(HostFailure),
        }
    }

    fn server_name(&self) -> Result<Option<&'a str>, HostFailure> {
        self.known("sni", self.request.sni.as_deref())
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Err(HostFailure)
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    const OWN: &str =
        r#"{"event":"deny","mode":"enforce","reason":"no-policy-allows","peer":null,"method":"GET","path":"/{a}"}"#;

    fn escaped(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    #[test]
    fn requests_are_found_in_the_formats_of_other_programs() {
        let envoy = format!("[2026-02-11 09:30:01.500][21][warning][wasm] [x.cc:1] wasm log spiffe-authz: {OWN}");
        let istio =
            format!("2026-02-11T09:30:01.5Z\twarning\tenvoy wasm x.cc:1\twasm log spiffe-authz: {OWN}\tthread=21");
        let istio_json =
            format!(r#"{{"level":"warning","msg":{},"thread":"21"}}"#, escaped(&format!("spiffe-authz: {OWN}")));
        let docker = format!(r#"{{"log":{},"stream":"stderr"}}"#, escaped(&format!("{istio_json}\n")));
        for line in [
            OWN.to_owned(),
            envoy.clone(),
            istio.clone(),
            istio_json,
            docker,
            format!("[pod/web-1/istio-proxy] {envoy}"),
            format!("web-1 istio-proxy {{app=\"web\"}} {istio}"),
            format!("2026-02-11T09:30:01.5Z stdout F {OWN}"),
            format!(r#"{{"jsonPayload":{OWN},"resource":{{"labels":{{}}}}}}"#),
        ] {
            let Some(Line::Request(logged)) = Line::read(&line) else { panic!("{line}") };
            assert_eq!((&*logged.request.path, logged.reason.as_deref()), ("/{a}", Some("no-policy-allows")), "{line}");
        }
    }

    #[test]
    fn other_lines_are_told_from_damaged_ones() {
        for line in [
            "[2026-02-11 09:30:01.500][21][info][upstream] [x.cc:1] cds: add 3 cluster(s)",
            "2026-02-11T09:30:00.000001Z\tinfo\tenvoy upstream x.cc:32\tcds: add {3}\tthread=18",
            r#"{"time":"2026-02-11T09:30:00Z","level":"info","msg":"cds: add 3 cluster(s)"}"#,
            r#"{"method":"GET","path":"/","verdict":null}"#,
        ] {
            assert!(matches!(Line::read(line), Some(Line::Other)), "{line}");
        }
        for line in [
            "trustDomain: example.org",
            r#"{"method":"GET","path":"/li"#,
            "[2026-02-11 09:30:01.500][21][warning][wasm] [x.cc:1] wasm log spiffe-authz: {\"event\":\"de",
            "\u{fffd}\u{8}x",
        ] {
            assert!(matches!(Line::read(line), Some(Line::NotUnderstood)), "{line}");
        }
        assert!(Line::read(" \r").is_none());
    }
}
