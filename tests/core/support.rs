//! Requests and peers for the tests of the core.

use std::net::IpAddr;

use spiffe_authz::decision::Outcome;
use spiffe_authz::metadata::Object;
use spiffe_authz::peer::Peer;
use spiffe_authz::policy::Policy;
use spiffe_authz::request::{AddressOf, Attributes, HostFailure, Request};
use spiffe_authz::spiffe_id::SpiffeId;
use spiffe_authz::timestamp::Timestamp;

/// A request as text; an empty text is an absent attribute.
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

impl<'a> Attributes for Plain<'a> {
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

/// The peer of this SPIFFE ID; an empty one is a caller without identity.
pub(crate) fn peer(policy: &Policy, id: &str) -> Option<Peer> {
    if id.is_empty() {
        return None;
    }
    let id = SpiffeId::parse(id.as_bytes()).expect("a SPIFFE ID");
    Some(Peer::from_id(id, policy.realm()).expect("an identity that counts"))
}

/// The moment of every request. The policies of these tests do not depend on it.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(0);

/// Decides one request.
pub(crate) fn decide<'p>(policy: &'p Policy, id: &str, request: Plain<'_>) -> Outcome<'p> {
    let peer = peer(policy, id);
    policy.decide(peer.as_ref(), &policy.candidates(peer.as_ref()), &Request::new(request, NOW))
}
