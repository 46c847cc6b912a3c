//! Requests and peers for the tests of the core.

use std::net::IpAddr;

use spiffe_authz::decision::Outcome;
use spiffe_authz::host::{AddressOf, HostFailure, RequestAttributes};
use spiffe_authz::identity::Identity;
use spiffe_authz::metadata::Object;
use spiffe_authz::policy::{PolicySet, Subject};
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

/// A request as strings. An empty string is an absent attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) port: u64,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) source: &'a str,
    pub(crate) remote: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) server_name: &'a str,
    pub(crate) metadata: &'a [u8],
}

pub(crate) const GET: Plain<'_> = Plain {
    method: "GET",
    path: "/",
    authority: "example.org",
    port: 8443,
    headers: &[],
    source: "",
    remote: "",
    destination: "",
    server_name: "",
    metadata: &[],
};

fn present(text: &str) -> Option<&[u8]> {
    Some(text.as_bytes()).filter(|text| !text.is_empty())
}

impl<'a> RequestAttributes for Plain<'a> {
    type Text = &'a [u8];
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'a [u8]>, HostFailure> {
        Ok(present(self.method))
    }

    fn path(&self) -> Result<Option<&'a [u8]>, HostFailure> {
        Ok(present(self.path))
    }

    fn authority(&self) -> Result<Option<&'a [u8]>, HostFailure> {
        Ok(present(self.authority))
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(Some(self.port))
    }

    fn headers(&self) -> Result<Vec<(String, Vec<u8>)>, HostFailure> {
        Ok(self.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
    }

    fn address(&self, of: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        let text = match of {
            AddressOf::Source => self.source,
            AddressOf::Remote => self.remote,
            AddressOf::Destination => self.destination,
        };
        Ok(text.parse().ok())
    }

    fn server_name(&self) -> Result<Option<&'a [u8]>, HostFailure> {
        Ok(present(self.server_name))
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Ok(Object::from_metadata(self.metadata).expect("metadata"))
    }
}

/// Returns the subject with this SPIFFE ID. An empty ID is an anonymous caller.
pub(crate) fn subject(policies: &PolicySet, id: &str) -> Subject {
    let identity = if id.is_empty() { Identity::Anonymous } else { policies.identity().identify(Some(id.as_bytes())) };
    assert_eq!(identity.rejection(), None, "{id}");
    policies.subject(identity)
}

/// The time of every request. The policies of these tests do not depend on it.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(0);

/// Decides one request.
pub(crate) fn decide<'p>(policies: &'p PolicySet, id: &str, request: Plain<'_>) -> Outcome<'p> {
    policies.decide(&subject(policies, id), &Request::new(request, NOW))
}
