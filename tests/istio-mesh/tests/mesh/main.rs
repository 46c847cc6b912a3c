//! Every test in one mesh, which takes longer to start than any of them. They run one after the other, and each begins with the
//! state of the guide, also after a test that failed.

mod admission;
mod clean_up;
mod connections;
mod guide;
mod injection;
mod istio_alone;
mod overlay;
mod updates;
mod verdicts;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial, run};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_mesh::mesh::Mesh;

/// For what takes a moment: an update on its way to an Envoy, an entry on its way to SPIRE.
const LIMIT: Duration = Duration::from_secs(60);

/// The mesh of all tests, started by the first.
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
        ("admission::mistakes_are_not_admitted", admission::mistakes_are_not_admitted),
        ("admission::istioctl_finds_no_fault", admission::istioctl_finds_no_fault),
        (
            "overlay::the_gateway_mounts_the_socket_and_waits_for_it",
            overlay::the_gateway_mounts_the_socket_and_waits_for_it,
        ),
        ("overlay::istiod_is_told_trust_domains_and_template", overlay::istiod_is_told_trust_domains_and_template),
        ("injection::a_sidecar_that_is_a_container_is_injected_and_registered", injection::as_container),
        ("injection::a_native_sidecar_is_injected_and_registered", injection::as_native_sidecar),
        (
            "connections::are_not_resumed_and_have_one_spelling_of_paths",
            connections::are_not_resumed_and_have_one_spelling_of_paths,
        ),
        ("verdicts::by_wasm_plugin", verdicts::by_wasm_plugin),
        ("verdicts::by_traffic_extension", verdicts::by_traffic_extension),
        ("verdicts::by_envoy_filter", verdicts::by_envoy_filter),
        ("updates::a_policy_takes_effect_without_draining", updates::a_policy_takes_effect_without_draining),
        ("updates::a_broken_configuration_keeps_the_old_one", updates::a_broken_configuration_keeps_the_old_one),
        ("istio_alone::lets_federated_workloads_in", istio_alone::lets_federated_workloads_in),
        // The last: it takes the mesh apart.
        ("clean_up::leaves_nothing_behind", clean_up::leaves_nothing_behind),
    ];
    let trials = trials.map(|(name, test)| {
        let fixture = Arc::clone(&fixture);
        Trial::test(name, move || {
            let started = fixture.mesh.get_or_init(|| start(&fixture.scratch));
            let mesh = started.as_ref().map_err(|error| format!("the mesh did not start: {error}"))?;
            guide::restore(mesh).and_then(|()| test(mesh)).map_err(|error| format!("{error:#}").into())
        })
    });
    Ok(run(&arguments, trials.into()).exit_code())
}

fn start(scratch: &Scratch) -> Result<Mesh, String> {
    let start = Instant::now();
    let mesh = Mesh::start(scratch.path(), false).map_err(|error| format!("{error:#}"))?;
    println!("the mesh started in {:.1} s", start.elapsed().as_secs_f64());
    Ok(mesh)
}
