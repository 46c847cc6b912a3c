//! `spiffe-authz import`: Istio's AuthorizationPolicies to a configuration document.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anstream::{stderr, stdout};
use serde_json::{Value, json};
use spiffe_authz::policy::PolicySet;

use crate::exit::Ended;
use crate::istio::convert::{Importer, Remark, Workload};
use crate::options::Format;
use crate::printable::{say, styled, write_json, write_pretty_json};
use crate::style::{BAD, NOTABLE};
use crate::{document, yaml};

/// Converts Istio's AuthorizationPolicies to a configuration document.
///
/// Reads YAML or JSON: several documents, lists, `kubectl get -o yaml`; security.istio.io/v1 and v1beta1. The document goes to
/// standard output. Whatever it says otherwise than the policies is reported on standard error; what cannot be said makes the
/// exit status 3.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files with AuthorizationPolicies; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The mesh's trust domain.
    #[arg(long)]
    trust_domain: String,
    /// The mesh's `trustDomainAliases`; can be given several times. Principals are rewritten to them as Istio does.
    #[arg(long = "trust-domain-alias", value_name = "TRUST_DOMAIN")]
    aliases: Vec<String>,
    /// Trust domains to federate with; can be given several times.
    #[arg(long = "federated-trust-domain", value_name = "TRUST_DOMAIN")]
    federated: Vec<String>,
    /// The namespace whose policies without selector hold in the whole mesh.
    #[arg(long, default_value = "istio-system")]
    root_namespace: String,
    /// The workload's namespace: only policies that hold there are taken. Without it, all are.
    #[arg(long)]
    namespace: Option<String>,
    /// A label of the workload, `name=value`; can be given several times. Policies that select others are left out.
    #[arg(long = "label", value_name = "LABEL", value_parser = parse_label, requires = "namespace")]
    labels: Vec<(String, String)>,
    /// How reports are written.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let workload = arguments
        .namespace
        .as_ref()
        .map(|namespace| Workload { namespace, labels: arguments.labels.iter().cloned().collect() });
    let mut importer = Importer::new(&arguments.trust_domain, &arguments.aliases, &arguments.root_namespace, workload);
    for file in &arguments.files {
        let text = document::read(file)?;
        let wrong = |message: String| io::Error::other(format!("{}: {message}", file.display()));
        let text = std::str::from_utf8(&text).map_err(|error| wrong(error.to_string()))?;
        let resources: Vec<Value> = yaml::from_multiple(text).map_err(|error| wrong(yaml::message(&error)))?;
        resources.iter().for_each(|resource| importer.add(resource));
    }
    let (policies, mut remarks) = importer.finish();
    let document = json!({
        "trustDomain": arguments.trust_domain,
        "federatedTrustDomains": arguments.federated,
        "trustDomainAliases": arguments.aliases,
        "policies": policies,
    });
    if let Err(diagnostics) = PolicySet::from_json(document.to_string().as_bytes()) {
        for diagnostic in diagnostics {
            remarks.push(Remark { place: diagnostic.pointer.clone(), lost: true, message: diagnostic.to_string() });
        }
    }
    report(&remarks, arguments.format)?;
    write_pretty_json(&mut stdout(), &document)?;
    Ok(if remarks.iter().any(|remark| remark.lost) { Ended::WithFindings } else { Ended::Well })
}

fn report(remarks: &[Remark], format: Format) -> io::Result<()> {
    let mut err = stderr().lock();
    for Remark { place, lost, message } in remarks {
        match format {
            Format::Human => {
                let kind = if *lost { styled(BAD, "not imported") } else { styled(NOTABLE, "note") };
                say!(err, "{}: {}: {}", place, kind, message)?;
            }
            Format::Json => write_json(&mut err, &json!({"place": place, "lost": lost, "message": message}))?,
        }
    }
    Ok(())
}
