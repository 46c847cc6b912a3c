//! `spiffe-authz doctor`: which layer of this Envoy is wrong?

mod admin;
mod checks;
mod dump;
mod filter;
mod finding;
mod message;
mod output;
mod release;
mod route;
mod trust;

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anstream::stdout;
use spiffe_authz::lint::Severity;

use crate::printable::write_json;
use crate::{Ended, Format, Level, document};
use admin::Address;
use dump::{Envoy, Pages};

/// Looks through a running Envoy, from its configuration to the filter, and says which layer is wrong.
///
/// It asks Envoy's admin interface for `config_dump`, `certs` and `stats`, or reads them from files. Keys are not in them:
/// Envoy leaves them out. docs/doctor.md has every finding.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The admin interface: `host:port`, `http://host:port`, or the path of a UNIX socket.
    #[arg(value_parser = Address::parse, required_unless_present = "config_dump")]
    admin: Option<Address>,
    /// A saved `config_dump`; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "certs", requires = "stats", conflicts_with = "admin")]
    config_dump: Option<PathBuf>,
    /// A saved `certs`.
    #[arg(long, value_name = "FILE", requires = "config_dump")]
    certs: Option<PathBuf>,
    /// A saved `stats`, as text or as JSON.
    #[arg(long, value_name = "FILE", requires = "config_dump")]
    stats: Option<PathBuf>,
    /// How results are written.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// The lightest finding that makes the exit status 3.
    #[arg(long, value_enum, default_value = "warning")]
    fail_level: Level,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let envoy = Envoy::read(&pages(arguments)?)?;
    let report = checks::examine(&envoy)?;
    let mut out = stdout().lock();
    match arguments.format {
        Format::Human => output::write_human(&mut out, &envoy, &report)?,
        Format::Json => write_json(&mut out, &output::as_json(&envoy, &report))?,
    }
    let worst: Option<Severity> = report.findings.iter().map(|finding| finding.check.severity()).max();
    let failed = worst.is_some_and(|worst| arguments.fail_level.is_reached(worst));
    Ok(if failed { Ended::WithFindings } else { Ended::Well })
}

fn pages(arguments: &Arguments) -> io::Result<Pages> {
    if let Some(admin) = &arguments.admin {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        return Ok(Pages {
            config_dump: admin.get("config_dump")?,
            certs: admin.get("certs")?,
            stats: admin.get("stats")?,
            taken: Some(i64::try_from(now).map_err(io::Error::other)?),
        });
    }
    let (Some(config_dump), Some(certs), Some(stats)) = (&arguments.config_dump, &arguments.certs, &arguments.stats)
    else {
        return Err(io::Error::other("wanted an admin address, or `config_dump`, `certs` and `stats`"));
    };
    Ok(Pages {
        config_dump: document::read(config_dump)?,
        certs: document::read(certs)?,
        stats: document::read(stats)?,
        taken: None,
    })
}
