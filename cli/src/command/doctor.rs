//! `spiffe-authz doctor`: the problems of an Envoy, layer by layer.

mod channel;
mod checks;
mod compiled;
mod fleet;
mod installation;
#[cfg(test)]
mod mutations;
mod output;
mod redact;
mod release;
mod route_overrides;
mod secret_requests;

pub(crate) use release::OF_MODULE as SUPPORTED;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use spiffe_authz::lint::Severity;
use spiffe_authz::timestamp::Timestamp;

use crate::clock;
use crate::envoy::admin::AdminAddress;
use crate::envoy::snapshot::{Envoy, Page, Pages};
use crate::exit::Ended;
use crate::options::{Format, Level};
use crate::printable::write_json;
use crate::stream::stdout;
use fleet::Selection;
use output::Heading;
use redact::Redaction;

/// Examines an Envoy layer by layer, and reports problems with remedies
///
/// Reads `config_dump`, `certs` and `stats` from the admin interface, from files, or from the pods of a cluster with kubectl
/// or istioctl. Envoy omits private keys from these pages. docs/reference/doctor-findings.md describes every finding.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz doctor localhost:9901
  spiffe-authz doctor httpbin-7d8f -n default
  spiffe-authz doctor --config-dump config_dump.json --certs certs.json \\
    --stats stats.txt

Exit status:
  0  no findings of the fail level or above
  1  the command could not run
  3  a finding of the fail level or above")]
pub(crate) struct Arguments {
    /// The admin interface (`host:port`, `http://host:port` or the path of a UNIX socket), or the name of a pod
    #[arg(value_name = "ADMIN|POD", value_parser = Target::parse)]
    target: Option<Target>,
    /// The namespace of the pod; without a pod, every proxy in the namespace is examined
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Examines every proxy in every namespace
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "target"])]
    all_namespaces: bool,
    /// The context of kubectl and istioctl
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// A saved page `config_dump`, or a part of it; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "namespace", "all_namespaces", "context"])]
    config_dump: Option<PathBuf>,
    /// A saved page `certs`
    #[arg(long, value_name = "FILE", requires = "config_dump")]
    certs: Option<PathBuf>,
    /// A saved page `stats`, as text or JSON
    #[arg(long, value_name = "FILE", requires = "config_dump")]
    stats: Option<PathBuf>,
    /// Removes addresses and secrets from the report, so that it can be attached to an issue
    #[arg(long)]
    redact: bool,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
    /// The lowest severity of a finding for which the exit status is 3
    #[arg(long, value_enum, default_value = "warning")]
    fail_level: Level,
}

/// The Envoy to examine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Admin(AdminAddress),
    Pod(String),
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let is_pod = text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
            && text != "localhost"
            && text.parse::<IpAddr>().is_err();
        if is_pod { Ok(Self::Pod(text.to_owned())) } else { AdminAddress::parse(text).map(Self::Admin) }
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let redaction = arguments.redact.then(Redaction::default);
    let pods = Selection {
        namespace: arguments.namespace.clone(),
        all_namespaces: arguments.all_namespaces,
        context: arguments.context.clone(),
    };
    let pages = match (&arguments.target, &arguments.config_dump) {
        (Some(Target::Admin(_)), _) if arguments.namespace.is_some() || arguments.context.is_some() => {
            return Err(io::Error::other("`--namespace` and `--context` are only allowed with the name of a pod"));
        }
        (Some(Target::Admin(admin)), _) => read_admin(admin)?,
        (Some(Target::Pod(pod)), _) => {
            pods.pages(pod, now()?).map_err(|error| io::Error::new(error.kind(), format!("pod `{pod}`: {error}")))?
        }
        (None, Some(config_dump)) => read_files(config_dump, arguments)?,
        (None, None) if arguments.namespace.is_none() && !arguments.all_namespaces => {
            let message = "no Envoy to examine (give an admin interface, a pod, `--config-dump`, `--namespace` or `--all-namespaces`)";
            return Err(io::Error::other(message));
        }
        (None, None) => return run_on(&pods, redaction.as_ref(), arguments),
    };
    let envoy = Envoy::read(pages)?;
    let heading = Heading::of(&envoy);
    let mut report = checks::examine(&envoy)?;
    if let Some(redaction) = &redaction {
        redaction.apply(&mut report);
    }
    let mut out = stdout();
    match arguments.format {
        Format::Human => output::write_human(&mut out, heading, &report)?,
        Format::Json => write_json(&mut out, &output::as_json(heading, &report))?,
    }
    Ok(ended(report.worst(), arguments))
}

/// Examines several pods.
fn run_on(pods: &Selection, redaction: Option<&Redaction>, arguments: &Arguments) -> io::Result<Ended> {
    let mut fleet = pods.examine(now)?;
    if let Some(redaction) = redaction {
        fleet.redact(redaction);
    }
    let mut out = stdout();
    match arguments.format {
        Format::Human => fleet.write_human(&mut out)?,
        Format::Json => write_json(&mut out, &fleet.as_json())?,
    }
    Ok(ended(fleet.worst(), arguments))
}

fn ended(worst: Option<Severity>, arguments: &Arguments) -> Ended {
    let failed = worst.is_some_and(|worst| arguments.fail_level.is_reached(worst));
    if failed { Ended::WithFindings } else { Ended::Well }
}

fn read_admin(admin: &AdminAddress) -> io::Result<Pages> {
    Ok(Pages {
        config_dump: admin.get("config_dump")?.into(),
        certs: Some(admin.get("certs")?.into()),
        stats: Some(admin.get("stats")?.into()),
        taken: Some(now()?),
    })
}

fn read_files(config_dump: &Path, arguments: &Arguments) -> io::Result<Pages> {
    let read = |page: &Option<PathBuf>| page.as_deref().map(Page::of_file).transpose();
    Ok(Pages {
        config_dump: Page::of_file(config_dump)?,
        certs: read(&arguments.certs)?,
        stats: read(&arguments.stats)?,
        taken: None,
    })
}

fn now() -> io::Result<i64> {
    clock::now().map(Timestamp::seconds)
}

#[cfg(test)]
mod tests {
    use super::{AdminAddress, Target};

    #[test]
    fn targets_are_addresses_or_pods() {
        for pod in ["httpbin-5c7d9c8b6-x2x9k", "web-0", "0a.b"] {
            assert_eq!(Target::parse(pod), Ok(Target::Pod(pod.to_owned())));
        }
        for address in ["127.0.0.1:9901", "/run/admin.sock", "http://localhost:15000", "unix:admin.sock"] {
            assert_eq!(Target::parse(address), AdminAddress::parse(address).map(Target::Admin));
        }
        for neither in ["", "127.0.0.1", "::", "localhost", "https://a:1", "-x", "Pod", "a:b"] {
            assert!(Target::parse(neither).is_err(), "{neither}");
        }
    }
}
