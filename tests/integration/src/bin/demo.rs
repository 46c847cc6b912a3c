//! Runs real SPIRE and Envoy processes, and prints which callers were allowed, which were denied, and why.
//!
//! Run it with `cargo xtask demo`, which provides the programs that it needs.

use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::environment::{Environment, SVID_TTL};
use spiffe_authz_integration::envoy::Envoy;
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::interruption;
use spiffe_authz_integration::scratch::Scratch;

const CALLERS: [&str; 3] = ["sleep", "curl", "stranger"];

/// The caller, the method and the path of a request, and the status that the policies of the example give it.
const REQUESTS: [(&str, &str, &str, u16); 9] = [
    ("sleep", "GET", "/status/200", 200),
    ("sleep", "GET", "/public/news", 200),
    ("sleep", "POST", "/public/news", 403),
    ("sleep", "GET", "/public/admin", 403),
    ("sleep", "GET", "/status/418", 200),
    ("curl", "GET", "/public/news", 200),
    ("curl", "GET", "/status/200", 403),
    ("curl", "GET", "/public/../public//admin", 403),
    ("stranger", "GET", "/public/news", 403),
];

fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    interruption::run(keep, move |scratch| demonstrate(scratch, keep))
}

fn demonstrate(scratch: &Scratch, keep: bool) -> Result<()> {
    eprintln!("starting the SPIRE server and agent of example.org, and the Envoy of httpbin");
    let environment = Environment::start(Adapter::Wasm, scratch.path(), SVID_TTL, Ok)?;
    eprintln!("starting the Envoys of the callers: {}", CALLERS.join(", "));
    let callers = CALLERS.iter().map(|name| Ok((*name, environment.caller(name)?))).collect::<Result<Vec<_>>>()?;
    let statuses = REQUESTS.iter().map(|request| send_request(&callers, request)).collect::<Result<Vec<_>>>()?;
    let log = environment.server.access_log_of(REQUESTS.len())?;
    print!("{}", table(&log));
    let shadow = Adapter::Wasm.counter(["shadow", "deny", "denied-by-policy", "default/no-teapots"]);
    let would = environment.server.stat(&shadow)?.unwrap_or(0);
    println!(
        "\nThe policy default/no-teapots is in shadow mode: it allowed {would} request that it would deny if enforced."
    );
    for ((caller, method, path, expected), status) in REQUESTS.iter().zip(statuses) {
        ensure!(status == *expected, "{caller} {method} {path}: expected {expected}, but the status is {status}");
    }
    if keep {
        print_hints(&environment, &callers)?;
        loop {
            thread::park();
        }
    }
    Ok(())
}

fn send_request(callers: &[(&str, Envoy)], (caller, method, path, _): &(&str, &str, &str, u16)) -> Result<u16> {
    let (_, envoy) = callers.iter().find(|(name, _)| name == caller).context("no such caller")?;
    Ok(Client::plain(envoy.address()?)?.request(method, path, &[])?.status)
}

/// Formats the access log of the server's Envoy as a table.
fn table(log: &[Value]) -> String {
    let mut rows = vec![["CALLER", "REQUEST", "STATUS", "DECISION"].map(str::to_owned)];
    for line in log {
        let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
        let request = format!("{} {}", text("method"), text("path"));
        rows.push([text("peer"), request, line["status"].to_string(), text("decision")]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn print_hints(environment: &Environment<'_>, callers: &[(&str, Envoy)]) -> Result<()> {
    println!("\nThe demo runs until you press Ctrl-C. Commands to try:");
    for (name, envoy) in callers {
        println!("  curl -i http://{}/public/news   # as {name}", envoy.address()?);
    }
    println!(
        "  curl -s http://{}/stats?filter=spiffe_authz   # the filter's counters",
        environment.server.admin_address()
    );
    Ok(())
}
