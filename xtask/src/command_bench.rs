//! The benchmark of the command: CPU time and memory of `check`, `test`, `diff`, `who` and `matrix` by the number of
//! policies, and of `learn` and `prune` by the number of log lines, as a table.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{process, workspace};

/// The clock ticks of `/proc` in a second, on Linux.
const TICKS: f64 = 100.0;
/// A run of `check`: the number of policies, and the target in seconds of CPU time.
const CHECKS: [(u32, f64); 3] = [(1_000, 0.1), (10_000, 1.0), (50_000, 5.0)];
/// The number of policies and of cases of `test`, and the target.
const TEST: (u32, f64) = (10_000, 2.0);
/// The number of AuthorizationPolicies, and the target.
const AUTHORIZATION_POLICIES: (u32, f64) = (10_000, 1.0);
/// The number of policies of `diff`, and the target. Ten of them differ.
const DIFF: (u32, f64) = (1_000, 2.0);
/// The number of policies of `who`, and the target.
const WHO: (u32, f64) = (10_000, 2.0);
/// The number of AuthorizationPolicies of `matrix`, that of their workloads, and the target.
const MATRIX: (u32, u32, f64) = (10_000, 500, 5.0);
/// The number of log lines of `learn` and `prune`, and the target.
const LOG: (u32, f64) = (1_000_000, 10.0);
/// The number of callers in the log, and of policies of `prune`.
const LOG_CALLERS: u32 = 1_000;
/// The number of runs, of which the median is printed.
const RUNS: usize = 5;
/// The interval at which the memory of a run is read. The kernel keeps the peak.
const INTERVAL: Duration = Duration::from_millis(5);

/// Builds the command, measures it, and prints the table.
pub(crate) fn run() -> Result<()> {
    process::run(&mut process::cargo(&["build", "--quiet", "--locked", "--release", "--package", "spiffe-authz-cli"]))?;
    let directory = workspace::target().join("command-bench");
    fs::create_dir_all(&directory)?;
    println!("\n| Command | CPU seconds | target | | MiB |\n|---|---|---|---|---|");
    for (count, target) in CHECKS {
        let document = write(&directory, &format!("policies-{count}.json"), &document(count))?;
        print(&format!("`check`, {count} policies"), &["check".as_ref(), &document], target)?;
    }
    let (count, target) = AUTHORIZATION_POLICIES;
    let policies = write(&directory, "authorization-policies.json", &authorization_policies(count, count))?;
    let arguments = ["check".as_ref(), "--trust-domain".as_ref(), "example.org".as_ref(), &*policies];
    print(&format!("`check`, {count} AuthorizationPolicies"), &arguments, target)?;
    let (count, target) = TEST;
    let policies = format!("policies-{count}.json");
    let cases: Vec<Value> = (0..count).map(case).collect();
    let table = write(&directory, "table.json", &json!({"policy": policies, "cases": cases}))?;
    print(&format!("`test`, {count} cases, {count} policies"), &["test".as_ref(), &table], target)?;
    let (count, target) = DIFF;
    let old = write(&directory, "old.json", &document(count))?;
    let new = write(&directory, "new.json", &changed(count))?;
    // The new document allows less, so the status is 0.
    let arguments = ["diff".as_ref(), "--fail-on".as_ref(), "granted".as_ref(), &*old, &new];
    print(&format!("`diff`, {count} policies, of which 10 differ"), &arguments, target)?;
    let (count, target) = WHO;
    let document = write(&directory, "who.json", &document(count))?;
    print(&format!("`who`, everything that {count} policies allow"), &["who".as_ref(), &document], target)?;
    let arguments = ["who".as_ref(), "--path".as_ref(), "/items/7/1".as_ref(), &*document];
    print(&format!("`who --path`, {count} policies"), &arguments, target)?;
    let (count, workloads, target) = MATRIX;
    let policies = write(&directory, "mesh.json", &authorization_policies(count, workloads))?;
    for format in ["json", "html"] {
        let arguments = ["matrix", "--trust-domain", "example.org", "--format", format]
            .map(Path::new)
            .into_iter()
            .chain([&*policies]);
        let name = format!("`matrix --format {format}`, {count} AuthorizationPolicies, {workloads} workloads");
        print(&name, &arguments.collect::<Vec<_>>(), target)?;
    }
    let (count, target) = LOG;
    let log = directory.join("access.log");
    write_log(&log, count)?;
    let arguments = ["learn".as_ref(), "--trust-domain".as_ref(), "example.org".as_ref(), &*log];
    print(&format!("`learn`, {count} lines of {LOG_CALLERS} callers"), &arguments, target)?;
    let document = write(&directory, "prune.json", &self::document(LOG_CALLERS))?;
    let arguments = ["prune".as_ref(), &*document, &*log];
    print(&format!("`prune`, {count} lines, {LOG_CALLERS} policies"), &arguments, target)?;
    // Hundreds of megabytes.
    fs::remove_file(&log)?;
    Ok(())
}

