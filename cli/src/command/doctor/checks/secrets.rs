//! The delivery of certificates and bundles to Envoy.

use std::collections::HashSet;

use super::{Context, Problem};
use crate::command::doctor::secret_requests::{Role, SecretRequest, SecretRequests, SecretSource};
use crate::envoy::config_dump::Section;
use crate::envoy::message::Cluster;
use crate::envoy::snapshot::Envoy;
use crate::envoy::stats::{Count, Scope};
use crate::finding::{FindingCode, FindingLayer};
use crate::report::{FindingId, Place, Report};

/// SPIRE's default name for the first identity of a workload, which Istio requests. The others are SPIFFE IDs.
const CERTIFICATE_NAME: &str = "default";
/// Names that Istio gives to certificates in files. SPIRE rejects them.
const FILE_NAMES: [&str; 2] = ["file-cert:", "file-root:"];

/// Checks each secret once, and returns the problem of each.
pub(super) fn check(requests: &SecretRequests, envoy: &Envoy, report: &mut Report) -> Vec<Option<Problem>> {
    let problems = requests.requests.iter().map(|request| judge(request, envoy, report)).collect();
    check_others(requests, envoy, report);
    problems
}

/// Reports the problems of secrets that nothing in the dump uses, as in a partial dump.
fn check_others(requests: &SecretRequests, envoy: &Envoy, report: &mut Report) {
    const PROBLEMS: [(&str, FindingCode); 4] = [
        ("update_failure", FindingCode::AgentUnknown),
        ("init_fetch_timeout", FindingCode::AgentUnknown),
        ("update_rejected", FindingCode::SecretRejected),
        ("key_rotation_failed", FindingCode::SecretRejected),
    ];
    let known: HashSet<String> =
        requests.requests.iter().map(|request| envoy.stats.of_secret(&request.name).prefix().to_owned()).collect();
    for (counter, code) in PROBLEMS {
        for (name, count) in envoy.stats.ending_with(&format!(".{counter}")) {
            let prefix = name.strip_suffix(counter).unwrap_or(name);
            if prefix.starts_with("sds.") && !known.contains(prefix) {
                let message = format!("`{name}` is {count}, and no listener or cluster in the dump uses this secret");
                report.find(code, &Place::default(), message);
            }
        }
    }
}

/// Checks that TLS settings have a certificate at all.
pub(super) fn check_certificate_exists(context: Context<'_>, report: &mut Report) {
    let Context { tls, places } = context;
    let has_certificate = !tls.tls_certificates.is_empty()
        || !tls.tls_certificate_sds_secret_configs.is_empty()
        || tls.custom_tls_certificate_selector.is_some();
    if !has_certificate {
        report.find_each(FindingCode::SecretMissing, places, "the TLS settings have no certificate");
    }
}

/// The arrival of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Arrived,
    /// The secret arrived with other content.
    Unreadable,
    Missing,
    /// The dump has no section of secrets, or does not show whether the secret comes from this source.
    Unknown,
}

/// The connection to the cluster that a secret comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Connected,
    /// There is no connection, and attempts failed.
    Unreachable,
    /// There is no connection, and no attempt failed.
    Idle,
    /// Envoy does not keep the counters.
    Unknown,
}

fn judge(request: &SecretRequest, envoy: &Envoy, report: &mut Report) -> Option<Problem> {
    let SecretRequest { name, role: _, source, places } = request;
    let arrival = arrival(request, envoy);
    let stats = envoy.stats.of_secret(name);
    let mut rejected = None;
    if let Some(count) = stats.count("update_rejected").some() {
        let message = format!("Envoy rejected {} of the secret since its start", updates(count));
        rejected = Some(report.find_each(FindingCode::SecretRejected, places, message));
    }
    if let Some(count) = stats.count("key_rotation_failed").some() {
        let message = format!("Envoy could not read {} of the files of the secret since its start", updates(count));
        rejected = Some(report.find_each(FindingCode::SecretRejected, places, message));
    }
    let finding = match source {
        SecretSource::Cluster(cluster) => judge_agent(request, cluster, (arrival, rejected), &stats, envoy, report),
        _ => judge_other(request, (arrival, rejected), &stats, report),
    };
    if arrival == Arrival::Arrived { finding.or(rejected).map(Problem::Stale) } else { finding.map(Problem::Missing) }
}

