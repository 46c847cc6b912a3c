//! The machine and the programs of a measurement.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use spiffe_authz_integration::tools;
use time::UtcDateTime;

/// Describes the date, the machine and the release of Envoy. A load beyond the measurement's own makes its times
/// useless, so the load average is part of it.
pub(crate) fn describe() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg")?;
    let version = Command::new(tools::path(tools::ENVOY)?).arg("--version").output()?;
    // Such as `…/envoy  version: 9e558093…/1.40.0/Clean/RELEASE/BoringSSL`.
    let version = String::from_utf8(version.stdout)?;
    Ok(format!(
        "{}: Envoy {}, one worker, on {} cores ({}); load average of the minute before: {}.",
        UtcDateTime::now().date(),
        version.rsplit('/').nth(3).context("unexpected version of Envoy")?,
        thread::available_parallelism()?,
        model.map_or("unknown", |(_, model)| model),
        load.split(' ').next().unwrap_or_default(),
    ))
}
