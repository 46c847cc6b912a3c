//! Requests in the JSON access log of the examples, and in the lines of the filter in Envoy's log.

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

impl Logged {
    /// Reads a line, which can have the prefix of Envoy's log. Returns `None` if it does not describe a request.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let json = line.get(line.find('{')?..)?;
        let fields: Map<String, Value> = serde_json::from_str(json).ok()?;
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
        Some(Self { request, verdict, reason: text("reason"), fields })
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
