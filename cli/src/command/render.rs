//! `spiffe-authz render`: the objects and files that deploy policies.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::deploy::Part;
use crate::deploy::difference::differences;
use crate::deploy::policies::{Documents, Policies};
use crate::deploy::values::Values;
use crate::exit::{self, Ended};
use crate::input;
use crate::located;
use crate::mesh::SettingsOptions;
use crate::options::Output;
use crate::printable::say;
use crate::stream::{stderr, stdout};
use crate::yaml;

/// The time between two looks at the input with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes what deploys policies: objects of Istio, or files for Envoy
///
/// Reads Istio's AuthorizationPolicies, or one document of this project. The same input always gives the same output, so it
/// can be committed and compared. Writes the size of each object to standard error.
///
/// The proxies of a mesh get one document with every policy, and each proxy keeps those that apply to it. A dynamic module,
/// and an Envoy outside Istio, cannot find out their workload: name its namespace and labels with `--proxies`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kubectl get authorizationpolicies -A -o yaml |
    spiffe-authz render --to wasm-plugin --trust-domain example.org \\
      --image oci://registry.example.org/spiffe-authz:0.1.0 \\
      --sha256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef -
  spiffe-authz render --values values.yaml --check deployed.yaml policies/
  spiffe-authz render --to ecds --wasm /etc/spiffe-authz/spiffe-authz.wasm \\
    --proxies sidecars:default --watch -o /etc/spiffe-authz/filter.yaml httpbin.yaml

Exit status:
  0  everything is written, or is as rendered with `--check`
  1  the command could not run, or a policy cannot be deployed
  3  something differs with `--check`, or a policy is omitted with `--allow-partial`")]
pub(crate) struct Arguments {
    /// Files with AuthorizationPolicies or one document, or directories with such files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    values: Values,
    /// A YAML file with the names and values of the options above, such as `tcpPorts`. `rootNamespace` is the root namespace, and
    /// `document` has the fields of the documents without the policies. Options take precedence
    #[arg(long = "values", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    mesh: SettingsOptions,
    /// Omits the policies that cannot be deployed. The filter can then allow more than the policies
    #[arg(long)]
    allow_partial: bool,
    /// Compares with a file, such as the output of `kubectl get wasmplugins -A -o yaml`, instead of writing; `-` is standard
    /// input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "watch"])]
    check: Option<PathBuf>,
    /// Keeps running, and replaces the file of `--output` when the input changes. Keeps the file if the input has errors
    #[arg(long, requires = "output")]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

/// The result of a rendering.
struct Rendered {
    parts: Vec<Part>,
    is_partial: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    if arguments.watch {
        return watch(arguments);
    }
    let rendered = render(arguments)?;
    match &arguments.check {
        Some(file) => check(&rendered, file),
        None => {
            for Part { name, policies, bytes, .. } in &rendered.parts {
                let noun = if *policies == 1 { "policy" } else { "policies" };
                say!(stderr(), "{}: {} {}, {} bytes", name, policies, noun, bytes)?;
            }
            arguments.output.replace(&text(&rendered.parts)?)?;
            Ok(if rendered.is_partial { Ended::WithFindings } else { Ended::Well })
        }
    }
}

/// Renders the input, and writes the remarks of the import.
fn render(arguments: &Arguments) -> io::Result<Rendered> {
    let values = arguments.values.with_file(arguments.file.as_ref())?;
    let form = values.form()?;
    let settings = values.settings(arguments.mesh.settings(), &form, arguments.allow_partial)?;
    let policies = Policies::read(&arguments.files)?;
    let proxies = values.proxies(matches!(policies, Policies::Document(_)))?;
    let Documents { documents, remarks } = policies.documents(&settings, &proxies)?;
    for remark in &remarks {
        let kind = if remark.lost.is_some() { "not deployed" } else { "note" };
        say!(stderr(), "{}: {}", kind, remark)?;
    }
    let parts = form.parts(values.name(), &settings.mesh.root_namespace, documents)?;
    Ok(Rendered { parts, is_partial: remarks.iter().any(|remark| remark.lost.is_some()) })
}

/// Returns the YAML text of the parts.
fn text(parts: &[Part]) -> io::Result<Vec<u8>> {
    let mut text = b"# Written by `spiffe-authz render`.\n".to_vec();
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            text.extend(b"---\n");
        }
        yaml::write(&mut text, &part.value)?;
    }
    Ok(text)
}

/// Compares with what is deployed or committed.
fn check(rendered: &Rendered, file: &Path) -> io::Result<Ended> {
    let found = input::read_text(file).map_err(|error| input::named(file, &error))?;
    let found = located::parse_all(&found).map_err(|error| {
        let place = located::place(input::name(file), error.position);
        io::Error::other(format!("{place}: {}", error.message))
    })?;
    let found = found.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    let differences = differences(&rendered.parts, found);
    for difference in &differences {
        say!(stdout(), "{}", difference)?;
    }
    if differences.is_empty() && !rendered.is_partial {
        let count = rendered.parts.len();
        let noun = if count == 1 { "1 part is".to_owned() } else { format!("{count} parts are") };
        say!(stdout(), "{} as rendered", noun)?;
        return Ok(Ended::Well);
    }
    Ok(Ended::WithFindings)
}

/// Keeps the output up to date until the process is stopped.
fn watch(arguments: &Arguments) -> io::Result<Ended> {
    let mut seen = None;
    let mut written = None;
    loop {
        let now = content(arguments);
        if seen.as_ref() != Some(&now) {
            match render(arguments).and_then(|rendered| text(&rendered.parts)) {
                Ok(text) if written.as_ref() != Some(&text) => {
                    arguments.output.replace(&text)?;
                    say!(stderr(), "written: {} bytes", text.len())?;
                    written = Some(text);
                }
                Ok(_) => {}
                Err(error) => {
                    exit::report(&error);
                    say!(stderr(), "the file is kept")?;
                }
            }
            seen = Some(now);
        }
        thread::sleep(INTERVAL);
    }
}

/// Returns the input, to find out whether it has changed. A file that cannot be read counts as empty.
fn content(arguments: &Arguments) -> Vec<(PathBuf, Vec<u8>)> {
    let files = input::expand(&arguments.files, &mut Vec::new()).into_iter().chain(arguments.file.clone());
    files.map(|file| (file.clone(), fs::read(file).unwrap_or_default())).collect()
}
