//! Two federated trust domains, each with its own SPIRE, and the callers that are allowed.

use anyhow::Result;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::federation::{Changes, Federation};
use spiffe_authz_integration::scenario::{self, Expectation};
use spiffe_authz_integration::scratch::Scratch;

spiffe_authz_integration::test_with_each_adapter![every_scenario_of_federation];

fn every_scenario_of_federation(adapter: Adapter) -> Result<()> {
    let scratch = Scratch::new()?;
    let environment = Federation::start(scratch.path(), Changes { adapter, ..Changes::NONE })?;
    let mut scenarios = scenario::federation()?;
    scenario::play(&scenarios, &environment)?;
    // The check can fail.
    scenarios.truncate(1);
    scenarios[0].expect = Expectation::Policy("default/another".to_owned());
    assert!(scenario::play(&scenarios, &environment).is_err());
    Ok(())
}
