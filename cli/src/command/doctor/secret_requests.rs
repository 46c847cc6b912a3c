//! The secrets that an Envoy requests: by listeners, by clusters, and for neither.

use std::collections::HashMap;
use std::io;

use super::channel::Channel;
use crate::envoy::matchers::Matchers;
use crate::envoy::message::{Cluster, CommonTls, SecretConfig};
use crate::envoy::page::invalid;
use crate::envoy::snapshot::Envoy;
use crate::envoy::tls::upstream_tls;
use crate::report::Place;

/// The content that Envoy uses a secret for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Certificate,
    Bundle,
    /// Envoy waits for it, and no TLS context in the dump uses it.
    Unknown,
}

/// The source of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SecretSource {
    /// The bootstrap.
    Bootstrap,
    /// A gRPC service behind this cluster, as the SPIRE agent is.
    Cluster(String),
    /// A file, or the control plane.
    Other,
}

/// A secret that Envoy requests.
#[derive(Debug)]
pub(crate) struct SecretRequest {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) source: SecretSource,
    /// The listeners and clusters that use it.
    pub(crate) places: Vec<Place>,
}

/// Clusters with the same TLS settings, except for the matchers of subject alternative names.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) tls: CommonTls,
    /// The clusters, with their matchers.
    pub(crate) clusters: Vec<(Place, Matchers)>,
}

/// The secrets that an Envoy requests, and the TLS settings of its clusters.
#[derive(Debug, Default)]
pub(crate) struct SecretRequests {
    pub(crate) requests: Vec<SecretRequest>,
    pub(crate) upstreams: Vec<Upstream>,
    positions: HashMap<(String, Role, SecretSource), usize>,
}

impl SecretRequests {
    /// Collects the secrets of these channels and of each cluster.
    ///
    /// # Errors
    /// Returns an error if the TLS settings of a cluster cannot be parsed.
    pub(crate) fn of(channels: &[Channel<'_>], envoy: &Envoy) -> io::Result<Self> {
        let mut all = Self::default();
        for channel in channels {
            if let Some(tls) = &channel.tls {
                all.add_context(&tls.common_tls_context, &channel.place);
            }
        }
        for cluster in envoy.dump.clusters.iter().chain(&envoy.dump.warming_clusters) {
            all.add_cluster(cluster)?;
        }
        for name in &envoy.dump.warming_secrets {
            if !all.requests.iter().any(|request| request.name == *name) {
                all.add(name, Role::Unknown, SecretSource::Other, &Place::default());
            }
        }
        Ok(all)
    }

    fn add_cluster(&mut self, cluster: &Cluster) -> io::Result<()> {
        let contexts = upstream_tls(cluster)
            .map_err(|error| invalid(&format!("config_dump: cluster {}: {error}", cluster.name)))?;
        let place = Place::cluster(&cluster.name);
        for context in contexts {
            let mut tls = context.common_tls_context;
            self.add_context(&tls, &place);
            let matchers = tls.take_matchers();
            match self.upstreams.iter_mut().find(|upstream| upstream.tls == tls) {
                Some(upstream) => upstream.clusters.push((place.clone(), matchers)),
                None => self.upstreams.push(Upstream { tls, clusters: vec![(place.clone(), matchers)] }),
            }
        }
        Ok(())
    }

    fn add_context(&mut self, tls: &CommonTls, place: &Place) {
        for (config, role) in secrets(tls) {
            self.add(&config.name, role, source(config), place);
        }
    }

    fn add(&mut self, name: &str, role: Role, source: SecretSource, place: &Place) {
        let place = place.secret(name);
        let key = (name.to_owned(), role, source.clone());
        let next = self.requests.len();
        let position = *self.positions.entry(key).or_insert(next);
        match self.requests.get_mut(position) {
            // The same context can be in a listener twice, one after the other.
            Some(request) if request.places.last() == Some(&place) => {}
            Some(request) => request.places.push(place),
            None => self.requests.push(SecretRequest { name: name.to_owned(), role, source, places: vec![place] }),
        }
    }

    /// Returns the position of the request for a secret. Another source can have a secret of the same name.
    pub(crate) fn position(&self, config: &SecretConfig, role: Role) -> Option<usize> {
        self.positions.get(&(config.name.clone(), role, source(config))).copied()
    }
}

/// Returns the secrets that TLS settings use.
pub(crate) fn secrets(tls: &CommonTls) -> impl Iterator<Item = (&SecretConfig, Role)> {
    let certificates = tls.tls_certificate_sds_secret_configs.iter().map(|config| (config, Role::Certificate));
    certificates.chain(tls.validation_secret().map(|config| (config, Role::Bundle)))
}

/// Returns the source of a secret.
pub(crate) fn source(config: &SecretConfig) -> SecretSource {
    let Some(source) = &config.sds_config else { return SecretSource::Bootstrap };
    let cluster = source.pointer("/api_config_source/grpc_services/0/envoy_grpc/cluster_name");
    cluster
        .and_then(serde_json::Value::as_str)
        .map_or(SecretSource::Other, |cluster| SecretSource::Cluster(cluster.to_owned()))
}
