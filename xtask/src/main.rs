//! `cargo xtask`: gets the tools, builds, runs the demo and the tests.

mod artifacts;
mod bench;
mod core_bench;
mod demo;
mod fuzz;
mod images;
mod mesh;
mod oci;
mod process;
mod test;
mod tools;
mod versions;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Gets the tools, builds, runs the demo and the tests of spiffe-authz.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or gets everything that is run and not ours: Envoy, SPIRE, Kubernetes, Istio, the WebAssembly targets.
    Tools,
    /// Builds into target/dist: spiffe-authz.wasm, libspiffe_authz.so and spiffe-authz.
    Build,
    /// Builds the filter as images for Istio, in target/dist/oci, and prints their digests.
    Oci,
    /// Shows real SPIRE identities authorized inside a real Envoy, as a table.
    Demo {
        /// Stay up after the table, and print curl lines to try.
        #[arg(long)]
        keep: bool,
    },
    /// Follows examples/istio on a real Kubernetes, Istio and SPIRE on this machine, and shows each step's check.
    Mesh {
        /// Stay up afterwards, and print the KUBECONFIG and what to try.
        #[arg(long)]
        keep: bool,
    },
    /// Makes the images that docker-compose.yaml names from the pinned binaries, where no registry can be reached.
    Images,
    /// Runs every check and every test.
    Test {
        /// Leave out the tests in containers, on a machine that cannot run any.
        #[arg(long)]
        no_compose: bool,
    },
    /// Measures Envoy's CPU time per request with and without the filter, or the core alone.
    Bench {
        /// Measure the core alone: deciding and compiling, by the number of policies.
        #[arg(long, conflicts_with_all = ["requests", "connections", "rounds"])]
        core: bool,
        /// Measure requests while 100 and 10,000 connections are open, with one SVID and with 5,000.
        #[arg(long, conflicts_with_all = ["core", "requests", "connections"])]
        open_connections: bool,
        /// Requests per variant and round.
        #[arg(long, default_value_t = 5_000)]
        requests: u32,
        /// New connections, with a request each, per variant and round.
        #[arg(long, default_value_t = 128)]
        connections: u32,
        /// Rounds; in each, every variant has its turn, in another order.
        #[arg(long, default_value_t = 40)]
        rounds: u32,
    },
    /// Holds Envoy's memory with the dynamic module against growth, over connections and configurations.
    Memory {
        /// Connections, each with a request.
        #[arg(long, default_value_t = 100_000)]
        connections: u32,
        /// Configurations, each with a request.
        #[arg(long, default_value_t = 1000)]
        reloads: u32,
    },
    /// Compares the filter's verdicts with those of Istio's RBAC, on random policies and requests or connections.
    Differential {
        /// What verdicts are about: requests or connections.
        #[arg(long, default_value = "http", value_parser = ["http", "tcp"])]
        layer: String,
        /// What decides: the Wasm filter or the dynamic module.
        #[arg(long, default_value = "wasm", value_parser = bench::ADAPTERS)]
        adapter: String,
        /// Verdicts to compare.
        #[arg(long, default_value_t = 100_000)]
        pairs: usize,
        /// What policies and requests are made from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fuzzes the core with libFuzzer.
    Fuzz {
        /// The minutes for each target.
        #[arg(long, default_value_t = 1)]
        minutes: u64,
        /// The target; all of them by default.
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
    },
    /// Brings faults about at random under a steady load of requests, and reports what became of them.
    Soak {
        /// What decides: the Wasm filter or the dynamic module.
        #[arg(long, default_value = "wasm", value_parser = bench::ADAPTERS)]
        adapter: String,
        /// For how many minutes.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// What is random is made from it; if left out, it is another one each time.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Tools => {
            tools::Tools::find_or_get().and_then(|_| tools::control_plane::ControlPlane::find_or_get()).map(|_| ())
        }
        Task::Build => tools::wasm::Toolchain::find_or_get().and_then(|toolchain| artifacts::build(&toolchain)),
        Task::Oci => oci::run(),
        Task::Demo { keep } => demo::run(keep),
        Task::Mesh { keep } => mesh::run(keep),
        Task::Images => images::make(),
        Task::Test { no_compose } => test::run(!no_compose),
        Task::Bench { core: true, .. } => core_bench::run(),
        Task::Bench { open_connections: true, rounds, .. } => bench::run_open_connections(rounds),
        Task::Bench { requests, connections, rounds, .. } => bench::run(requests, connections, rounds),
        Task::Memory { connections, reloads } => bench::run_memory(connections, reloads),
        Task::Differential { layer, adapter, pairs, seed } => bench::run_differential(layer, adapter, pairs, seed),
        Task::Fuzz { minutes, target } => fuzz::run(target.as_deref(), minutes),
        Task::Soak { adapter, minutes, seed } => bench::run_soak(adapter, minutes, seed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