/// Checks a secret from a file, from the bootstrap, or from a gRPC service that is not a cluster.
fn judge_other(
    request: &SecretRequest,
    (arrival, rejected): (Arrival, Option<FindingId>),
    stats: &Scope<'_>,
    report: &mut Report,
) -> Option<FindingId> {
    let SecretRequest { name: _, role, source, places } = request;
    let failures = stats.count("update_failure").some();
    match arrival {
        Arrival::Arrived => {
            // A file has no stream.
            let is_closed = stats.count("control_plane.connected_state") == Count::Zero;
            if let Some(count) = failures.filter(|_| is_closed) {
                let message = format!(
                    "it is unknown whether the source still answers: there is no stream, and {} failed",
                    updates(count)
                );
                report.find_each(FindingCode::AgentUnknown, places, message);
            } else {
                report.fine_each(FindingLayer::Secrets, places, "delivered");
            }
            None
        }
        Arrival::Unreadable => Some(unreadable(request, report)),
        Arrival::Missing => {
            let message = match (source, role) {
                (SecretSource::Bootstrap, _) => "the bootstrap has no secret of this name and kind",
                (_, Role::Unknown) => "Envoy waits for the secret, and no listener or cluster in the dump uses it",
                (_, Role::Certificate | Role::Bundle) => "the source has not delivered the secret",
            };
            let failed = failures.map(|count| format!("; {} failed", updates(count))).unwrap_or_default();
            Some(missing(request, format!("{message}{failed}"), rejected, report))
        }
        Arrival::Unknown => None,
    }
}

/// Reports a secret that has not arrived. Returns the finding that explains it: Envoy can have rejected it.
fn missing(request: &SecretRequest, message: String, rejected: Option<FindingId>, report: &mut Report) -> FindingId {
    let finding = report.follow_each(FindingCode::SecretMissing, &request.places, message, rejected);
    rejected.unwrap_or(finding)
}

fn judge_agent(
    request: &SecretRequest,
    cluster: &str,
    (arrival, rejected): (Arrival, Option<FindingId>),
    stats: &Scope<'_>,
    envoy: &Envoy,
    report: &mut Report,
) -> Option<FindingId> {
    let SecretRequest { name, role: _, source: _, places } = request;
    // A partial dump can lack the cluster, whose counters then have its name.
    let by_name = Cluster { name: cluster.to_owned(), ..Cluster::default() };
    let counters = envoy.stats.of_cluster(envoy.cluster(cluster).unwrap_or(&by_name));
    let agent = agent(&counters);
    let is_here = arrival == Arrival::Arrived;
    let failures = stats.count("update_failure");
    let connected = stats.count("control_plane.connected_state");
    let remains = if is_here { "; the secret that arrived remains until it expires" } else { "" };
    if agent == Agent::Unreachable {
        let remains = if arrival == Arrival::Missing { "; nothing was received" } else { remains };
        let message = format!("no connection to the cluster `{cluster}`{remains}");
        return Some(report.find_each(FindingCode::AgentUnreachable, places, message));
    }
    // Between two attempts there is no stream. A secret that arrived does not show that the stream is open now. If its
    // arrival is unknown, the failures can be older than the secret.
    if let Some(count) = failures.some()
        && agent == Agent::Connected
        && (matches!(arrival, Arrival::Missing | Arrival::Unreadable) || connected == Count::Zero)
    {
        let (check, why) = rejection(request);
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let message = format!("the agent rejected the request {times}: {why}{}{remains}", hint(name));
        return Some(report.find_each(check, places, message));
    }
    match arrival {
        Arrival::Unreadable => Some(unreadable(request, report)),
        Arrival::Missing => {
            let message = format!(
                "nothing was received from the cluster `{cluster}`{}",
                reason(agent, failures, &counters, envoy)
            );
            Some(missing(request, format!("{message}{}", hint(name)), rejected, report))
        }
        Arrival::Unknown => None,
        Arrival::Arrived => {
            let is_known = failures.known().is_some() && connected.known().is_some();
            if agent == Agent::Connected && is_known {
                report.fine_each(
                    FindingLayer::Secrets,
                    places,
                    format!("the cluster `{cluster}` delivered it and is connected"),
                );
            } else {
                let why = match agent {
                    Agent::Idle => format!("there is no connection to the cluster `{cluster}`, and no attempt failed"),
                    _ => unknown(&counters, envoy),
                };
                report.find_each(
                    FindingCode::AgentUnknown,
                    places,
                    format!("it is unknown whether `{cluster}` is still connected: {why}"),
                );
            }
            None
        }
    }
}

