//! Whether certificates and bundles reach Envoy, and where they are lost if they do not.

use super::Way;
use crate::doctor::dump::Envoy;
use crate::doctor::finding::{Check, Layer, Report};
use crate::doctor::message::{DownstreamTls, SecretConfig};

/// The name of the first identity of a workload, by SPIRE's default and as Istio has it. The others are SPIFFE IDs.
const CERTIFICATE_NAME: &str = "default";

/// What a secret is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Certificate,
    Bundle,
}

pub(super) fn check(way: &Way<'_>, tls: &DownstreamTls, envoy: &Envoy, report: &mut Report) {
    let common = &tls.common_tls_context;
    for config in &common.tls_certificate_sds_secret_configs {
        check_secret(way, config, Role::Certificate, envoy, report);
    }
    if let Some(config) = common.validation_secret() {
        check_secret(way, config, Role::Bundle, envoy, report);
    }
    if common.tls_certificates.is_empty() && common.tls_certificate_sds_secret_configs.is_empty() {
        report.find(Check::SecretMissing, &way.place, "no certificate is configured");
    }
}

fn check_secret(way: &Way<'_>, config: &SecretConfig, role: Role, envoy: &Envoy, report: &mut Report) {
    let name = &config.name;
    let place = way.place.secret(name);
    let stat = |stat: &str| envoy.stat(&format!("sds.{name}.{stat}"));
    let there = envoy.secret(name).is_some_and(|secret| match role {
        Role::Certificate => secret.tls_certificate.is_some(),
        Role::Bundle => secret.validation_context.is_some(),
    });
    let cluster = cluster(config);
    let unreachable = cluster.is_some_and(|cluster| is_unreachable(cluster, envoy));
    if let (true, Some(cluster)) = (unreachable, cluster) {
        let still = if there { "what is there stays until it expires" } else { "nothing was received" };
        report.find(Check::AgentUnreachable, &place, format!("no connection to the cluster `{cluster}`; {still}"));
    }
    if let Some(rejected @ 1..) = stat("update_rejected") {
        report.find(Check::SecretRejected, &place, format!("{rejected} updates refused since Envoy started"));
    }
    if unreachable {
        return;
    }
    let refusals = stat("update_failure").filter(|&count| count > 0);
    match (cluster, refusals) {
        // Between two tries there is no stream; a secret that was delivered once says nothing of now.
        (Some(_), Some(count)) if !there || stat("control_plane.connected_state") == Some(0) => {
            let still = if there { "; what is there stays until it expires" } else { "" };
            report.find(refusal(name, role), &place, format!("refused {count} times{still}"));
        }
        (Some(cluster), _) if there => {
            report.fine(Layer::Secrets, &place, format!("delivered by the cluster `{cluster}`"));
        }
        (None, _) if there => report.fine(Layer::Secrets, &place, "delivered"),
        (Some(cluster), _) => {
            let message = format!("nothing was received from the cluster `{cluster}`");
            report.find(Check::SecretMissing, &place, message);
        }
        (None, _) if config.sds_config.is_some() => {
            report.find(Check::SecretMissing, &place, "its source has not delivered it");
        }
        (None, _) => report.find(Check::SecretMissing, &place, "the bootstrap has no secret of this name and kind"),
    }
}

/// What it means that the agent refuses a secret: that it knows the name and not the workload, or not the name.
fn refusal(name: &str, role: Role) -> Check {
    match role {
        Role::Certificate if name == CERTIFICATE_NAME || name.starts_with("spiffe://") => Check::WorkloadUnknown,
        Role::Certificate | Role::Bundle => Check::SecretNameUnknown,
    }
}

/// The cluster that a secret is asked of.
fn cluster(config: &SecretConfig) -> Option<&str> {
    config.sds_config.as_ref()?.pointer("/api_config_source/grpc_services/0/envoy_grpc/cluster_name")?.as_str()
}

/// Whether no connection to the cluster stands, and the last tries failed.
fn is_unreachable(cluster: &str, envoy: &Envoy) -> bool {
    let stat = |stat: &str| envoy.stat(&format!("cluster.{cluster}.{stat}"));
    stat("upstream_cx_active") == Some(0) && stat("upstream_cx_connect_fail") > Some(0)
}
