//! All tests run in one mesh, because its start takes longer than any test. They run in sequence. Each starts in the
//! state of the guide, even after a test that failed.

mod access_log;
mod admission;
mod clean_up;
mod connections;
mod controller;
mod guide;
mod helm;
mod injection;
mod istio_alone;
mod metrics;
mod overlay;
mod partners;
mod rendered;
mod updates;
mod verdicts;
mod webhook;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial, run};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_mesh::mesh::Mesh;

/// The time limit for an update of an Envoy or of SPIRE.
const LIMIT: Duration = Duration::from_secs(60);

/// The mesh of all tests, which the first test starts.
struct Fixture {
    mesh: OnceLock<Result<Mesh, String>>,
    scratch: Scratch,
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let fixture = Arc::new(Fixture { mesh: OnceLock::new(), scratch: Scratch::new()? });
    let trials = [
        ("admission::every_manifest_is_admitted", admission::every_manifest_is_admitted as fn(&Mesh) -> Result<()>),
        ("admission::invalid_manifests_are_rejected", admission::invalid_manifests_are_rejected),
        ("admission::istioctl_reports_only_known_findings", admission::istioctl_reports_only_known_findings),
        (
            "overlay::the_gateway_mounts_the_socket_and_waits_for_it",
            overlay::the_gateway_mounts_the_socket_and_waits_for_it,
        ),
        ("overlay::istiod_gets_trust_domains_and_template", overlay::istiod_gets_trust_domains_and_template),
        ("injection::a_container_sidecar_is_injected_and_registered", injection::as_container),
        ("injection::a_native_sidecar_is_injected_and_registered", injection::as_native_sidecar),
        (
            "connections::sessions_are_not_resumed_and_paths_are_normalized",
            connections::sessions_are_not_resumed_and_paths_are_normalized,
        ),
        ("verdicts::by_wasm_plugin", verdicts::by_wasm_plugin),
        ("metrics::the_counter_has_labels", metrics::the_counter_has_labels),
        ("metrics::the_counters_of_the_alerts_exist", metrics::the_counters_of_the_alerts_exist),
        ("access_log::shows_decision_and_caller", access_log::shows_decision_and_caller),
        ("verdicts::by_traffic_extension", verdicts::by_traffic_extension),
        ("verdicts::by_envoy_filter", verdicts::by_envoy_filter),
        ("rendered::policies_of_the_mesh_are_enforced", rendered::policies_of_the_mesh_are_enforced),
        ("rendered::a_mesh_that_is_too_big_is_split", rendered::a_mesh_that_is_too_big_is_split),
        ("controller::policies_follow_the_cluster", controller::policies_follow_the_cluster),
        ("partners::join_and_leave_under_load", partners::join_and_leave_under_load),
        ("helm::the_chart_installs_the_kustomization", helm::the_chart_installs_the_kustomization),
        ("webhook::policies_with_errors_are_rejected", webhook::policies_with_errors_are_rejected),
        ("updates::a_policy_takes_effect_without_draining", updates::a_policy_takes_effect_without_draining),
        ("updates::an_invalid_configuration_changes_nothing", updates::an_invalid_configuration_changes_nothing),
        ("istio_alone::allows_federated_workloads", istio_alone::allows_federated_workloads),
        // This test must be last: it removes the mesh.
        ("clean_up::removes_everything", clean_up::removes_everything),
    ];
    // `cargo xtask mesh --scale` runs it.
    let long = [("controller::two_thousand_policies", controller::two_thousand_policies as fn(&Mesh) -> Result<()>)];
    let trial = |(name, test): (&'static str, fn(&Mesh) -> Result<()>)| {
        let fixture = Arc::clone(&fixture);
        Trial::test(name, move || {
            let started = fixture.mesh.get_or_init(|| start(&fixture.scratch));
            let mesh = started.as_ref().map_err(|error| format!("the mesh did not start: {error}"))?;
            guide::restore(mesh).and_then(|()| test(mesh)).map_err(|error| format!("{error:#}").into())
        })
    };
    let long = long.into_iter().map(trial).map(|trial| trial.with_ignored_flag(true));
    let trials = long.chain(trials.into_iter().map(trial)).collect();
    Ok(run(&arguments, trials).exit_code())
}

fn start(scratch: &Scratch) -> Result<Mesh, String> {
    let start = Instant::now();
    let mesh = Mesh::start(scratch.path(), false).map_err(|error| format!("{error:#}"))?;
    println!("the mesh started in {:.1} s", start.elapsed().as_secs_f64());
    Ok(mesh)
}
