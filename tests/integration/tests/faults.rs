//! Faults under a steady load: no verdict is wrong, and every caller recovers soon.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::fault::{self, Fault, Faults, STEADY, callers};
use spiffe_authz_integration::federation::{Changes, Federation};
use spiffe_authz_integration::load::Load;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::wait;

/// The duration of a fault that has no end.
const FAULT_DURATION: Duration = Duration::from_secs(4);

const LIMIT: Duration = Duration::from_secs(20);

/// Tests run alone, because the flood of one test would disturb the others.
static ALONE: Mutex<()> = Mutex::new(());

spiffe_authz_integration::test_with_each_adapter![no_fault_changes_a_verdict];

fn no_fault_changes_a_verdict(adapter: Adapter) -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new()?;
    let mut environment = Federation::start(scratch.path(), Changes { adapter, ..STEADY })?;
    let load = Load::start(callers(&environment)?);
    load.recovered(LIMIT)?;
    let mut faults = Faults::on(&mut environment)?;
    for fault in Fault::all(adapter) {
        let before = load.tally();
        let outcome = faults.run(fault, FAULT_DURATION, &load)?;
        let tally = load.tally();
        let (requests, errors) = (tally.requests - before.requests, tally.error_count() - before.error_count());
        println!("{outcome}; {requests} requests, {errors} errors");
        let wrong = [tally.wrong, faults.flooded.wrong.clone()].concat();
        ensure!(wrong.is_empty(), "{fault}: {} wrong verdicts:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(requests > 50, "{fault}: only {requests} requests");
    }
    println!("errors: {:#?}", load.tally().errors);
    // No request was denied because an attribute was unreadable or missing.
    let reasons = faults.environment.deny_reasons()?;
    assert_eq!(reasons.iter().map(String::as_str).collect::<Vec<_>>(), ["denied-by-policy", "no-policy-allows"]);
    // The check can fail: it detects policies that allow every caller.
    let open = json!({"trustDomain": "example.org", "federatedTrustDomains": ["example.io"], "policies": []});
    fault::publish(faults.environment, &open)?;
    wait::until("wrong verdicts are detected", LIMIT, || Ok((load.tally().wrong.len() > 10).then_some(())))
}
