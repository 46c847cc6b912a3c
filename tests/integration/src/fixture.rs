//! The server of the examples with certificates of the tests' own authorities instead of SPIRE's: for callers that no
//! SPIRE server would sign, and for tests that need no SPIRE.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::Value;

use crate::authority::{Authority, Leaf, Shape, pooled_validation, spiffe_validation};
use crate::bootstrap::{Adapter, Bootstrap};
use crate::envoy::{Envoy, Start};
use crate::http::Client;
use crate::scratch::Scratch;
use crate::upstream::Upstream;

/// The server's own identity.
const SERVER_ID: &str = "spiffe://example.org/ns/default/sa/httpbin";

/// How Envoy validates the callers' certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// By the SPIFFE validator, as SPIRE configures it.
    Spiffe,
    /// By the default validator with both authorities pooled, so that the filter meets what the SPIFFE validator stops.
    Pooled,
}

/// What an Envoy needs to stand in for the examples' server.
#[derive(Debug)]
pub struct Fixture {
    /// The authority of example.org.
    pub local: Authority,
    /// The authority of example.io.
    pub federated: Authority,
    /// What decides.
    pub adapter: Adapter,
    /// The workload behind the server.
    pub upstream: Upstream,
    /// Its directory.
    pub scratch: Scratch,
}

impl Fixture {
    /// Authorities, certificates and a workload; no Envoy yet.
    ///
    /// # Errors
    /// Returns an error if one cannot be made.
    pub fn new(validation: Validation) -> Result<Self> {
        Self::with(Adapter::Wasm, validation)
    }

    /// As `new`, for this adapter.
    ///
    /// # Errors
    /// Returns an error if one cannot be made.
    pub fn with(adapter: Adapter, validation: Validation) -> Result<Self> {
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

    /// The examples' server, fitted to this fixture, with the policies of the examples.
    ///
    /// # Errors
    /// Returns an error if the example does not have what is to be fitted.
    pub fn bootstrap(&self) -> Result<Bootstrap> {
        Bootstrap::server_with(self.adapter, self.upstream.port())?
            .secrets(&self.scratch.join("certificate.json"), &self.scratch.join("validation.json"))
    }

    /// A leaf of example.org like SPIRE's.
    ///
    /// # Errors
    /// Returns an error if it cannot be signed.
    pub fn leaf(&self, namespace: &str, service_account: &str) -> Result<Leaf> {
        self.local.sign(&Shape::svid(format!("spiffe://example.org/ns/{namespace}/sa/{service_account}")))
    }
}

/// A running server.
#[derive(Debug)]
pub struct ProtectedServer {
    /// Its Envoy.
    pub envoy: Envoy,
    /// What it stands on.
    pub fixture: Fixture,
}

impl ProtectedServer {
    /// Starts the examples' server with this configuration document.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn start(validation: Validation, document: &Value) -> Result<Self> {
        Self::with(Adapter::Wasm, validation, document)
    }

    /// As `start`, with this adapter.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn with(adapter: Adapter, validation: Validation, document: &Value) -> Result<Self> {
        let fixture = Fixture::with(adapter, validation)?;
        let bootstrap = fixture.bootstrap()?.configuration(&document.to_string())?;
        let envoy = Envoy::start(&Start::tested("server")?, &bootstrap, fixture.scratch.path())?;
        Ok(Self { envoy, fixture })
    }

    /// The address that callers connect to.
    ///
    /// # Errors
    /// Returns an error if Envoy does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.envoy.address()
    }

    /// A connection of a caller of example.org.
    ///
    /// # Errors
    /// Returns an error if the handshake fails.
    pub fn caller(&self, namespace: &str, service_account: &str) -> Result<Client> {
        self.fixture.leaf(namespace, service_account)?.connect(self.address()?)
    }
}