fn updates(count: u64) -> String {
    if count == 1 { "1 update".to_owned() } else { format!("{count} updates") }
}

fn arrival(request: &SecretRequest, envoy: &Envoy) -> Arrival {
    let Some(secret) = envoy.secret(&request.name) else {
        return if envoy.has(Section::Secrets) { Arrival::Missing } else { Arrival::Unknown };
    };
    // Then several sources have a secret of this name, and the dump does not show which of them has delivered it.
    if envoy.dump.warming_secrets.contains(&request.name) {
        return Arrival::Unknown;
    }
    let (certificate, bundle) = (secret.tls_certificate.is_some(), secret.validation_context.is_some());
    match (request.role, certificate, bundle) {
        (Role::Certificate, true, _) | (Role::Bundle, _, true) => Arrival::Arrived,
        (_, false, false) => Arrival::Missing,
        _ => Arrival::Unreadable,
    }
}

fn unreadable(request: &SecretRequest, report: &mut Report) -> FindingId {
    let what = if request.role == Role::Certificate { "certificate" } else { "validation context" };
    report.find_each(FindingCode::SecretUnreadable, &request.places, format!("the secret has no {what}"))
}

fn agent(counters: &Scope<'_>) -> Agent {
    match (counters.count("upstream_cx_active"), counters.count("upstream_cx_connect_fail")) {
        (Count::Some(_), _) => Agent::Connected,
        (Count::Zero, Count::Some(_)) => Agent::Unreachable,
        (Count::Zero, Count::Zero) => Agent::Idle,
        (Count::Zero, Count::Unknown) | (Count::Unknown, _) => Agent::Unknown,
    }
}

/// Returns the reason why the agent rejects a request: it does not know the workload, or does not know the name.
fn rejection(request: &SecretRequest) -> (FindingCode, &'static str) {
    let name = &request.name;
    let is_identity = name == CERTIFICATE_NAME || name.starts_with("spiffe://");
    match request.role {
        Role::Certificate if is_identity => {
            (FindingCode::WorkloadUnknown, "no registration entry matches this workload")
        }
        Role::Bundle if name.starts_with("spiffe://") => {
            (FindingCode::SecretNameUnknown, "it has no bundle of this trust domain for the workload")
        }
        _ => (FindingCode::SecretNameUnknown, "it has no secret of this name"),
    }
}

/// Returns the explanation for a name that SPIRE never has.
fn hint(name: &str) -> &'static str {
    if FILE_NAMES.iter().any(|start| name.starts_with(start)) {
        "; SPIRE does not know names that Istio writes for files, as for `caCertificates` in a DestinationRule"
    } else {
        ""
    }
}

fn reason(agent: Agent, failures: Count, counters: &Scope<'_>, envoy: &Envoy) -> String {
    match (agent, failures) {
        (Agent::Unknown, Count::Some(count)) => {
            format!(" after {count} attempts: it is unknown whether it rejects the request or cannot be reached")
        }
        (Agent::Unknown, _) | (_, Count::Unknown) => format!(", for an unknown reason: {}", unknown(counters, envoy)),
        (Agent::Idle, _) => ": Envoy has not connected to it".to_owned(),
        _ => String::new(),
    }
}

/// Returns why the state of the agent is unknown, and how to see it.
fn unknown(counters: &Scope<'_>, envoy: &Envoy) -> String {
    if !envoy.stats.is_present() {
        return "the page `stats` is missing".to_owned();
    }
    let prefix = counters.prefix();
    format!(
        "Envoy does not keep the counters `sds.*` and `{prefix}*`; in Istio, annotate the pod with \
         `proxy.istio.io/config: '{{proxyStatsMatcher: {{inclusionPrefixes: [\"sds.\", \"{prefix}\"]}}}}'`"
    )
}
