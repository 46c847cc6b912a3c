//! Requests in logs: in the JSON access log of the examples, and in the lines of the filter in Envoy's log.
//!
//! Envoy, Istio, container runtimes and log shippers add prefixes and suffixes to a line, or put it into a field of a JSON
//! object.

use std::io::{self, BufRead, Read as _};
use std::net::IpAddr;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value, json};
use spiffe_authz::case::{CaseRequest, ExpectedVerdict};
use spiffe_authz::decision::DenyReason;
use spiffe_authz::host::{AddressOf, HostFailure, RequestAttributes};
use spiffe_authz::identity::IdentityReason;
use spiffe_authz::metadata::Object;
use spiffe_authz::policy::Layer;
use spiffe_authz::timestamp::Timestamp;
use spiffe_authz::worker::MAX_TEXT_BYTES;

use crate::exit;
use crate::input;
use crate::progress;

/// A request or connection from a log, and its verdict.
pub(crate) struct Logged {
    pub(crate) layer: Layer,
    /// The attributes that the log contains.
    pub(crate) request: CaseRequest,
    /// The verdict in the log.
    pub(crate) verdict: ExpectedVerdict,
    /// The reason of a denial.
    pub(crate) reason: Option<DenyReason>,
    /// Whether the request was allowed, and the shadow policies would deny it.
    pub(crate) is_denied_in_shadow: bool,
    /// The time of the line, if it has one that can be read.
    pub(crate) time: Option<Timestamp>,
    /// The number of lines that the filter dropped before this one.
    suppressed: u64,
    /// The fields of the line, without those that are not exactly an attribute.
    fields: Map<String, Value>,
}

/// A line of a log.
enum Line {
    /// A request or connection that the filter decided.
    Request(Box<Logged>),
    /// A line of Envoy or another program that logs in the same format, without a request.
    Other,
    /// A line in an unknown format, a part of a line, or a request with a field that cannot be read.
    NotUnderstood,
}

/// The numbers of requests and of other lines in a log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) other: u64,
    pub(crate) not_understood: u64,
    /// The lines that the filter dropped, because it limits them.
    pub(crate) suppressed: u64,
}

/// The times of the first and the last request in logs, and the number of requests without one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    times: Option<(Timestamp, Timestamp)>,
    undated: u64,
}

impl Period {
    /// Adds a request.
    pub(crate) fn add(&mut self, time: Option<Timestamp>) {
        match (time, &mut self.times) {
            (None, _) => self.undated += 1,
            (Some(time), None) => self.times = Some((time, time)),
            (Some(time), Some((first, last))) => (*first, *last) = ((*first).min(time), (*last).max(time)),
        }
    }

    /// Returns the period after the number of requests, or an empty string if no request has a time.
    pub(crate) fn text(self) -> String {
        let Some((first, last)) = self.times else { return String::new() };
        let undated = if self.undated == 0 { String::new() } else { format!(" ({} without a time)", self.undated) };
        format!("; from {first} to {last}{undated}")
    }

    /// Returns the period as JSON: an object, or null if no request has a time.
    pub(crate) fn as_json(self) -> Value {
        self.times
            .map_or(Value::Null, |(first, last)| json!({"first": first, "last": last, "withoutTime": self.undated}))
    }
}

/// The error of a log that is not read to its end.
pub(crate) enum Unread {
    Log(io::Error),
    /// The error of the visitor.
    Visitor(io::Error),
}

impl From<Unread> for io::Error {
    fn from((Unread::Log(error) | Unread::Visitor(error)): Unread) -> Self {
        error
    }
}

