//! The instructions of Envoy for a request, as callgrind counts them. Other programs on the machine do not change them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::tools;

use crate::policies::Kind;
use crate::variants::{Decider, Fixtures, Subject, Variant};

/// Requests before the count, until V8 has optimized the code of the filter.
const WARM_UP_REQUESTS: u32 = 4000;
const WARM_UP_CONNECTIONS: u32 = 40;
const REQUESTS: u32 = 2000;
const CONNECTIONS: u32 = 100;
/// Under callgrind, a VM takes a minute to start, and longer on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(900);

/// The name of callgrind's files.
const OUTPUT: &str = "callgrind";

/// Counts the instructions with each filter whose name contains `part`, one after the other, and prints the results as
/// Markdown.
pub(crate) fn run(fixtures: &Fixtures<'_>, part: &str) -> Result<()> {
    let scratch = Scratch::new()?;
    let program = wrapper(&scratch)?;
    println!(
        "Instructions of Envoy without the kernel, counted by callgrind: of {REQUESTS} requests on open connections, and of \
         {CONNECTIONS} new connections with a request each.\n"
    );
    println!("| Variant | a request | over no filter | a new connection | over no filter |\n|---|---|---|---|---|");
    let mut bare = None;
    for configured in fixtures.variants()? {
        let is_bare = configured.subject.decider == Decider::Nothing;
        if !(is_bare || is_counted(configured.subject) && configured.subject.name().contains(part)) {
            continue;
        }
        eprintln!("counting: {}", configured.subject.name());
        let variant = configured.start_with(&program, READY_LIMIT)?;
        variant.ensure_decides()?;
        variant.kept(WARM_UP_REQUESTS)?;
        variant.new_connections(WARM_UP_CONNECTIONS)?;
        let request = count(&variant, &scratch, |variant| variant.kept(REQUESTS).map(|_| ()))? / u64::from(REQUESTS);
        let connection = count(&variant, &scratch, |variant| variant.new_connections(CONNECTIONS).map(|_| ()))?
            / u64::from(CONNECTIONS);
        // The first variant has no filter.
        let (bare_request, bare_connection) = *bare.get_or_insert((request, connection));
        println!(
            "| {} | {request} | {:+} | {connection} | {:+} |",
            configured.subject.name(),
            request.cast_signed() - bare_request.cast_signed(),
            connection.cast_signed() - bare_connection.cast_signed()
        );
    }
    Ok(())
}

/// Returns `true` for variants that differ in the filter, and that answer in time although callgrind makes them slow.
const fn is_counted(subject: Subject) -> bool {
    match (subject.decider, subject.policies) {
        (Decider::ExtAuthz, _) | (_, Some((Kind::Callers, _))) => false,
        (Decider::IstiosRbac, Some((Kind::Paths, count))) => count == 1,
        (_, Some((Kind::Paths, count))) => matches!(count, 1 | 1000),
        (_, None) => true,
    }
}

/// Writes a program that runs Envoy under callgrind.
fn wrapper(scratch: &Scratch) -> Result<PathBuf> {
    let (envoy, output) = (tools::path(tools::ENVOY)?, scratch.join(OUTPUT));
    // V8 writes code at run time, which valgrind must notice.
    let script = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --smc-check=all-non-file --callgrind-out-file={} {} \"$@\"\n",
        output.display(),
        envoy.display()
    );
    let program = scratch.write("envoy-under-callgrind", &script)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

/// Returns the number of instructions while `load` runs.
fn count(variant: &Variant<'_>, scratch: &Scratch, load: impl FnOnce(&Variant<'_>) -> Result<()>) -> Result<u64> {
    let control = |action: &str| -> Result<()> {
        let mut command = Command::new("callgrind_control");
        let output =
            command.args([action, &variant.envoy.id().to_string()]).output().context("valgrind is not installed")?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    control("--zero")?;
    load(variant)?;
    control("--dump")?;
    let (file, dump) = latest_dump(scratch.path())?;
    fs::remove_file(&file)?;
    let total = dump.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.with_context(|| format!("{} has no total", file.display()))
}

/// Returns the only dump. callgrind appends a number to the name.
fn latest_dump(directory: &Path) -> Result<(PathBuf, String)> {
    let files: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let is_dump = |path: &&PathBuf| path.file_stem().is_some_and(|name| name == OUTPUT) && path.extension().is_some();
    let file = files.iter().find(is_dump).context("callgrind wrote no dump")?;
    Ok((file.clone(), fs::read_to_string(file)?))
}
