//! Scenarios of federation as data (scenarios/federation.yaml), which run in every environment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::http::Response;
use crate::wait;

const LOG_LIMIT: Duration = Duration::from_secs(20);

/// A request and its expected result.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The purpose of the scenario.
    pub name: String,
    /// The caller.
    pub caller: Caller,
    /// The server.
    #[serde(default)]
    pub to: Server,
    /// The method and the path, separated by a space.
    pub request: String,
    /// The expected result.
    pub expect: Expectation,
}

/// The caller of a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Caller {
    /// A registered workload, through its own Envoy.
    Workload(Workload),
    /// A client with a certificate, directly to the server.
    Certificate(Certificate),
}

/// A registered workload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// The trust domain.
    pub trust_domain: String,
    /// The service account.
    pub name: String,
}

/// A certificate that is not from SPIRE.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The trust domain of the authority.
    pub authority: String,
    /// The SPIFFE ID.
    pub id: String,
}

/// The server of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// The Envoy of httpbin.
    #[default]
    Httpbin,
    /// The gateway in front of it.
    Gateway,
}

/// The expected result of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// This policy allows the request.
    Policy(String),
    /// The request is denied for this reason.
    Reason(String),
    /// The handshake is rejected.
    Handshake,
}

/// The response that a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A response with this status.
    Status(u16),
    /// A TLS alert instead of a response.
    HandshakeRejected,
}

impl Answer {
    /// Converts the result of a request over TLS. The server's alert can arrive after the client's part of the
    /// handshake.
    ///
    /// # Errors
    /// Returns the error if it is not a TLS alert.
    pub fn of(exchange: Result<Response>) -> Result<Self> {
        let error = match exchange {
            Ok(response) => return Ok(Self::Status(response.status)),
            Err(error) => error,
        };
        let tls = error.chain().find_map(|cause| {
            let cause = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
            cause.downcast_ref::<rustls::Error>()
        });
        if matches!(tls, Some(rustls::Error::AlertReceived(_))) { Ok(Self::HandshakeRejected) } else { Err(error) }
    }
}

/// An environment in which scenarios run.
pub trait TestEnvironment {
    /// Sends a request of a workload through its own Envoy.
    ///
    /// # Errors
    /// Returns an error if there is no response.
    fn by_workload(&self, workload: &Workload, to: Server, method: &str, path: &str) -> Result<Answer>;

    /// Sends a request with a certificate directly to the server.
    ///
    /// # Errors
    /// Returns an error if there is neither a response nor a TLS alert.
    fn by_certificate(&self, certificate: &Certificate, to: Server, method: &str, path: &str) -> Result<Answer>;

    /// Returns the lines of the server's JSON access log.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    fn access_log(&self, server: Server) -> Result<Vec<Value>>;
}

/// Reads scenarios/federation.yaml.
///
/// # Errors
/// Returns an error if the file is invalid.
pub fn federation() -> Result<Vec<Scenario>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/federation.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let scenarios: Vec<Scenario> = serde_saphyr::from_str(&text).context("scenarios/federation.yaml")?;
    ensure!(!scenarios.is_empty(), "expected at least one scenario");
    Ok(scenarios)
}

/// Runs every scenario in an environment.
///
/// # Errors
/// Returns an error with every scenario that failed.
pub fn play(scenarios: &[Scenario], environment: &impl TestEnvironment) -> Result<()> {
    let failures: Vec<String> = (scenarios.iter().enumerate())
        .filter_map(|(number, scenario)| {
            let error = scenario.play(number, environment).err()?;
            Some(format!("{}: {error:#}", scenario.name))
        })
        .collect();
    ensure!(failures.is_empty(), "{} of {} scenarios:\n{}", failures.len(), scenarios.len(), failures.join("\n"));
    Ok(())
}

impl Scenario {
    fn play(&self, number: usize, environment: &impl TestEnvironment) -> Result<()> {
        let (method, path) = self.request.split_once(' ').context("no method and path")?;
        // The query identifies the request in the access log. Policies ignore it.
        let query = format!("scenario={number}");
        let path = format!("{path}?{query}");
        let answer = match &self.caller {
            Caller::Workload(workload) => environment.by_workload(workload, self.to, method, &path)?,
            Caller::Certificate(certificate) => environment.by_certificate(certificate, self.to, method, &path)?,
        };
        let expected = match self.expect {
            Expectation::Policy(_) => Answer::Status(200),
            Expectation::Reason(_) => Answer::Status(403),
            Expectation::Handshake => Answer::HandshakeRejected,
        };
        ensure!(answer == expected, "expected {expected:?}, got {answer:?}");
        let line = |server: Server| -> Result<Option<Value>> {
            let log = environment.access_log(server)?;
            Ok(log.into_iter().find(|line| line["path"].as_str().is_some_and(|path| path.ends_with(&query))))
        };
        let wanted = match &self.expect {
            Expectation::Policy(policy) => ["allow", policy],
            Expectation::Reason(reason) => ["deny", reason],
            Expectation::Handshake => {
                ensure!(line(self.to)?.is_none(), "the request is in the access log");
                return Ok(());
            }
        };
        let line = wait::until("the request in the access log", LOG_LIMIT, || line(self.to))?;
        let words = line["decision"].as_str().unwrap_or_default().split(' ').take(2);
        ensure!(words.eq(wanted), "expected the decision `{}`, got {line}", wanted.join(" "));
        Ok(())
    }
}
