//! Scenarios of federation, written down once (scenarios/federation.yaml) and played on every environment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::http::Response;
use crate::wait;

const LOG_LIMIT: Duration = Duration::from_secs(20);

/// A request, and what must become of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// Who asks.
    pub caller: Caller,
    /// Whom.
    #[serde(default)]
    pub to: Server,
    /// Method and path, with a space between.
    pub request: String,
    /// What becomes of it.
    pub expect: Expectation,
}

/// Who asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Caller {
    /// A workload that SPIRE knows, through its own Envoy.
    Workload(Workload),
    /// Somebody with a certificate, straight to the server.
    Certificate(Certificate),
}

/// A workload that SPIRE knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// Its trust domain.
    pub trust_domain: String,
    /// Its service account.
    pub name: String,
}

/// A certificate that SPIRE has not issued.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The trust domain whose authority has signed it.
    pub authority: String,
    /// The SPIFFE ID in it.
    pub id: String,
}

/// Whom a caller asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// The server's Envoy.
    #[default]
    Httpbin,
    /// The gateway in front of it.
    Gateway,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// Allowed by this policy.
    Policy(String),
    /// Denied for this reason.
    Reason(String),
    /// The handshake is refused.
    Handshake,
}

/// What a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// A TLS alert instead of an answer.
    HandshakeRefused,
}

impl Answer {
    /// What an exchange by TLS came to. The server's alert may come after the client's part of the handshake is over.
    ///
    /// # Errors
    /// Returns an error if it came to neither answer nor alert.
    pub fn of(exchange: Result<Response>) -> Result<Self> {
        let error = match exchange {
            Ok(response) => return Ok(Self::Status(response.status)),
            Err(error) => error,
        };
        let tls = error.chain().find_map(|cause| {
            let cause = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
            cause.downcast_ref::<rustls::Error>()
        });
        if matches!(tls, Some(rustls::Error::AlertReceived(_))) { Ok(Self::HandshakeRefused) } else { Err(error) }
    }
}

/// Where scenarios are played.
pub trait TestEnvironment {
    /// Sends a request of a workload, through its own Envoy.
    ///
    /// # Errors
    /// Returns an error if no answer comes.
    fn by_workload(&self, workload: &Workload, to: Server, method: &str, path: &str) -> Result<Answer>;

    /// Sends a request with a certificate, straight to the server.
    ///
    /// # Errors
    /// Returns an error if neither answer nor TLS alert comes.
    fn by_certificate(&self, certificate: &Certificate, to: Server, method: &str, path: &str) -> Result<Answer>;

    /// The lines of the server's JSON access log so far.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    fn access_log(&self, server: Server) -> Result<Vec<Value>>;
}

/// Reads scenarios/federation.yaml.
///
/// # Errors
/// Returns an error if the file is not as it should be.
pub fn federation() -> Result<Vec<Scenario>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/federation.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let scenarios: Vec<Scenario> = serde_saphyr::from_str(&text).context("scenarios/federation.yaml")?;
    ensure!(!scenarios.is_empty(), "there is no scenario");
    Ok(scenarios)
}

/// Plays every scenario on a environment.
///
/// # Errors
/// With every scenario that went otherwise than it should.
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
        // The query finds the request in the access log; policies do not look at it.
        let query = format!("scenario={number}");
        let path = format!("{path}?{query}");
        let answer = match &self.caller {
            Caller::Workload(workload) => environment.by_workload(workload, self.to, method, &path)?,
            Caller::Certificate(certificate) => environment.by_certificate(certificate, self.to, method, &path)?,
        };
        let expected = match self.expect {
            Expectation::Policy(_) => Answer::Status(200),
            Expectation::Reason(_) => Answer::Status(403),
            Expectation::Handshake => Answer::HandshakeRefused,
        };
        ensure!(answer == expected, "{answer:?}, not {expected:?}");
        let line = |server: Server| -> Result<Option<Value>> {
            let log = environment.access_log(server)?;
            Ok(log.into_iter().find(|line| line["path"].as_str().is_some_and(|path| path.ends_with(&query))))
        };
        let (field, wanted) = match &self.expect {
            Expectation::Policy(policy) => ("policy", policy),
            Expectation::Reason(reason) => ("reason", reason),
            Expectation::Handshake => {
                ensure!(line(self.to)?.is_none(), "the request is in the access log");
                return Ok(());
            }
        };
        let line = wait::until("the request in the access log", LOG_LIMIT, || line(self.to))?;
        ensure!(line[field] == **wanted, "{field} is {}, not {wanted}; {line}", line[field]);
        Ok(())
    }
}
