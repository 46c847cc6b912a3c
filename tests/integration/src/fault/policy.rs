//! Policies that change under load, and the module that evaluates them, through files that Envoy watches.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::steady::FILTER_FILE;
use crate::bootstrap::Bootstrap;
use crate::federation::{Federation, LOCAL};
use crate::http::Client;
use crate::scratch::write_whole;
use crate::{tools, wait};

const INTERVAL: Duration = Duration::from_secs(1);
/// The time limit for new policies to apply and for invalid ones to be rejected.
const UPDATE_LIMIT: Duration = Duration::from_secs(10);
/// The counter of rejected updates.
const REJECTED: &str = "extension_config_discovery.http_filter.spiffe-authz.update_rejected";

/// The policies of the example, and one more that identifies the version.
#[derive(Debug)]
pub(super) struct Policies {
    document: Value,
    version: u32,
}

impl Policies {
    pub(super) fn of(environment: &Federation<'_>) -> Result<Self> {
        Ok(Self { document: environment.example()?.document()?, version: 0 })
    }

    /// Changes the policies every second for this duration.
    pub(super) fn change(&mut self, environment: &Federation<'_>, duration: Duration) -> Result<String> {
        self.every_second(duration, |policies| policies.next(environment))
    }

    /// Replaces the module with a new file every second for this duration, and then restores the first file.
    pub(super) fn change_module(&mut self, environment: &Federation<'_>, duration: Duration) -> Result<String> {
        let module = tools::path(tools::MODULE)?;
        let seen = self.every_second(duration, |policies| {
            let copy = environment.directory().join(format!("module-{}.so", policies.version));
            fs::copy(&module, &copy)?;
            let example = environment.example()?.text(&module.to_string_lossy(), &copy.to_string_lossy())?;
            policies.next_in(environment, example)?;
            // A loaded module does not need its file.
            Ok(fs::remove_file(&copy)?)
        })?;
        self.next(environment)?;
        Ok(seen)
    }

    fn every_second(&mut self, duration: Duration, mut update: impl FnMut(&mut Self) -> Result<()>) -> Result<String> {
        let (start, mut slowest, mut count) = (Instant::now(), Duration::ZERO, 0);
        while start.elapsed() < duration {
            let publish = Instant::now();
            update(self)?;
            slowest = slowest.max(publish.elapsed());
            count += 1;
            thread::sleep(INTERVAL.saturating_sub(publish.elapsed()));
        }
        Ok(format!("{count} updates, the slowest decided after {} ms", slowest.as_millis()))
    }

    /// Publishes policies that do not compile, for this duration. Envoy must reject and count them, and the previous
    /// ones must still apply.
    pub(super) fn break_and_restore(&mut self, environment: &Federation<'_>, duration: Duration) -> Result<String> {
        self.next(environment)?;
        let rejected =
            environment.httpbin.stat(REJECTED)?.with_context(|| format!("Envoy does not count {REJECTED}"))?;
        let mut broken = self.document.clone();
        broken["trustDomain"] = json!("EXAMPLE.org");
        publish(environment, &broken)?;
        wait::until("the invalid policies are rejected", UPDATE_LIMIT, || {
            Ok((environment.httpbin.stat(REJECTED)? > Some(rejected)).then_some(()))
        })?;
        thread::sleep(duration);
        ensure!(decides(environment, self.version)?, "the previous policies no longer apply");
        ensure!(environment.httpbin.stat(REJECTED)? == Some(rejected + 1), "expected one rejected update");
        self.next(environment)?;
        Ok("rejected and counted".to_owned())
    }

    /// Publishes the next version, and waits until it applies.
    fn next(&mut self, environment: &Federation<'_>) -> Result<()> {
        self.next_in(environment, environment.example()?)
    }

    /// Does the same with the filter of this bootstrap.
    fn next_in(&mut self, environment: &Federation<'_>, bootstrap: Bootstrap) -> Result<()> {
        self.version += 1;
        let mut document = self.document.clone();
        document["policies"].as_array_mut().context("no policies")?.push(json!({
            "name": "version",
            "namespace": "default",
            "rules": [{
                "from": [{"source": {"principals": ["example.org/ns/default/sa/sleep"]}}],
                "to": [{"operation": {"paths": [format!("/version/{}", self.version)]}}],
            }],
        }));
        publish_in(environment, bootstrap, &document)?;
        wait::until("the new policies apply", UPDATE_LIMIT, || Ok(decides(environment, self.version)?.then_some(())))
    }
}

/// Replaces the document of httpbin's Envoy.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn publish(environment: &Federation<'_>, document: &Value) -> Result<()> {
    publish_in(environment, environment.example()?, document)
}

fn publish_in(environment: &Federation<'_>, bootstrap: Bootstrap, document: &Value) -> Result<()> {
    let bootstrap = bootstrap.configuration(&document.to_string())?;
    write_whole(&environment.directory().join(FILTER_FILE), &bootstrap.filter_file()?)
}

/// Returns `true` if this version applies: `sleep` can read the path of this number only.
fn decides(environment: &Federation<'_>, version: u32) -> Result<bool> {
    let mut client = Client::plain(environment.caller(LOCAL, "sleep")?.address()?)?;
    let mut status = |version: u32| Ok::<_, anyhow::Error>(client.get(&format!("/version/{version}"))?.status);
    Ok((status(version)?, status(version - 1)?) == (200, 403))
}
