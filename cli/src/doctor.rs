//! `spiffe-authz doctor`: which layer of this Envoy is wrong?

mod channel;
mod checks;
mod filter;
mod output;
mod release;
mod route;
mod secrets;

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anstream::stdout;

pub(crate) use output::findings_json;

use crate::envoy::admin::Address;
use crate::envoy::dump::{Envoy, Pages};
use crate::printable::write_json;
use crate::{Ended, Format, Level, document};

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
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
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
    let envoy = Envoy::read(pages(arguments)?)?;
    let report = checks::examine(&envoy)?;
    let mut out = stdout().lock();
    match arguments.format {
        Format::Human => output::write_human(&mut out, &envoy, &report)?,
        Format::Json => write_json(&mut out, &output::as_json(&envoy, &report))?,
    }
    let failed = report.worst().is_some_and(|worst| arguments.fail_level.is_reached(worst));
    Ok(if failed { Ended::WithFindings } else { Ended::Well })
}

fn pages(arguments: &Arguments) -> io::Result<Pages> {
    if let Some(admin) = &arguments.admin {
        return Ok(Pages {
            config_dump: admin.get("config_dump")?,
            certs: Some(admin.get("certs")?),
            stats: Some(admin.get("stats")?),
            taken: Some(now()?),
        });
    }
    let Some(config_dump) = &arguments.config_dump else {
        return Err(io::Error::other("expected an admin address, or `--config-dump` with a saved page"));
    };
    let read = |page: &Option<PathBuf>| page.as_deref().map(document::read).transpose();
    Ok(Pages {
        config_dump: document::read(config_dump)?,
        certs: read(&arguments.certs)?,
        stats: read(&arguments.stats)?,
        taken: None,
    })
}

fn now() -> io::Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    i64::try_from(now).map_err(io::Error::other)
}
