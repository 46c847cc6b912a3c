//! Policies that change while they are asked, and what decides by them, by a file that Envoy watches.

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
/// Within which new policies must decide, and broken ones must be refused.
const UPDATE_LIMIT: Duration = Duration::from_secs(10);
/// Counts what Envoy was sent and has refused.
const REFUSED: &str = "extension_config_discovery.http_filter.spiffe-authz.update_rejected";

/// The policies of the example and one more, by which one tells which version decides.
#[derive(Debug)]
pub(super) struct Policies {
    document: Value,
    version: u32,
}

impl Policies {
    pub(super) fn of(environment: &Federation<'_>) -> Result<Self> {
        Ok(Self { document: environment.example()?.document()?, version: 0 })
    }

    /// Changes the policies every second, for so long.
    pub(super) fn change(&mut self, environment: &Federation<'_>, long: Duration) -> Result<String> {
        self.every_second(long, |policies| policies.next(environment))
    }

    /// Puts a new file of the module in the place of the one before every second, for so long, and then the first one again.
    pub(super) fn change_module(&mut self, environment: &Federation<'_>, long: Duration) -> Result<String> {
        let module = tools::path(tools::MODULE)?;
        let seen = self.every_second(long, |policies| {
            let copy = environment.directory().join(format!("module-{}.so", policies.version));
            fs::copy(&module, &copy)?;
            let example = environment.example()?.text(&module.to_string_lossy(), &copy.to_string_lossy())?;
            policies.next_in(environment, example)?;
            // What is loaded does not need its file.
            Ok(fs::remove_file(&copy)?)
        })?;
        self.next(environment)?;
        Ok(seen)
    }

    fn every_second(&mut self, long: Duration, mut update: impl FnMut(&mut Self) -> Result<()>) -> Result<String> {
        let (start, mut slowest, mut count) = (Instant::now(), Duration::ZERO, 0);
        while start.elapsed() < long {
            let publish = Instant::now();
            update(self)?;
            slowest = slowest.max(publish.elapsed());
            count += 1;
            thread::sleep(INTERVAL.saturating_sub(publish.elapsed()));
        }
        Ok(format!("{count} updates, the slowest decided after {} ms", slowest.as_millis()))
    }

    /// Publishes policies that do not compile: they must be refused and counted, and the ones before must serve on, for so long.
    pub(super) fn break_and_mend(&mut self, environment: &Federation<'_>, long: Duration) -> Result<String> {
        self.next(environment)?;
        let refused = environment.httpbin.stat(REFUSED)?.with_context(|| format!("Envoy does not count {REFUSED}"))?;
        let mut broken = self.document.clone();
        broken["trustDomain"] = json!("EXAMPLE.org");
        publish(environment, &broken)?;
        wait::until("the broken policies are refused", UPDATE_LIMIT, || {
            Ok((environment.httpbin.stat(REFUSED)? > Some(refused)).then_some(()))
        })?;
        thread::sleep(long);
        ensure!(decides(environment, self.version)?, "the policies before the broken ones do not decide");
        ensure!(environment.httpbin.stat(REFUSED)? == Some(refused + 1), "one refusal was not counted as one");
        self.next(environment)?;
        Ok("refused and counted".to_owned())
    }

    /// Publishes the next version, and waits until it decides.
    fn next(&mut self, environment: &Federation<'_>) -> Result<()> {
        self.next_in(environment, environment.example()?)
    }

    /// As `next`, with the filter of this bootstrap.
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
        wait::until("the new policies decide", UPDATE_LIMIT, || Ok(decides(environment, self.version)?.then_some(())))
    }
}

/// Gives httpbin's Envoy this configuration document.
///
/// # Errors
/// Returns an error if its file cannot be written.
pub fn publish(environment: &Federation<'_>, document: &Value) -> Result<()> {
    publish_in(environment, environment.example()?, document)
}

fn publish_in(environment: &Federation<'_>, bootstrap: Bootstrap, document: &Value) -> Result<()> {
    let bootstrap = bootstrap.configuration(&document.to_string())?;
    write_whole(&environment.directory().join(FILTER_FILE), &bootstrap.filter_file()?)
}

/// Whether this version decides: it lets `sleep` read its own number, and no other.
fn decides(environment: &Federation<'_>, version: u32) -> Result<bool> {
    let mut client = Client::plain(environment.caller(LOCAL, "sleep")?.address()?)?;
    let mut status = |version: u32| Ok::<_, anyhow::Error>(client.get(&format!("/version/{version}"))?.status);
    Ok((status(version)?, status(version - 1)?) == (200, 403))
}
