//! `spiffe-authz import`: a configuration document from Istio's AuthorizationPolicies.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anstream::{stderr, stdout};
use serde_json::{Value, json};
use spiffe_authz::policy::PolicySet;

use crate::exit::Ended;
use crate::istio::import::{Importer, Workload};
use crate::istio::remark::Remark;
use crate::istio::trust_domain_bundle::TrustDomainBundle;
use crate::options::Format;
use crate::printable::{say, styled, write_json, write_pretty_json};
use crate::style::{BAD, NOTABLE};
use crate::{input, yaml};

/// Converts Istio's AuthorizationPolicies to a configuration document
///
/// Reads YAML or JSON: several documents, lists, and the output of `kubectl get -o yaml`. The versions are
/// security.istio.io/v1 and v1beta1. Writes the document to standard output, and each difference between the document
/// and the policies to standard error.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status:\n  0  the document has every policy\n  1  the command could not run\n  3  a part of a policy cannot be imported"
)]
pub(crate) struct Arguments {
    /// Files with AuthorizationPolicies; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The mesh's trust domain
    #[arg(long)]
    trust_domain: String,
    /// One of the mesh's `trustDomainAliases`, which principals get in the same way as in Istio; can be repeated
    #[arg(long = "trust-domain-alias", value_name = "TRUST_DOMAIN")]
    aliases: Vec<String>,
    /// A trust domain to federate with; can be repeated
    #[arg(long = "federated-trust-domain", value_name = "TRUST_DOMAIN")]
    federated: Vec<String>,
    /// The namespace whose policies without a selector apply to the whole mesh
    #[arg(long, default_value = "istio-system")]
    root_namespace: String,
    /// The namespace of the workload whose policies are imported [default: every policy is imported]
    #[arg(long)]
    namespace: Option<String>,
    /// A label of the workload, `name=value`; can be repeated; policies that select other workloads are skipped
    #[arg(long = "label", value_name = "LABEL", value_parser = parse_label, requires = "namespace")]
    labels: Vec<(String, String)>,
    /// The output format of the differences
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let Arguments { trust_domain, aliases, federated, root_namespace, .. } = arguments;
    let workload = arguments
        .namespace
        .as_ref()
        .map(|namespace| Workload { namespace, labels: arguments.labels.iter().cloned().collect() });
    let mut importer = Importer::new(TrustDomainBundle::new(trust_domain, aliases), root_namespace, workload);
    for file in &arguments.files {
        let text = input::read(file)?;
        let of_file = |message: String| io::Error::other(format!("{}: {message}", file.display()));
        let text = std::str::from_utf8(&text).map_err(|error| of_file(error.to_string()))?;
        let resources: Vec<Value> = yaml::from_multiple(text).map_err(|error| of_file(yaml::message(&error)))?;
        let name = file.display().to_string();
        resources.iter().for_each(|resource| importer.add(resource, &name));
    }
    let document = json!({
        "trustDomain": trust_domain,
        "federatedTrustDomains": federated,
        "trustDomainAliases": aliases,
        "policies": importer.policies(),
    });
    let errors = PolicySet::from_json(document.to_string().as_bytes()).err().unwrap_or_default();
    let remarks = importer.remarks(&errors);
    write_remarks(&remarks, arguments.format)?;
    write_pretty_json(&mut stdout(), &document)?;
    Ok(if remarks.iter().any(|remark| remark.lost) { Ended::WithFindings } else { Ended::Well })
}

fn write_remarks(remarks: &[Remark], format: Format) -> io::Result<()> {
    let mut err = stderr().lock();
    for Remark { place, field, lost, message } in remarks {
        match format {
            Format::Human => {
                let kind = if *lost { styled(BAD, "not imported") } else { styled(NOTABLE, "note") };
                let field = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
                say!(err, "{}: {}: {}{}", place, kind, field, message)?;
            }
            Format::Json => {
                let remark = json!({"place": place, "field": field, "lost": lost, "message": message});
                write_json(&mut err, &remark)?;
            }
        }
    }
    Ok(())
}
