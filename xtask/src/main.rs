//! `cargo xtask`: installs the tools, builds, and runs the demo and the tests.

mod artifacts;
mod bench;
mod command_bench;
mod core_bench;
mod demo;
mod fuzz;
mod images;
mod mesh;
mod monitoring;
mod oci;
mod process;
mod test;
mod tools;
mod versions;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Installs the tools, builds, and runs the demo and the tests of spiffe-authz
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs the third-party tools: Envoy, SPIRE, Kubernetes, Istio, Wasm, promtool, Chromium
    Tools,
    /// Builds spiffe-authz.wasm, libspiffe_authz.so and spiffe-authz in target/dist
    Build,
    /// Builds the filter as images for Istio in target/dist/oci, and prints the digests
    Oci,
    /// Runs real SPIRE and Envoy, and prints who is allowed, who is denied, and why
    Demo {
        /// Keep the demo running after the table, and print commands to try
        #[arg(long)]
        keep: bool,
    },
    /// Follows examples/istio with a real Kubernetes, Istio and SPIRE on this machine
    Mesh {
        /// Keep the mesh running before the clean-up, and print commands to try
        #[arg(long)]
        keep: bool,
        /// Measure the controller with 2,000 policies and 500 pods instead
        #[arg(long, conflicts_with = "keep")]
        scale: bool,
    },
    /// Writes the Grafana dashboard, examples/monitoring/dashboard.json
    Dashboard,
    /// Builds the image of the controller, and the images in docker-compose.yaml from the pinned binaries
    Images,
    /// Runs every check and every test
    Test {
        /// Skip the tests in containers
        #[arg(long)]
        no_compose: bool,
    },
    /// Compares the filter with Envoy's own filters, or measures the core, the command or updates alone
    Bench {
        /// Measure the core alone: decisions and compilation, by the number of policies
        #[arg(long, conflicts_with_all = ["requests", "connections", "rounds"])]
        core: bool,
        /// Measure the command: `check` and `test`, by the number of policies
        #[arg(long, conflicts_with_all = ["core", "requests", "connections", "rounds"])]
        command: bool,
        /// Measure requests while 100 and 10,000 connections are open, with 1 and 5,000 SVIDs
        #[arg(long, conflicts_with_all = ["core", "command", "requests", "connections"])]
        open_connections: bool,
        /// Measure the latency of requests while 1,000, 10,000 and 100,000 policies are updated
        #[arg(long, conflicts_with_all = ["core", "command", "open_connections", "requests", "connections"])]
        updates: bool,
        /// Count Envoy's instructions with callgrind, of all variants or of those whose name contains NAME
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
        #[arg(conflicts_with_all = ["core", "command", "open_connections", "updates", "requests", "connections", "rounds"])]
        instructions: Option<String>,
        /// Requests for each variant and round
        #[arg(long, default_value_t = 5_000)]
        requests: u32,
        /// New connections, with one request each, for each variant and round
        #[arg(long, default_value_t = 128)]
        connections: u32,
        /// Rounds, each with every variant in a new order, or updates (default: 40; 20 with `--open-connections` or
        /// `--updates`)
        #[arg(long)]
        rounds: Option<u32>,
    },
    /// Measures that Envoy's memory does not grow with the dynamic module
    Memory {
        /// Connections, with one request each
        #[arg(long, default_value_t = 100_000)]
        connections: u32,
        /// Configurations, with one request each
        #[arg(long, default_value_t = 1000)]
        reloads: u32,
    },
    /// Compares the filter with Istio's RBAC, with random policies and requests
    Differential {
        /// Layer of the decisions: `http` for requests, `tcp` for connections
        #[arg(long, default_value = "http", value_parser = ["http", "tcp"])]
        layer: String,
        /// Adapter: the Wasm filter or the dynamic module
        #[arg(long, default_value = "wasm", value_parser = bench::ADAPTERS)]
        adapter: String,
        /// Number of verdicts
        #[arg(long, default_value_t = 100_000)]
        pairs: usize,
        /// Seed of the random policies and requests
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fuzzes the core with libFuzzer
    Fuzz {
        /// Minutes for each target
        #[arg(long, default_value_t = 1)]
        minutes: u64,
        /// Target (default: all targets)
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
    },
    /// Injects random faults under a steady load, and prints a report
    Soak {
        /// Adapter: the Wasm filter or the dynamic module
        #[arg(long, default_value = "wasm", value_parser = bench::ADAPTERS)]
        adapter: String,
        /// Duration in minutes
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Seed of the random faults (default: a new one for each run)
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Tools => tools::find_or_get_all(),
        Task::Build => tools::wasm::Toolchain::find_or_get().and_then(|toolchain| artifacts::build(&toolchain)),
        Task::Oci => oci::run(),
        Task::Demo { keep } => demo::run(keep),
        Task::Mesh { scale: true, .. } => mesh::measure(),
        Task::Mesh { keep, .. } => mesh::run(keep),
        Task::Dashboard => monitoring::write_dashboard(),
        Task::Images => images::make(),
        Task::Test { no_compose } => test::run(!no_compose),
        Task::Bench { core: true, .. } => core_bench::run(),
        Task::Bench { command: true, .. } => command_bench::run(),
        Task::Bench { open_connections: true, rounds, .. } => bench::run_open_connections(rounds.unwrap_or(20)),
        Task::Bench { updates: true, rounds, .. } => bench::run_updates(rounds.unwrap_or(20)),
        Task::Bench { instructions: Some(part), .. } => bench::run_instructions(part),
        Task::Bench { requests, connections, rounds, .. } => bench::run(requests, connections, rounds.unwrap_or(40)),
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
