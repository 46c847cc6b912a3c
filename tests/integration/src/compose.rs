//! The project of docker-compose.yaml: the federated examples in containers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::authority::{Authority, Shape};
use crate::federation::{FEDERATED, LOCAL, OUTSIDER, host};
use crate::scenario::{Answer, Certificate, Server, TestEnvironment, Workload};
use crate::scratch::Scratch;
use crate::{spire, tools, wait};

/// The prefix of the names of these projects. The process ID follows.
const PREFIX: &str = "spiffe-authz-test-";
const DEMO_LIMIT: Duration = Duration::from_secs(120);
const BUNDLE_LIMIT: Duration = Duration::from_secs(60);
/// The arguments that update the entry of httpbin: those of setup.sh, and the outsider's bundle.
const HTTPBIN: [&str; 10] = [
    "-parentID",
    "spiffe://example.org/agent",
    "-spiffeID",
    "spiffe://example.org/ns/default/sa/httpbin",
    "-selector",
    "docker:label:spiffe-authz.workload:httpbin",
    "-federatesWith",
    "spiffe://example.io",
    "-federatesWith",
    "spiffe://example.net",
];
/// Reads the secrets from Envoy's admin interface, which is on loopback only.
const SECRETS: &str = "exec 3<> /dev/tcp/127.0.0.1/9901; \
    printf 'GET /config_dump?resource=dynamic_active_secrets HTTP/1.1\\r\\nhost: admin\\r\\nconnection: close\\r\\n\\r\\n' >&3; \
    cat <&3";

/// A project. Dropping it removes its containers and volumes.
#[derive(Debug)]
pub struct Project {
    name: String,
}

impl Project {
    /// Starts the project, and waits until the demo has ended. Removes projects of killed tests first.
    ///
    /// # Errors
    /// Returns an error if a container does not become healthy, or the demo fails.
    pub fn start() -> Result<Self> {
        for name in docker(&["compose", "ls", "--all", "--quiet"], "")?.lines() {
            let starter = name.strip_prefix(PREFIX);
            if starter.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                drop(Self { name: name.to_owned() });
            }
        }
        let project = Self { name: format!("{PREFIX}{}", std::process::id()) };
        project.up()?;
        Ok(project)
    }

    /// Runs `docker compose up`, and waits until the demo has ended.
    ///
    /// # Errors
    /// Returns an error if a container does not become healthy, or the demo fails.
    pub fn up(&self) -> Result<()> {
        self.compose(&["up", "--detach"])?;
        let state = wait::until("the end of the demo", DEMO_LIMIT, || {
            let state: Value = serde_json::from_str(&self.compose(&["ps", "--all", "--format", "json", "demo"])?)?;
            Ok((state["State"] == "exited").then_some(state))
        })?;
        ensure!(state["ExitCode"] == 0, "the demo failed: {}", self.logs()?);
        Ok(())
    }

    /// Returns the output of every run of the demo.
    ///
    /// # Errors
    /// Returns an error if Docker fails.
    pub fn demo(&self) -> Result<String> {
        self.compose(&["logs", "--no-log-prefix", "demo"])
    }

    /// Returns the log of a service, with the access log of its Envoy.
    ///
    /// # Errors
    /// Returns an error if Docker fails.
    pub fn log(&self, service: &str) -> Result<String> {
        self.compose(&["logs", "--no-log-prefix", service])
    }

    /// Returns the end of every container's log.
    ///
    /// # Errors
    /// Returns an error if Docker fails.
    pub fn logs(&self) -> Result<String> {
        self.compose(&["logs", "--tail", "20"])
    }

    /// Requests an identity from the agent of example.org in a container with these labels. Returns the output.
    ///
    /// # Errors
    /// Returns an error if the container gets none.
    pub fn container_identity(&self, labels: &[&str]) -> Result<String> {
        let volume = format!("{}_identity-org:/identity:ro", self.name);
        let image = self.compose(&["config", "--images", "spire-agent.example.org"])?;
        // The list also has the images of the services that this one depends on.
        let image = image.lines().find(|line| line.contains("spire-agent")).context("no image of the agent")?;
        let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
        let run = ["run", "--rm", "--volume", &volume, "--entrypoint", "/opt/spire/bin/spire-agent"];
        let fetch = ["api", "fetch", "x509", "-socketPath", "/identity/socket", "-timeout", "20s"];
        docker(&[&run, &*labels, &[image], &fetch].concat(), "")
    }

    /// Adds an authority to example.io, and makes example.org fetch the bundle from the endpoint. Returns the number of
    /// authorities that example.org had, and has now.
    ///
    /// # Errors
    /// Returns an error if a command of SPIRE fails.
    pub fn fetch_new_authority(&self) -> Result<(usize, usize)> {
        let known = || -> Result<usize> {
            let bundle = self.spire_server(LOCAL, &["bundle", "list", "-id", "spiffe://example.io"], "")?;
            Ok(bundle.matches("BEGIN CERTIFICATE").count())
        };
        let before = known()?;
        self.spire_server(FEDERATED, &["localauthority", "x509", "prepare"], "")?;
        self.spire_server(LOCAL, &["federation", "refresh", "-id", FEDERATED], "")?;
        Ok((before, known()?))
    }

    /// The published address of httpbin.
    fn httpbin(&self) -> Result<SocketAddr> {
        Ok(self.compose(&["port", "httpbin.example.org", "8443"])?.trim().parse()?)
    }

    /// Runs a command of a trust domain's SPIRE server.
    fn spire_server(&self, trust_domain: &str, arguments: &[&str], input: &str) -> Result<String> {
        let service = format!("spire-server.{trust_domain}");
        let program = ["exec", "--no-TTY", &service, "/opt/spire/bin/spire-server"];
        let socket = ["-socketPath", "/run/spire/server/api.sock"];
        self.compose_with(&[&program, arguments, &socket].concat(), input)
    }

    fn stolen_authority(&self, trust_domain: &str) -> Result<Authority> {
        let scratch = Scratch::new()?;
        let file = scratch.join("keys.json");
        let from = format!("spire-server.{trust_domain}:/var/lib/spire/server/keys.json");
        self.compose(&["cp", &from, &file.to_string_lossy()])?;
        let key = spire::first_authority_key(&std::fs::read_to_string(file)?)?;
        Authority::stolen(trust_domain, &self.spire_server(trust_domain, &["bundle", "show"], "")?, &key)
    }

    /// Adds the bundle of the outsider to httpbin. example.org does not federate with the outsider.
    fn teach(&self, outsider: &Authority) -> Result<()> {
        let id = format!("spiffe://{OUTSIDER}");
        self.spire_server(LOCAL, &["bundle", "set", "-format", "pem", "-id", &id], outsider.certificate())?;
        let show = ["entry", "show", "-spiffeID", HTTPBIN[3], "-output", "json"];
        let entries: Value = serde_json::from_str(&self.spire_server(LOCAL, &show, "")?)?;
        let entry = entries["entries"][0]["id"].as_str().context("httpbin has no entry")?;
        self.spire_server(LOCAL, &[&["entry", "update", "-entryID", entry], &HTTPBIN[..]].concat(), "")?;
        wait::until("the outsider's bundle in Envoy", BUNDLE_LIMIT, || {
            let secrets = self.compose(&["exec", "--no-TTY", "httpbin.example.org", "bash", "-c", SECRETS])?;
            Ok(secrets.contains(&format!("\"{OUTSIDER}\"")).then_some(()))
        })
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        self.compose_with(arguments, "")
    }

    fn compose_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker-compose.yaml");
        let project =
            ["compose", "--progress", "plain", "--ansi", "never", "--file", file, "--project-name", &self.name];
        docker(&[&project, arguments].concat(), input)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if let Err(error) = self.compose(&["down", "--volumes", "--timeout", "1"]) {
            eprintln!("cannot remove {}: {error:#}", self.name);
        }
    }
}

