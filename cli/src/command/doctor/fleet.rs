//! Examines the proxies of a cluster. kubectl or istioctl reads their pages.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use serde::Deserialize;
use serde_json::{Value, json};
use spiffe_authz::lint::Severity;

use super::output::{self, Heading};
use super::redact::Redaction;
use crate::envoy::snapshot::{Envoy, Page, Pages};
use crate::printable::{say, styled};
use crate::report::{Finding, Report};
use crate::style::{BAD, GOOD, HEADING, NOTABLE};

/// The container with Envoy.
const CONTAINER: &str = "istio-proxy";
/// The number of pods whose pages are read at the same time.
const PARALLEL: usize = 8;

/// The pods to examine.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// The namespace, or `None` for that of kubectl's context.
    pub(super) namespace: Option<String>,
    /// Whether to examine the pods of each namespace.
    pub(super) all_namespaces: bool,
    /// The context of kubectl.
    pub(super) context: Option<String>,
}

/// A pod with a proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pod {
    namespace: String,
    workload: String,
    name: String,
}

/// The result of one pod.
type Examined = (Pod, io::Result<(Heading, Report)>);

impl Selection {
    /// Returns the pages of a pod.
    ///
    /// # Errors
    /// Returns an error with the output of kubectl and istioctl if both of them fail.
    pub(super) fn pages(&self, pod: &str, taken: i64) -> io::Result<Pages> {
        self.read(pod, self.namespace.as_deref(), taken)
    }

    /// Examines each pod that runs a proxy.
    ///
    /// # Errors
    /// Returns an error if kubectl cannot list the pods, or if none of them has a proxy.
    pub(super) fn examine(&self, now: impl Fn() -> io::Result<i64> + Sync) -> io::Result<Fleet> {
        let pods = self.list()?;
        if pods.is_empty() {
            return Err(io::Error::other(format!("no running pod has a container `{CONTAINER}`")));
        }
        let queue = Mutex::new(pods.into_iter());
        let examined: Mutex<Vec<Examined>> = Mutex::default();
        // Each thread keeps the pages of one pod only: those of a large mesh have a gigabyte for 20 pods.
        thread::scope(|scope| {
            for _ in 0..PARALLEL {
                scope.spawn(|| {
                    loop {
                        let Some(pod) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return };
                        let pages = now().and_then(|now| self.read(&pod.name, Some(&pod.namespace), now));
                        let result = pages.and_then(examine);
                        if let Ok(mut examined) = examined.lock() {
                            examined.push((pod, result));
                        }
                    }
                });
            }
        });
        let mut examined = examined.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        examined.sort_by(|(pod, _), (other, _)| pod.cmp(other));
        Ok(Fleet(examined))
    }

    fn list(&self) -> io::Result<Vec<Pod>> {
        let mut command = self.kubectl();
        command.args(["get", "pods", "-o", "json"]);
        if self.all_namespaces {
            command.arg("--all-namespaces");
        } else if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        let text = output_of(&mut command)?;
        let list: PodList = serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("kubectl get pods: {error}")))?;
        Ok(list.items.into_iter().filter(Item::has_proxy).map(Item::into_pod).collect())
    }

    /// Reads the pages with kubectl, or the dump alone with istioctl.
    fn read(&self, pod: &str, namespace: Option<&str>, taken: i64) -> io::Result<Pages> {
        let page = |page: &str| {
            let mut command = self.kubectl();
            command.arg("exec").arg(pod);
            if let Some(namespace) = namespace {
                command.args(["--namespace", namespace]);
            }
            command.args(["--container", CONTAINER, "--", "pilot-agent", "request", "GET", page]);
            output_of(&mut command)
        };
        // The report says what is unknown without these pages.
        let optional = |name: &str| page(name).ok().map(Page::from);
        let taken = Some(taken);
        match page("config_dump") {
            Ok(config_dump) => {
                Ok(Pages { config_dump: config_dump.into(), certs: optional("certs"), stats: optional("stats"), taken })
            }
            Err(of_kubectl) => {
                let mut command = Command::new("istioctl");
                command.args(["proxy-config", "all", pod, "-o", "json"]);
                if let Some(namespace) = namespace {
                    command.args(["--namespace", namespace]);
                }
                if let Some(context) = &self.context {
                    command.args(["--context", context]);
                }
                let config_dump = output_of(&mut command).map_err(|of_istioctl| {
                    io::Error::new(of_istioctl.kind(), format!("{of_kubectl}; {of_istioctl}"))
                })?;
                Ok(Pages { config_dump: config_dump.into(), certs: None, stats: None, taken })
            }
        }
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command
    }
}

fn examine(pages: Pages) -> io::Result<(Heading, Report)> {
    let envoy = Envoy::read(pages)?;
    Ok((Heading::of(&envoy), super::checks::examine(&envoy)?))
}

/// Runs a program, and returns its standard output.
fn output_of(command: &mut Command) -> io::Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(io::Error::other(format!("{program}: {}: {last}", output.status)))
}