/// Reads logs, and calls `visit` with the name and the number of the line of each request. An error of a log, or a log without a
/// request, is reported and does not hide the requests of the others. Returns the counts of all logs, and whether there was an error.
///
/// # Errors
/// Returns the first error of `visit`.
pub(crate) fn read_all(
    logs: &[PathBuf],
    mut visit: impl FnMut(&Path, u64, Logged) -> io::Result<()>,
) -> io::Result<(Counts, bool)> {
    let mut counts = Counts::default();
    let mut has_error = false;
    for log in logs {
        let error = match read(log, |number, logged| visit(log, number, logged)) {
            Ok(read) => {
                counts += read;
                (read.requests == 0).then(|| no_request(log, read))
            }
            Err(Unread::Log(error)) => Some(error),
            Err(Unread::Visitor(error)) => return Err(error),
        };
        if let Some(error) = error {
            has_error = true;
            exit::report(&error);
        }
    }
    Ok((counts, has_error))
}

/// Returns the error for a log without a request, so that a check of the wrong file does not pass.
fn no_request(log: &Path, Counts { other, not_understood, .. }: Counts) -> io::Error {
    let count = other + not_understood;
    let lines = if count == 1 { "1 line".to_owned() } else { format!("{count} lines") };
    let part = match not_understood {
        0 => String::new(),
        all if all == count => ", none understood".to_owned(),
        some => format!(", {some} not understood"),
    };
    io::Error::other(format!(
        "{}: no request: {lines}{part} (expected the JSON access log of the filter, or Envoy's log with the filter's lines)",
        input::name(log)
    ))
}

/// Reads a log, which can be compressed with gzip, and calls `visit` with each request and the number of its line; `-` is
/// standard input. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// Returns an error if the log cannot be read, or the first error of `visit`.
pub(crate) fn read(log: &Path, mut visit: impl FnMut(u64, Logged) -> io::Result<()>) -> Result<Counts, Unread> {
    let mut counts = Counts::default();
    let mut reader = input::open_log(log).map_err(Unread::Log)?;
    let mut bytes = Vec::new();
    for number in 1.. {
        let line = next_line(&mut reader, &mut bytes).map_err(|error| {
            Unread::Log(io::Error::new(error.kind(), format!("{}:{number}: {error}", input::name(log))))
        })?;
        let line = match line {
            NextLine::End => break,
            NextLine::TooLong => Some(Line::NotUnderstood),
            NextLine::Whole => Line::read(&String::from_utf8_lossy(&bytes)),
        };
        progress::count_line();
        match line {
            Some(Line::Request(logged)) => {
                counts.requests += 1;
                counts.suppressed = counts.suppressed.saturating_add(logged.suppressed);
                visit(number, *logged).map_err(Unread::Visitor)?;
            }
            Some(Line::Other) => counts.other += 1,
            Some(Line::NotUnderstood) => counts.not_understood += 1,
            None => {}
        }
    }
    Ok(counts)
}

/// The maximum length of a line in bytes, so that a file without line breaks does not fill the memory. It is far above that of the
/// headers that Envoy accepts.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The result of reading a line.
enum NextLine {
    Whole,
    /// The line is longer than [`MAX_LINE_BYTES`], and skipped.
    TooLong,
    End,
}

/// Reads the next line to `bytes`, with its line break.
fn next_line(reader: &mut dyn BufRead, bytes: &mut Vec<u8>) -> io::Result<NextLine> {
    bytes.clear();
    let mut is_too_long = false;
    loop {
        let count = reader.take(MAX_LINE_BYTES).read_until(b'\n', bytes)?;
        let is_complete = bytes.last() == Some(&b'\n');
        if is_complete || u64::try_from(count).unwrap_or(u64::MAX) < MAX_LINE_BYTES {
            return Ok(match (is_too_long, bytes.is_empty()) {
                (true, _) => NextLine::TooLong,
                (false, true) => NextLine::End,
                (false, false) => NextLine::Whole,
            });
        }
        is_too_long = true;
        bytes.clear();
    }
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
    fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        match find(line, DEPTH) {
            Some(Ok(mut logged)) => {
                // The text before an object comes from Envoy or a log shipper, and never from a client.
                logged.time = logged.time.or_else(|| moment_in(line.split('{').next().unwrap_or_default()));
                return Some(Self::Request(Box::new(logged)));
            }
            Some(Err(Unreadable)) => return Some(Self::NotUnderstood),
            None => {}
        }
        let is_object = objects(line).next().is_some();
        let is_cut = !is_object && (line.contains(OWN) || line.starts_with('{'));
        Some(if !is_cut && (is_object || is_envoy(line)) { Self::Other } else { Self::NotUnderstood })
    }
}