/// Writes an access log in which each caller reads a hundred of its items.
fn write_log(file: &Path, count: u32) -> Result<()> {
    let mut log = BufWriter::new(fs::File::create(file)?);
    for number in 0..count {
        let (caller, item) = (number % LOG_CALLERS, number / LOG_CALLERS % 100);
        let line = json!({
            "time": "2026-01-31T12:00:00.000Z", "method": "GET", "path": format!("/items/{caller}/{item}?page=1"), "host": "httpbin",
            "port": 8443, "source_ip": "10.0.0.7", "remote_ip": "10.0.0.7", "sni": null, "status": 200, "details": "via_upstream",
            "peer": format!("spiffe://example.org/ns/default/sa/workload-{caller}"), "decision": format!("allow default/p{caller} 0"),
        });
        writeln!(log, "{line}")?;
    }
    log.flush()?;
    Ok(())
}

/// The policies of [`document`], of which ten allow less: a path that is longer.
fn changed(count: u32) -> Value {
    let mut document = document(count);
    let policies = document["policies"].as_array_mut().into_iter().flatten();
    for (number, policy) in policies.enumerate().step_by(count as usize / 10) {
        policy["rules"][0]["to"][0]["operation"]["paths"] = json!([format!("/items/{number}/public/*")]);
    }
    document
}

/// Policies that allow another workload each to read another path.
fn document(count: u32) -> Value {
    let policy = |number: u32| {
        json!({"name": format!("p{number}"), "namespace": "default", "rules": [{
            "from": [{"source": {"serviceAccounts": [format!("workload-{number}")]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [format!("/items/{number}/*")]}}],
        }]})
    };
    json!({"trustDomain": "example.org", "policies": (0..count).map(policy).collect::<Vec<_>>()})
}

/// The same policies as Istio's resources, in a hundred namespaces, for this number of workloads.
fn authorization_policies(count: u32, workloads: u32) -> Value {
    let policy = |number: u32| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("p{number}"), "namespace": format!("n{}", number % 100)},
            "spec": {"selector": {"matchLabels": {"app": format!("app-{}", number % workloads)}}, "rules": [{
                "from": [{"source": {"serviceAccounts": [format!("workload-{number}")]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": [format!("/items/{number}/*")]}}],
            }]},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": (0..count).map(policy).collect::<Vec<_>>()})
}

fn case(number: u32) -> Value {
    json!({
        "name": format!("workload {number} reads its items"),
        "request": {"peer": format!("spiffe://example.org/ns/default/sa/workload-{number}"), "path": format!("/items/{number}/1")},
        "expect": {"verdict": "allow", "policy": format!("default/p{number}")},
    })
}

fn write(directory: &Path, name: &str, value: &Value) -> Result<PathBuf> {
    let file = directory.join(name);
    fs::write(&file, value.to_string()).with_context(|| format!("{}: cannot write the file", file.display()))?;
    Ok(file)
}

fn print(name: &str, arguments: &[&Path], target: f64) -> Result<()> {
    let mut runs = (0..RUNS).map(|_| run_once(arguments)).collect::<Result<Vec<Usage>>>()?;
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let Usage { seconds, .. } = *runs.get(RUNS / 2).context("no run")?;
    let memory = runs.iter().map(|run| run.memory).max().unwrap_or_default() / 1024;
    let result = if seconds <= target { "met" } else { "missed" };
    println!("| {name} | {seconds:.2} | {target} | {result} | {memory} |");
    Ok(())
}

/// The CPU time and memory of a run of the command.
#[derive(Clone, Copy)]
struct Usage {
    /// The CPU time in seconds.
    seconds: f64,
    /// The largest resident memory in KiB.
    memory: u64,
}

/// Runs the command, which must succeed.
fn run_once(arguments: &[&Path]) -> Result<Usage> {
    let before = ticks_of_children()?;
    let mut command = Command::new(workspace::target().join("release/spiffe-authz"));
    // `learn` writes its report to standard error.
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut memory = 0;
    let status = loop {
        memory = peak_memory(child.id()).unwrap_or(memory);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(INTERVAL);
    };
    if !status.success() {
        bail!("{} failed ({status})", process::shown(&command));
    }
    Ok(Usage { seconds: (ticks_of_children()? - before) / TICKS, memory })
}

/// Returns the largest resident memory of a running process in KiB (proc_pid_status(5)).
fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Returns the user and system time of the ended children of this process, in clock ticks (proc_pid_stat(5), fields 16 and
/// 17).
fn ticks_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, can contain spaces. Field 3 follows it.
    let (_, fields) = stat.rsplit_once(") ").context("unexpected format of /proc/self/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    ticks(16).zip(ticks(17)).map(|(user, system)| user + system).context("no times in /proc/self/stat")
}
