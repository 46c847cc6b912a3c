//! Whether certificates and bundles reach Envoy, and where they are lost if they do not.

use super::Way;
use crate::doctor::dump::Envoy;
use crate::doctor::finding::{Check, Layer, Report};
use crate::doctor::message::{DownstreamTls, SecretConfig};

/// The names that SPIRE answers to by default and as Istio has it, besides SPIFFE IDs.
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
    if there && !unreachable {
        let source = cluster.map_or_else(String::new, |cluster| format!(" by the cluster `{cluster}`"));
        report.fine(Layer::Secrets, &place, format!("delivered{source}"));
    }
    if there || unreachable {
        return;
    }
    let asked = stat("update_failure").unwrap_or(0);
    match (cluster, role) {
        (Some(cluster), _) if asked == 0 => {
            report.find(Check::SecretMissing, &place, format!("nothing was received from the cluster `{cluster}`"));
        }
        (Some(_), Role::Certificate) if name == CERTIFICATE_NAME || name.starts_with("spiffe://") => {
            report.find(Check::WorkloadUnknown, &place, format!("refused {asked} times"));
        }
        (Some(_), Role::Certificate) => {
            let message = format!("refused {asked} times; SPIRE's names are `{CERTIFICATE_NAME}` and SPIFFE IDs");
            report.find(Check::SecretNameUnknown, &place, message);
        }
        (Some(_), Role::Bundle) => {
            let message = format!(
                "refused {asked} times; names are those of `sds` in agent.conf and trust domains as SPIFFE IDs"
            );
            report.find(Check::SecretNameUnknown, &place, message);
        }
        (None, _) if config.sds_config.is_some() => {
            report.find(Check::SecretMissing, &place, "its source has not delivered it");
        }
        (None, _) => report.find(Check::SecretMissing, &place, "the bootstrap has no secret of this name and kind"),
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