#[derive(Deserialize)]
struct PodList {
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl Item {
    /// Returns `true` if the pod runs a proxy, which can be a native sidecar among the init containers.
    fn has_proxy(&self) -> bool {
        let Spec { containers, init_containers } = &self.spec;
        self.status.phase == "Running"
            && containers.iter().chain(init_containers).any(|container| container.name == CONTAINER)
    }

    fn into_pod(self) -> Pod {
        let Metadata { name, namespace, labels, owner_references } = self.metadata;
        let workload = owner_references.first().map_or_else(
            || name.clone(),
            |Owner { kind, name }| {
                // A ReplicaSet has the name of its Deployment and the hash of the template.
                let hash = labels.get("pod-template-hash").map(|hash| format!("-{hash}"));
                let deployment = hash.as_deref().and_then(|hash| name.strip_suffix(hash));
                deployment.filter(|_| kind == "ReplicaSet").unwrap_or(name).to_owned()
            },
        );
        Pod { namespace, workload, name }
    }
}

/// The results of several pods, by namespace and workload.
pub(super) struct Fleet(Vec<Examined>);

impl Fleet {
    /// Redacts each report.
    pub(super) fn redact(&mut self, redaction: &Redaction) {
        for (_, examined) in &mut self.0 {
            match examined {
                Ok((_, report)) => redaction.apply(report),
                Err(error) => *error = io::Error::new(error.kind(), redaction.text(&error.to_string())),
            }
        }
    }

    /// Returns the highest severity. A pod that could not be examined counts as an error.
    pub(super) fn worst(&self) -> Option<Severity> {
        let of_pod = |(_, examined): &Examined| match examined {
            Ok((_, report)) => report.worst(),
            Err(_) => Some(Severity::Error),
        };
        self.0.iter().filter_map(of_pod).max()
    }

    fn workloads(&self) -> BTreeMap<(&str, &str), Vec<&Examined>> {
        let mut workloads: BTreeMap<(&str, &str), Vec<&Examined>> = BTreeMap::new();
        for examined in &self.0 {
            workloads.entry((&examined.0.namespace, &examined.0.workload)).or_default().push(examined);
        }
        workloads
    }

    /// Writes a summary: for each workload, the number of pods with each finding.
    pub(super) fn write_human(&self, out: &mut impl Write) -> io::Result<()> {
        let (mut failed, mut pods) = (0, 0);
        for ((namespace, workload), examined) in self.workloads() {
            pods += examined.len();
            let name = styled(HEADING, &format!("{namespace}/{workload}"));
            let count = if examined.len() == 1 { "1 pod".to_owned() } else { format!("{} pods", examined.len()) };
            say!(out, "{}, {}", name, count)?;
            for (pod, examined) in &examined {
                if let Err(error) = examined {
                    failed += 1;
                    say!(out, "  {}  {}: {}", styled(BAD, "unknown"), pod.name, error)?;
                }
            }
            let reports: Vec<&Report> =
                examined.iter().filter_map(|(_, examined)| Some(&examined.as_ref().ok()?.1)).collect();
            write_findings(out, &reports)?;
        }
        let word = if pods == 1 { "pod" } else { "pods" };
        say!(out, "\n{} {}: {} examined, {} unknown", pods, word, pods - failed, failed)
    }

    /// Returns the reports as one JSON object.
    pub(super) fn as_json(&self) -> Value {
        let workloads = self.workloads().into_iter().map(|((namespace, workload), examined)| {
            let pods = examined.into_iter().map(|(pod, examined)| match examined {
                Ok((heading, report)) => json!({"pod": pod.name, "report": output::as_json(*heading, report)}),
                Err(error) => json!({"pod": pod.name, "error": error.to_string()}),
            });
            json!({"namespace": namespace, "workload": workload, "pods": pods.collect::<Vec<_>>()})
        });
        json!({"workloads": workloads.collect::<Vec<_>>()})
    }
}

/// Writes each distinct finding of a workload's pods, causes first.
fn write_findings(out: &mut impl Write, reports: &[&Report]) -> io::Result<()> {
    let mut known: Vec<(&Finding, &Report, usize)> = Vec::new();
    let findings = reports.iter().flat_map(|report| report.findings.iter().map(move |finding| (finding, *report)));
    for (finding, report) in findings {
        let is_same = |other: &Finding| other.code == finding.code && other.message == finding.message;
        match known.iter_mut().find(|(other, ..)| is_same(other)) {
            Some((.., count)) => *count += 1,
            None => known.push((finding, report, 1)),
        }
    }
    if known.is_empty() && !reports.is_empty() {
        say!(out, "  {}       no findings", styled(GOOD, "ok"))?;
    }
    for (finding, report, count) in known {
        let severity = finding.code.severity();
        let style = if severity == Severity::Error { BAD } else { NOTABLE };
        let pods = if reports.len() > 1 { format!(" [{count} of {} pods]", reports.len()) } else { String::new() };
        let cause = report.cause_of(finding);
        let cause = cause.map(|cause| format!(", a consequence of {}", cause.slug())).unwrap_or_default();
        let word = styled(style, &format!("{:8}", severity.slug()));
        say!(out, "  {} {}: {}{}{}", word, finding.code.slug(), finding.message, cause, pods)?;
    }
    Ok(())
}