impl Counts {
    /// Returns the counts after the number of requests, or an empty string without such lines.
    pub(crate) fn text(self) -> String {
        let Self { requests: _, other, not_understood, suppressed } = self;
        let lines = |count: u64, what: &str| {
            let noun = if count == 1 { "line" } else { "lines" };
            if count == 0 { String::new() } else { format!("; {count} {noun} {what}") }
        };
        lines(other, "without a request")
            + &lines(not_understood, "not understood")
            + &lines(suppressed, "suppressed by the filter")
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, Self { requests, other, not_understood, suppressed }: Self) {
        self.requests += requests;
        self.other += other;
        self.not_understood += not_understood;
        self.suppressed = self.suppressed.saturating_add(suppressed);
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

/// The error of a request with a field that is missing or has a wrong value.
struct Unreadable;

/// Returns the request in a line.
fn find(line: &str, depth: usize) -> Option<Result<Logged, Unreadable>> {
    objects(line).find_map(|object| find_in(object, depth))
}

fn find_in(object: Map<String, Value>, depth: usize) -> Option<Result<Logged, Unreadable>> {
    if let Some(origin) = Origin::of(&object) {
        return Some(Logged::of(object, origin));
    }
    let depth = depth.checked_sub(1)?;
    let time = time(&object);
    let found = object.into_iter().find_map(|(_, value)| match value {
        Value::String(text) if text.contains('{') => find(&text, depth),
        Value::Object(object) => find_in(object, depth),
        _ => None,
    });
    found.map(|found| found.map(|logged| Logged { time: logged.time.or(time), ..logged }))
}

/// The fields with the time of a line, in the formats of the examples, Istio, container runtimes and log shippers.
const TIMES: [&str; 3] = ["time", "start_time", "timestamp"];

/// Returns the time in a field of an object.
fn time(fields: &Map<String, Value>) -> Option<Timestamp> {
    TIMES.iter().filter_map(|name| fields.get(*name)?.as_str()).find_map(moment)
}

/// The number of bytes at the beginning of a line in which a time is searched.
const PREFIX: usize = 256;

/// Returns the first time in the text before an object.
fn moment_in(text: &str) -> Option<Timestamp> {
    (0..text.len().min(PREFIX)).find_map(|start| moment(text.get(start..)?))
}

/// Returns the time at the beginning of a string, such as `2026-02-11T09:30:00.500+01:00` or `2026-02-11 09:30:00`. Without an offset, it
/// is UTC.
fn moment(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', ' '])?.split_at_checked(8)?;
    let moment = Timestamp::parse(&format!("{date}T{time}Z")).ok()?;
    let fraction =
        rest.strip_prefix(['.', ',']).unwrap_or(rest).trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = |range: std::ops::Range<usize>| fraction.get(range)?.parse::<i64>().ok();
    let sign = match fraction.bytes().next() {
        Some(b'+') => -1,
        Some(b'-') => 1,
        _ => return Some(moment),
    };
    let offset = (fraction.get(3..4) == Some(":")).then(|| Some(60 * (60 * digits(1..3)? + digits(4..6)?))).flatten();
    Some(Timestamp::from_seconds(moment.seconds().saturating_add(sign * offset.unwrap_or_default())))
}

/// Returns `true` for a line in the text formats of Envoy (`[<time>][<thread>][<level>]…`) and Istio
/// (`<time>\t<level>\t…`), with any prefix.
fn is_envoy(line: &str) -> bool {
    let mut words = line.split(['[', ']', '\t', ' ']).filter(|word| !word.is_empty()).take(8);
    words.any(|word| LEVELS.contains(&word)) && line.contains(|character: char| character.is_ascii_digit())
}

/// The program that wrote an object about a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Envoy, in the access log.
    Access,
    /// The filter, in Envoy's log.
    Filter,
}

impl Origin {
    /// Returns the origin of an object, or `None` if it does not describe a request that the filter decided.
    fn of(fields: &Map<String, Value>) -> Option<Self> {
        let has = |name: &str, values: &[&str]| {
            fields.get(name).and_then(Value::as_str).is_some_and(|value| values.contains(&value))
        };
        if summary(fields).is_some() || has("verdict", &["allow", "deny"]) {
            Some(Self::Access)
        } else if has("event", &["deny", "audit"]) {
            Some(Self::Filter)
        } else {
            None
        }
    }
}

/// Returns the string of a field, or `None` if it is missing, null or Envoy's `-`.
fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> Result<Option<&'f str>, Unreadable> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| *text != "-")),
        Some(_) => Err(Unreadable),
    }
}

