//! The page `config_dump`, a part of it, or such a part as istioctl writes it.
//!
//! Source: Envoy's API, `envoy.admin.v3`. Fields have Envoy's names. Sections and fields that are not declared here are
//! skipped.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use spiffe_authz::policy::Workload;

use super::message::{Any, Cluster, Extension, Listener, Secret};
use super::moment::seconds;
use super::page::{self, invalid};

/// The sections of a dump. A partial dump lacks some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Section {
    Bootstrap,
    Clusters,
    Listeners,
    Secrets,
    Routes,
    Discovered,
}

/// The content of the sections.
#[derive(Debug, Default)]
pub(crate) struct ConfigDump {
    /// `user_agent_build_version.version` of the bootstrap's node.
    pub(crate) version: Value,
    /// The workload of the proxy, from the metadata of the bootstrap's node, as the Wasm filter reads it.
    pub(crate) workload: Option<Workload>,
    /// The sections that the dump contains.
    pub(crate) sections: HashSet<Section>,
    /// The listeners that serve.
    pub(crate) listeners: Vec<Listener>,
    /// New listeners, and updates of listeners, that wait.
    pub(crate) warming: Vec<Listener>,
    /// The listeners that Envoy rejected.
    pub(crate) rejected: Vec<RejectedUpdate>,
    /// The clusters that serve.
    pub(crate) clusters: Vec<Cluster>,
    /// The clusters that wait.
    pub(crate) warming_clusters: Vec<Cluster>,
    /// The clusters that Envoy rejected.
    pub(crate) rejected_clusters: Vec<RejectedUpdate>,
    /// The secrets that arrived.
    pub(crate) secrets: Vec<Secret>,
    /// The names of the secrets that Envoy waits for.
    pub(crate) warming_secrets: Vec<String>,
    /// The latest versions of discovered filters, including rejected ones.
    pub(crate) discovered: Vec<Extension>,
    /// Discovered route tables.
    pub(crate) routes: Vec<RouteTable>,
    /// The names of the bootstrap's stats tags.
    pub(crate) stats_tags: Vec<String>,
    /// The start of Envoy, as Unix time.
    pub(crate) started: Option<i64>,
    /// The latest time in the dump.
    pub(crate) latest: Option<i64>,
    of_bootstrap: StaticResources,
}

/// A discovered route table.
#[derive(Debug)]
pub(crate) struct RouteTable {
    pub(crate) name: String,
    pub(crate) table: Any,
}