/// A project as an environment for scenarios.
#[derive(Debug)]
pub struct Containers<'p> {
    project: &'p Project,
    httpbin: SocketAddr,
    authorities: [(&'static str, Authority); 3],
}

impl<'p> Containers<'p> {
    /// Reads the authorities of both trust domains with their keys, and adds a third authority to httpbin.
    ///
    /// # Errors
    /// Returns an error if a command fails.
    pub fn new(project: &'p Project) -> Result<Self> {
        let outsider = Authority::new(OUTSIDER)?;
        project.teach(&outsider)?;
        let [local, federated] = [project.stolen_authority(LOCAL)?, project.stolen_authority(FEDERATED)?];
        let authorities = [(LOCAL, local), (FEDERATED, federated), (OUTSIDER, outsider)];
        Ok(Self { project, httpbin: project.httpbin()?, authorities })
    }
}

impl TestEnvironment for Containers<'_> {
    fn by_workload(&self, workload: &Workload, to: Server, method: &str, path: &str) -> Result<Answer> {
        let service = format!("{}.{}", workload.name, workload.trust_domain);
        let call = ["exec", "--no-TTY", &service, "call", method, host(to), path];
        Ok(Answer::Status(self.project.compose(&call)?.trim().parse()?))
    }

    fn by_certificate(&self, certificate: &Certificate, to: Server, method: &str, path: &str) -> Result<Answer> {
        ensure!(to == Server::Httpbin, "only httpbin is published");
        let authority = self.authorities.iter().find(|(name, _)| *name == certificate.authority);
        let (_, authority) = authority.with_context(|| format!("unknown authority {}", certificate.authority))?;
        let leaf = authority.sign(&Shape::svid(&certificate.id))?;
        Answer::of(leaf.connect(self.httpbin).and_then(|mut client| client.request(method, path, &[])))
    }

    fn access_log(&self, server: Server) -> Result<Vec<Value>> {
        let file = format!("/demo/{}.log", host(server));
        let log = self.project.compose(&["exec", "--no-TTY", host(server), "cat", &file])?;
        log.lines().map(|line| serde_json::from_str(line).with_context(|| format!("expected JSON: {line}"))).collect()
    }
}

/// Runs a command of Docker and returns its output.
fn docker(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(tools::path(tools::DOCKER)?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("docker: cannot start")?;
    // A command that does not read its input can already have ended.
    let _ = child.stdin.take().context("no input")?.write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {}: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