/// Returns the parsed string of a field.
fn parsed<T: FromStr>(fields: &Map<String, Value>, name: &str) -> Result<Option<T>, Unreadable> {
    text(fields, name)?.map(|text| text.parse().map_err(|_| Unreadable)).transpose()
}

/// Returns the port of a field, which is a number or a string.
fn port(fields: &Map<String, Value>) -> Result<Option<u16>, Unreadable> {
    match fields.get("port") {
        Some(Value::Number(number)) => {
            number.as_u64().and_then(|number| u16::try_from(number).ok()).map(Some).ok_or(Unreadable)
        }
        _ => parsed(fields, "port"),
    }
}

/// Returns the verdict and the reason in the summary of a decision, such as `deny no-policy-allows`. A field of another
/// program can have the same name.
fn summary(fields: &Map<String, Value>) -> Option<(&str, Option<&str>)> {
    let mut words = fields.get("decision")?.as_str()?.split(' ');
    let verdict = words.next().filter(|verdict| ["allow", "deny"].contains(verdict))?;
    Some((verdict, words.next()))
}

/// Returns the verdict of an object, and the reason of a denial.
fn verdict(fields: &Map<String, Value>, origin: Origin) -> Result<(ExpectedVerdict, Option<DenyReason>), Unreadable> {
    let is_enforced = match (origin, text(fields, "mode")?) {
        (Origin::Access, _) | (_, Some("enforce")) => true,
        (_, Some("shadow")) => false,
        _ => return Err(Unreadable),
    };
    let (verdict, reason) = match summary(fields).filter(|_| origin == Origin::Access) {
        Some((verdict, reason)) => (Some(verdict), reason),
        None => {
            let name = if origin == Origin::Access { "verdict" } else { "event" };
            (text(fields, name)?, text(fields, "reason")?)
        }
    };
    if verdict != Some("deny") || !is_enforced {
        return Ok((ExpectedVerdict::Allow, None));
    }
    let reason =
        reason.map(|reason| DenyReason::all().find(|known| known.slug() == reason).ok_or(Unreadable)).transpose()?;
    Ok((ExpectedVerdict::Deny, reason))
}

/// Returns the layer of an object. The access log of connections is that of examples/bootstrap/tcp.
fn layer(fields: &Map<String, Value>, origin: Origin) -> Result<Layer, Unreadable> {
    let has = |name: &&str| fields.contains_key(*name);
    let is_null = |name: &&str| fields.get(*name).is_some_and(Value::is_null);
    let is_connection = match origin {
        Origin::Access => ["received", "sent"].iter().all(has) && !["method", "path"].iter().any(has),
        Origin::Filter => ["method", "path", "host"].iter().all(is_null),
    };
    Ok(if is_connection { Layer::Tcp } else { Layer::Http })
}