/// An update that Envoy rejected.
#[derive(Debug, Clone, Default)]
pub(crate) struct RejectedUpdate {
    /// The name of the listener or cluster.
    pub(crate) name: String,
    /// The listener, if it can be parsed.
    pub(crate) listener: Listener,
    /// The message of Envoy.
    pub(crate) details: String,
    has_time: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenersDump {
    static_listeners: Vec<ListenerState>,
    dynamic_listeners: Vec<DynamicListener>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DynamicListener {
    active_state: Option<ListenerState>,
    warming_state: Option<ListenerState>,
    error_state: Option<UpdateFailure>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenerState {
    listener: Listener,
    last_updated: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UpdateFailure {
    failed_configuration: Any,
    details: String,
    last_update_attempt: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClustersDump {
    static_clusters: Vec<ClusterState>,
    dynamic_active_clusters: Vec<ClusterState>,
    dynamic_warming_clusters: Vec<ClusterState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClusterState {
    cluster: Cluster,
    last_updated: String,
    error_state: Option<UpdateFailure>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretsDump {
    static_secrets: Vec<SecretState>,
    dynamic_active_secrets: Vec<SecretState>,
    dynamic_warming_secrets: Vec<SecretState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretState {
    name: String,
    secret: Secret,
    last_updated: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiscoveredDump {
    ecds_filters: Vec<DiscoveredState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiscoveredState {
    ecds_filter: Extension,
    last_updated: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoutesDump {
    dynamic_route_configs: Vec<RouteState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RouteState {
    route_config: Any,
    last_updated: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BootstrapDump {
    bootstrap: Bootstrap,
    last_updated: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bootstrap {
    node: Value,
    stats_config: StatsConfig,
    static_resources: StaticResources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatsConfig {
    stats_tags: Vec<Value>,
}

/// The bootstrap's own resources, for a dump without the sections that repeat them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StaticResources {
    listeners: Vec<Listener>,
    clusters: Vec<Cluster>,
}

impl ConfigDump {
    /// Reads the page.
    ///
    /// # Errors
    /// Returns an error that names the problem if Envoy did not write it.
    pub(crate) fn read(page: Vec<u8>) -> io::Result<Self> {
        let text = page::json("config_dump", page::decode("config_dump", page)?)?;
        let mut dump = Self::default();
        dump.take_page(&text)?;
        if dump.sections.is_empty() {
            return Err(invalid(
                "config_dump: expected a dump of Envoy's configuration or secrets, found no section of one",
            ));
        }
        dump.use_bootstrap();
        Ok(dump)
    }

    /// Takes the resources of the bootstrap for a dump without the sections that repeat them.
    fn use_bootstrap(&mut self) {
        let StaticResources { listeners, clusters } = std::mem::take(&mut self.of_bootstrap);
        // The bootstrap alone does not show what was discovered, so the section stays missing.
        if !self.sections.contains(&Section::Clusters) {
            self.clusters = clusters;
        }
        if self.sections.contains(&Section::Bootstrap)
            && !self.sections.contains(&Section::Listeners)
            && !listeners.is_empty()
        {
            self.sections.insert(Section::Listeners);
            self.listeners = listeners;
        }
    }

    /// Reads a dump, a part of one, or a part in the form of istioctl.
    fn take_page(&mut self, text: &str) -> io::Result<()> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Top<'t> {
            #[serde(borrow)]
            configs: Option<Vec<&'t RawValue>>,
        }
        if text.trim_start().starts_with('[') {
            let items: Vec<Value> = parse("config_dump", text)?;
            return items.into_iter().try_for_each(|item| self.take_value(item));
        }
        let Top { configs } = parse("config_dump", text)?;
        match configs {
            None => self.take_value(parse("config_dump", text)?)?,
            Some(configs) if configs.is_empty() => {
                return Err(invalid("config_dump: `configs` is empty (save the page without a filter)"));
            }
            Some(configs) => configs.into_iter().try_for_each(|config| self.take(config.get()))?,
        }
        Ok(())
    }

    /// Takes a part that is not in `configs`.
    fn take_value(&mut self, mut value: Value) -> io::Result<()> {
        if value["configs"].is_array() || value["@type"].as_str().is_some_and(|kind| kind.contains("envoy.admin.v3.")) {
            let text = value.to_string();
            return if value["configs"].is_array() { self.take_page(&text) } else { self.take(&text) };
        }
        let what = page::what_is(&value);
        page::to_snake_case(&mut value);
        let has = |field: &str| !value[field].is_null();
        let kind = if ["dynamic_active_secrets", "dynamic_warming_secrets", "static_secrets"].into_iter().any(has) {
            "SecretsConfigDump"
        } else if value["bootstrap"].is_object() {
            "BootstrapConfigDump"
        } else if has("ecds_filters") {
            "EcdsConfigDump"
        } else if has("filter_chains") || has("default_filter_chain") || has("filter_chain_matcher") {
            value = serde_json::json!({"listener": value});
            "StaticListener"
        } else if has("virtual_hosts") {
            value = serde_json::json!({"route_config": value});
            "DynamicRouteConfig"
        } else if has("name")
            && ["connect_timeout", "lb_policy", "load_assignment", "cluster_type"].into_iter().any(has)
        {
            value = serde_json::json!({"cluster": value});
            "StaticCluster"
        } else {
            let what = what.unwrap_or_else(|| "JSON without `configs`".to_owned());
            return Err(invalid(&format!(
                "config_dump: expected a dump of Envoy's configuration or secrets, found {what}"
            )));
        };
        value["@type"] = serde_json::json!(format!("type.googleapis.com/envoy.admin.v3.{kind}"));
        self.take(&value.to_string())
    }

    /// Takes a section, or one of its items, which `?resource=` writes.
    fn take(&mut self, text: &str) -> io::Result<()> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Typed<'t> {
            #[serde(rename = "@type", borrow)]
            kind: Cow<'t, str>,
        }
        let Typed { kind } = of("section", text)?;
        match kind.rsplit('.').next().unwrap_or_default() {
            "BootstrapConfigDump" => self.take_bootstrap(of("bootstrap", text)?),
            "ListenersConfigDump" => self.take_listeners(of("listeners", text)?),
            "StaticListener" => {
                self.take_listeners(ListenersDump {
                    static_listeners: vec![of("listeners", text)?],
                    ..ListenersDump::default()
                });
            }
            "DynamicListener" => {
                self.take_listeners(ListenersDump {
                    dynamic_listeners: vec![of("listeners", text)?],
                    ..ListenersDump::default()
                });
            }
            "ClustersConfigDump" => self.take_clusters(of("clusters", text)?),
            "StaticCluster" | "DynamicCluster" => {
                self.take_clusters(ClustersDump {
                    static_clusters: vec![of("clusters", text)?],
                    ..ClustersDump::default()
                });
            }
            "SecretsConfigDump" => self.take_secrets(of("secrets", text)?),
            "StaticSecret" | "DynamicSecret" => {
                let state: SecretState = of("secrets", text)?;
                let has_content = state.secret.tls_certificate.is_some() || state.secret.validation_context.is_some();
                let (active, warming) = if has_content { (vec![state], Vec::new()) } else { (Vec::new(), vec![state]) };
                self.take_secrets(SecretsDump {
                    dynamic_active_secrets: active,
                    dynamic_warming_secrets: warming,
                    ..SecretsDump::default()
                });
            }
            "EcdsConfigDump" => {
                self.take_discovered(of::<DiscoveredDump>("extension configurations", text)?.ecds_filters);
            }
            "EcdsFilterConfig" => self.take_discovered(vec![of("extension configurations", text)?]),
            "RoutesConfigDump" => self.take_routes(of::<RoutesDump>("routes", text)?.dynamic_route_configs)?,
            "DynamicRouteConfig" => self.take_routes(vec![of("routes", text)?])?,
            _ => {}
        }
        Ok(())
    }

    fn saw(&mut self, time: &str) {
        self.latest = self.latest.max(seconds(time));
    }

    fn take_bootstrap(&mut self, dump: BootstrapDump) {
        let BootstrapDump { bootstrap: Bootstrap { node, stats_config, static_resources }, last_updated } = dump;
        self.sections.insert(Section::Bootstrap);
        self.version = node["user_agent_build_version"]["version"].clone();
        self.workload = workload(&node);
        let names = stats_config.stats_tags.iter().filter_map(|tag| tag["tag_name"].as_str());
        self.stats_tags = names.map(str::to_owned).collect();
        self.of_bootstrap = static_resources;
        self.started = seconds(&last_updated);
        self.saw(&last_updated);
    }

    fn take_listeners(&mut self, dump: ListenersDump) {
        let ListenersDump { static_listeners, dynamic_listeners } = dump;
        self.sections.insert(Section::Listeners);
        for state in static_listeners {
            self.saw(&state.last_updated);
            self.listeners.push(state.listener);
        }
        let mut rejected = Vec::new();
        for DynamicListener { active_state, warming_state, error_state } in dynamic_listeners {
            if let Some(state) = active_state {
                self.saw(&state.last_updated);
                self.listeners.push(state.listener);
            }
            if let Some(state) = warming_state {
                self.saw(&state.last_updated);
                self.warming.push(state.listener);
            }
            rejected.extend(error_state.map(RejectedUpdate::of));
        }
        // Envoy reports a rejected update of a known listener twice, once without the time.
        let is_repeated = |one: &RejectedUpdate| {
            !one.has_time && rejected.iter().any(|other| other.has_time && other.name == one.name)
        };
        let once: Vec<RejectedUpdate> = rejected.iter().filter(|one| !is_repeated(one)).cloned().collect();
        self.rejected.extend(once);
    }

    fn take_clusters(&mut self, dump: ClustersDump) {
        let ClustersDump { static_clusters, dynamic_active_clusters, dynamic_warming_clusters } = dump;
        self.sections.insert(Section::Clusters);
        for ClusterState { cluster, last_updated, error_state } in
            static_clusters.into_iter().chain(dynamic_active_clusters)
        {
            self.saw(&last_updated);
            self.rejected_clusters.extend(error_state.map(RejectedUpdate::of));
            self.clusters.push(cluster);
        }
        for ClusterState { cluster, last_updated, error_state } in dynamic_warming_clusters {
            self.saw(&last_updated);
            self.rejected_clusters.extend(error_state.map(RejectedUpdate::of));
            self.warming_clusters.push(cluster);
        }
    }

    fn take_secrets(&mut self, dump: SecretsDump) {
        let SecretsDump { static_secrets, dynamic_active_secrets, dynamic_warming_secrets } = dump;
        self.sections.insert(Section::Secrets);
        for SecretState { name, mut secret, last_updated } in dynamic_active_secrets.into_iter().chain(static_secrets) {
            self.saw(&last_updated);
            secret.name = name;
            self.secrets.push(secret);
        }
        for state in dynamic_warming_secrets {
            self.saw(&state.last_updated);
            self.warming_secrets.push(state.name);
        }
    }

    fn take_discovered(&mut self, states: Vec<DiscoveredState>) {
        self.sections.insert(Section::Discovered);
        for DiscoveredState { ecds_filter, last_updated } in states {
            self.saw(&last_updated);
            self.discovered.push(ecds_filter);
        }
    }

    fn take_routes(&mut self, states: Vec<RouteState>) -> io::Result<()> {
        self.sections.insert(Section::Routes);
        for RouteState { route_config, last_updated } in states {
            self.saw(&last_updated);
            let name = name_of(&route_config).map_err(|error| invalid(&format!("config_dump: routes: {error}")))?;
            self.routes.push(RouteTable { name, table: route_config });
        }
        Ok(())
    }
}

impl RejectedUpdate {
    fn of(failure: UpdateFailure) -> Self {
        let UpdateFailure { failed_configuration, details, last_update_attempt } = failure;
        // Envoy rejected it, so it need not be a listener that can be parsed.
        let listener: Listener = failed_configuration.read().unwrap_or_default();
        let name = name_of(&failed_configuration).unwrap_or_default();
        Self { name, listener, details, has_time: last_update_attempt.is_some() }
    }
}

/// Returns the workload in the metadata of a node, which Istio's bootstrap sets.
fn workload(node: &Value) -> Option<Workload> {
    let namespace = node["metadata"]["NAMESPACE"].as_str()?.to_owned();
    let label = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let labels = node["metadata"]["LABELS"].as_object().and_then(|labels| labels.iter().map(label).collect());
    let is_waypoint = node["id"].as_str().is_some_and(|id| Workload::is_waypoint_id(id.as_bytes()));
    Some(Workload { namespace, labels, is_waypoint })
}

fn name_of(message: &Any) -> Result<String, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named {
        name: String,
    }
    message.read::<Named>().map(|named| named.name)
}

fn parse<'t, T: Deserialize<'t>>(page: &str, text: &'t str) -> io::Result<T> {
    serde_json::from_str(text).map_err(|error| invalid(&format!("{page}: {error}")))
}

fn of<'t, T: Deserialize<'t>>(what: &str, text: &'t str) -> io::Result<T> {
    serde_json::from_str(text).map_err(|error| invalid(&format!("config_dump: {what}: {error}")))
}
