//! The server of the examples with certificates from test authorities instead of SPIRE. Tests use it for callers whose
//! certificates SPIRE would not sign, and if they do not need SPIRE.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::Value;

use crate::authority::{Authority, Leaf, Shape, pooled_validation, spiffe_validation};
use crate::bootstrap::{Adapter, Bootstrap};
use crate::envoy::{Envoy, Start};
use crate::http::Client;
use crate::scratch::Scratch;
use crate::upstream::Upstream;

/// The SPIFFE ID of the server.
const SERVER_ID: &str = "spiffe://example.org/ns/default/sa/httpbin";

/// The validator of the callers' certificates in Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// The SPIFFE validator, as SPIRE configures it.
    Spiffe,
    /// The default validator with both authorities pooled, so that the filter gets certificates that the SPIFFE
    /// validator rejects.
    Pooled,
}

/// The authorities, files and workload that the examples' server needs.
#[derive(Debug)]
pub struct Fixture {
    /// The authority of example.org.
    pub local: Authority,
    /// The authority of example.io.
    pub federated: Authority,
    /// The adapter.
    pub adapter: Adapter,
    /// The workload of the server.
    pub upstream: Upstream,
    /// The directory of the files.
    pub scratch: Scratch,
}

impl Fixture {
    /// Creates authorities, certificates and a workload, without an Envoy.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be created.
    pub fn new(adapter: Adapter, validation: Validation) -> Result<Self> {
        let scratch = Scratch::new()?;
        let (local, federated) = (Authority::new("example.org")?, Authority::new("example.io")?);
        scratch.write("certificate.json", &local.sign(&Shape::svid(SERVER_ID))?.secret())?;
        let validate = match validation {
            Validation::Spiffe => spiffe_validation,
            Validation::Pooled => pooled_validation,
        };
        scratch.write("validation.json", &validate(&[&local, &federated]))?;
        Ok(Self { local, federated, adapter, upstream: Upstream::start()?, scratch })
    }

    /// Returns the examples' server with its policies, adapted to this fixture.
    ///
    /// # Errors
    /// Returns an error if a substitution does not find its value.
    pub fn bootstrap(&self) -> Result<Bootstrap> {
        Bootstrap::server(self.adapter, self.upstream.port())?
            .secrets(&self.scratch.join("certificate.json"), &self.scratch.join("validation.json"))
    }

    /// Signs a leaf certificate of example.org like SPIRE's.
    ///
    /// # Errors
    /// Returns an error if the certificate cannot be signed.
    pub fn leaf(&self, namespace: &str, service_account: &str) -> Result<Leaf> {
        self.local.sign(&Shape::svid(format!("spiffe://example.org/ns/{namespace}/sa/{service_account}")))
    }
}

/// A running server.
#[derive(Debug)]
pub struct ProtectedServer {
    /// The Envoy.
    pub envoy: Envoy,
    /// The fixture of the Envoy.
    pub fixture: Fixture,
}

impl ProtectedServer {
    /// Starts the examples' server with this document.
    ///
    /// # Errors
    /// Returns an error if Envoy does not start.
    pub fn start(adapter: Adapter, validation: Validation, document: &Value) -> Result<Self> {
        let fixture = Fixture::new(adapter, validation)?;
        let bootstrap = fixture.bootstrap()?.configuration(&document.to_string())?;
        let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
        Ok(Self { envoy, fixture })
    }

    /// Returns the address for callers.
    ///
    /// # Errors
    /// Returns an error if the admin interface does not list it.
    pub fn address(&self) -> Result<SocketAddr> {
        self.envoy.address()
    }

    /// Connects as a caller of example.org.
    ///
    /// # Errors
    /// Returns an error if the handshake fails.
    pub fn caller(&self, namespace: &str, service_account: &str) -> Result<Client> {
        self.fixture.leaf(namespace, service_account)?.connect(self.address()?)
    }
}