impl Logged {
    /// Reads an object that describes a request.
    fn of(mut fields: Map<String, Value>, origin: Origin) -> Result<Self, Unreadable> {
        let (verdict, reason) = verdict(&fields, origin)?;
        let layer = layer(&fields, origin)?;
        // A line without the caller would be one of a caller without a certificate.
        if !fields.contains_key("peer") {
            return Err(Unreadable);
        }
        // On HTTP, an attribute that cannot be read is null, too.
        if origin == Origin::Filter && layer == Layer::Tcp && reason == Some(DenyReason::RequestUnreadable) {
            return Err(Unreadable);
        }
        for name in ["source_ip", "remote_ip"] {
            // A listener inside Envoy has no IP address, so the attribute is unknown.
            if text(&fields, name)?.is_some_and(|address| address.starts_with("envoy://")) {
                fields.remove(name);
            }
        }
        let of_http = |name: &str| match layer {
            Layer::Http => text(&fields, name)?.map(str::to_owned).ok_or(Unreadable),
            Layer::Tcp => Ok(String::new()),
        };
        let request = CaseRequest {
            peer: text(&fields, "peer")?.map(str::to_owned),
            method: of_http("method")?,
            path: of_http("path")?,
            host: text(&fields, "host")?.map(str::to_owned),
            port: port(&fields)?,
            source_ip: parsed(&fields, "source_ip")?,
            remote_ip: parsed(&fields, "remote_ip")?,
            sni: text(&fields, "sni")?.map(str::to_owned),
            ..CaseRequest::default()
        };
        let suppressed = match fields.get("suppressed") {
            None => 0,
            Some(count) => count.as_u64().ok_or(Unreadable)?,
        };
        let time = time(&fields);
        let has = |name: &str, value: &str| fields.get(name).and_then(Value::as_str) == Some(value);
        let is_denied_in_shadow = origin == Origin::Filter && has("event", "deny") && has("mode", "shadow");
        fields.retain(|_, value| is_exact(value, origin));
        Ok(Self { layer, request, verdict, reason, is_denied_in_shadow, time, suppressed, fields })
    }

    /// Returns `true` if the log contains everything about the caller. The certificate of a caller without an accepted
    /// identity is not in it, nor is that of one whose SVID has expired or was revoked.
    pub(crate) fn knows_caller(&self) -> bool {
        match (self.verdict, self.reason) {
            (ExpectedVerdict::Allow, _) => true,
            (ExpectedVerdict::Deny, Some(DenyReason::Identity(reason))) => reason == IdentityReason::NoPeerCertificate,
            (ExpectedVerdict::Deny, Some(DenyReason::DeniedByPolicy | DenyReason::NoPolicyAllows)) => true,
            (ExpectedVerdict::Deny, Some(_)) => self.request.peer.is_some(),
            (ExpectedVerdict::Deny, None) => false,
        }
    }

    fn known<T>(&self, name: &str, value: T) -> Result<T, HostFailure> {
        if self.fields.contains_key(name) { Ok(value) } else { Err(HostFailure) }
    }
}

/// Returns `true` if a value is exactly the attribute of the request. The filter writes null for an attribute that it cannot
/// read, and cuts a long one. Bytes that are not UTF-8 are U+FFFD in every log.
fn is_exact(value: &Value, origin: Origin) -> bool {
    match value {
        Value::Null => origin == Origin::Access,
        Value::String(text) => {
            !text.contains(char::REPLACEMENT_CHARACTER) && (origin == Origin::Access || text.len() < MAX_TEXT_BYTES)
        }
        _ => true,
    }
}

/// An attribute that the line lacks is unknown, not absent.
impl<'a> RequestAttributes for &'a Logged {
    type Text = &'a str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'a str>, HostFailure> {
        self.known("method", Some(self.request.method.as_str()))
    }

    fn path(&self) -> Result<Option<&'a str>, HostFailure> {
        self.known("path", Some(self.request.path.as_str()))
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
    use spiffe_authz::case::ExpectedVerdict;
    use spiffe_authz::decision::DenyReason;
    use spiffe_authz::host::RequestAttributes as _;
    use spiffe_authz::policy::Layer;
    use spiffe_authz::worker::MAX_TEXT_BYTES;

    use super::{Line, Logged, MAX_LINE_BYTES, NextLine, next_line};

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
            let reason = logged.reason.map(DenyReason::slug);
            assert_eq!((&*logged.request.path, reason), ("/{a}", Some("no-policy-allows")), "{line}");
        }
    }

    fn logged(line: &str) -> Box<Logged> {
        let Some(Line::Request(logged)) = Line::read(line) else { panic!("{line}") };
        logged
    }

    const ACCESS: &str = r#"{"verdict":"allow","peer":"spiffe://a/b","method":"GET","path":"/","host":"h","port":80,"source_ip":"10.0.0.1","sni":"-"}"#;

    #[test]
    fn values_that_cannot_be_read_are_not_absent() {
        assert_eq!(logged(ACCESS).request.port, Some(80));
        for (text, replaced) in [
            (r#""peer":"spiffe://a/b","#, ""),
            (r#""peer":"spiffe://a/b""#, r#""peer":1"#),
            (r#""method":"GET","#, ""),
            (r#""method":"GET""#, r#""method":null"#),
            (r#""path":"/""#, r#""path":"-""#),
            (r#""path":"/""#, r#""path":["/"]"#),
            (r#""host":"h""#, r#""host":{}"#),
            (r#""port":80"#, r#""port":70000"#),
            (r#""port":80"#, r#""port":"http""#),
            (r#""port":80"#, r#""port":-1"#),
            (r#""source_ip":"10.0.0.1""#, r#""source_ip":"10.0.0.1:80""#),
            (r#""sni":"-""#, r#""sni":false"#),
            (r#""allow""#, r#""deny","reason":"unknown-reason""#),
        ] {
            let line = ACCESS.replace(text, replaced);
            assert!(line != ACCESS && matches!(Line::read(&line), Some(Line::NotUnderstood)), "{line}");
        }
        for (text, replaced) in
            [(r#""enforce""#, r#""other""#), (r#""mode":"enforce","#, ""), ("null", r#"null,"suppressed":"many""#)]
        {
            let line = OWN.replace(text, replaced);
            assert!(line != OWN && matches!(Line::read(&line), Some(Line::NotUnderstood)), "{line}");
        }
    }

    #[test]
    fn attributes_that_the_line_lacks_are_unknown() {
        let line = logged(ACCESS);
        let line = &*line;
        assert_eq!((line.authority(), line.server_name()), (Ok(Some("h")), Ok(None)));
        let internal = logged(&ACCESS.replace("10.0.0.1", "envoy://internal_client_address/"));
        assert!((&*internal).address(spiffe_authz::host::AddressOf::Source).is_err());
        // The filter writes null for a host that it cannot read, cuts long strings, and replaces other bytes.
        for (path, host) in [("/", "null"), (&*"a".repeat(MAX_TEXT_BYTES), "\"h\""), ("/\u{fffd}", "\"h\"")] {
            let line = OWN.replace("/{a}", path).replace(r#""method""#, &format!(r#""host":{host},"method""#));
            let line = logged(&line);
            assert_eq!(((&*line).path().is_ok(), (&*line).authority().is_ok()), (path == "/", host != "null"));
        }
    }

    #[test]
    fn times_are_read_in_the_formats_of_other_programs() {
        let wrapped = format!(r#"{{"log":{},"stream":"stderr","time":"2026-02-11T09:30:01.5Z"}}"#, escaped(OWN));
        for line in [
            OWN.replace(r#""event""#, r#""time":"2026-02-11T09:30:01.123Z","event""#),
            OWN.replace(r#""event""#, r#""start_time":"2026-02-11T10:30:01+01:00","event""#),
            OWN.replace(r#""event""#, r#""timestamp":"2026-02-11T04:00:01.5-05:30","event""#),
            format!("[2026-02-11 09:30:01.500][21][warning][wasm] [x.cc:1] wasm log spiffe-authz: {OWN}"),
            format!("[pod/web-1/istio-proxy] 2026-02-11T09:30:01.5Z\twarning\tenvoy wasm\t{OWN}"),
            wrapped,
        ] {
            assert_eq!(
                logged(&line).time.map(|time| time.to_string()),
                Some("2026-02-11T09:30:01Z".to_owned()),
                "{line}"
            );
        }
        // A client wrote these.
        for line in [
            OWN.replace("/{a}", "/2026-02-11T09:30:01Z"),
            OWN.replace(r#""event""#, r#""time":"2026-02-31T09:30:01Z","event""#),
            OWN.to_owned(),
        ] {
            assert_eq!(logged(&line).time, None, "{line}");
        }
    }

    #[test]
    fn long_lines_are_not_kept() {
        let long = "x".repeat(usize::try_from(MAX_LINE_BYTES).unwrap() + 7);
        let exact = "x".repeat(usize::try_from(MAX_LINE_BYTES).unwrap());
        let text = format!("a\n{long}\n{long}{long}\n\n{exact}\nb");
        let mut reader = text.as_bytes();
        let mut bytes = Vec::new();
        let mut found = Vec::new();
        loop {
            match next_line(&mut reader, &mut bytes).unwrap() {
                NextLine::End => break,
                NextLine::TooLong => found.push("too long".to_owned()),
                NextLine::Whole => found.push(String::from_utf8(bytes.clone()).unwrap()),
            }
        }
        assert_eq!(found, ["a\n", "too long", "too long", "\n", "too long", "b"]);
    }

    #[test]
    fn the_summary_of_a_decision_is_read() {
        let line = |decision: &str| {
            format!(r#"{{"method":"GET","path":"/","peer":null,"decision":"{decision}","details":"via_upstream"}}"#)
        };
        for (decision, verdict, reason) in [
            ("allow", ExpectedVerdict::Allow, None),
            ("allow default/p 0", ExpectedVerdict::Allow, None),
            ("deny no-policy-allows", ExpectedVerdict::Deny, Some("no-policy-allows")),
            ("deny denied-by-policy default/p 1", ExpectedVerdict::Deny, Some("denied-by-policy")),
        ] {
            let logged = logged(&line(decision));
            assert_eq!((logged.verdict, logged.reason.map(DenyReason::slug)), (verdict, reason), "{decision}");
        }
        assert!(matches!(Line::read(&line("deny by-nobody")), Some(Line::NotUnderstood)));
        assert!(matches!(Line::read(&line("-")), Some(Line::Other)));
        let of_another = line("sampled").replace(r#""peer""#, r#""verdict":"deny","reason":"no-policy-allows","peer""#);
        assert_eq!(logged(&of_another).verdict, ExpectedVerdict::Deny);
    }

    #[test]
    fn connections_are_read() {
        let own = OWN.replace(r#""method":"GET","path":"/{a}""#, r#""method":null,"path":null,"host":null"#);
        let access =
            r#"{"port":5432,"received":0,"sent":0,"peer":null,"verdict":"deny","reason":"no-peer-certificate"}"#;
        let summary = access
            .replace(r#""verdict":"deny","reason":"no-peer-certificate""#, r#""decision":"deny no-peer-certificate""#);
        for line in [&*own, access, &*summary] {
            assert_eq!(logged(line).layer, Layer::Tcp, "{line}");
        }
        assert_eq!(logged(OWN).layer, Layer::Http);
        for line in [own.replace("no-policy-allows", "request-unreadable"), access.replace(r#""sent":0,"#, "")] {
            assert!(matches!(Line::read(&line), Some(Line::NotUnderstood)), "{line}");
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
