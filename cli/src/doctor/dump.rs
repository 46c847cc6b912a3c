//! Envoy's own account of itself: `config_dump`, `certs` and `stats`, as far as the doctor looks at them.
//!
//! Source: Envoy's API, `envoy.admin.v3`. Fields keep Envoy's names; what is not named here is not looked at.

use std::collections::HashMap;
use std::io;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spiffe_authz::certificate::Described;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::message::{Extension, Listener, Secret};
use super::release::Release;

const NO_TIME: &str =
    "config_dump: the bootstrap's `last_updated` is not in it: Envoy's own page is wanted, not istioctl's form of it";

/// One Envoy, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Envoy {
    /// The release; `None` if the dump does not contain it.
    pub(crate) release: Option<Release>,
    /// When it was asked, in seconds since 1970.
    pub(crate) taken: i64,
    /// The listeners that serve.
    pub(crate) listeners: Vec<Listener>,
    /// Listeners that wait, new ones or as they are to become.
    pub(crate) warming: Vec<Listener>,
    /// Listeners that were refused.
    pub(crate) refused: Vec<Refused>,
    /// Secrets that arrived.
    pub(crate) secrets: Vec<Secret>,
    /// Filters by extension config discovery, as they came last: refused ones, too.
    pub(crate) discovered: Vec<Extension>,
    /// Route configurations that came by discovery.
    pub(crate) routes: Vec<Value>,
    /// The names of the bootstrap's stats tags.
    pub(crate) stats_tags: Vec<String>,
    /// Certificates in use.
    pub(crate) certificates: Vec<Certificates>,
    /// Counters and gauges.
    pub(crate) stats: HashMap<String, u64>,
}

/// A listener that Envoy did not take.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refused {
    #[serde(rename = "failed_configuration")]
    pub(crate) listener: Listener,
    /// Envoy's words.
    pub(crate) details: String,
    last_update_attempt: Option<String>,
}

/// The certificates of one TLS context.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Certificates {
    pub(crate) ca_cert: Vec<Certificate>,
    pub(crate) cert_chain: Vec<Certificate>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Certificate {
    pub(crate) path: String,
    subject_alt_names: Vec<Name>,
    expiration_time: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Name {
    uri: Option<String>,
}

impl Certificate {
    /// The same as the core tells of a certificate that it reads; `None` when Envoy does not tell the date.
    pub(crate) fn described(&self) -> Option<Described> {
        let uris = self.subject_alt_names.iter().filter_map(|name| name.uri.as_deref().map(Box::from)).collect();
        Some(Described { uris, not_after: seconds(&self.expiration_time)? })
    }
}

/// The three pages, as Envoy wrote them.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) config_dump: Vec<u8>,
    pub(crate) certs: Vec<u8>,
    pub(crate) stats: Vec<u8>,
    /// When they were asked for; `None` when they were saved before, and tell it themselves.
    pub(crate) taken: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigDump {
    configs: Vec<Value>,
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
    error_state: Option<Refused>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenerState {
    listener: Listener,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretsDump {
    static_secrets: Vec<SecretState>,
    dynamic_active_secrets: Vec<SecretState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretState {
    name: String,
    secret: Secret,
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
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoutesDump {
    dynamic_route_configs: Vec<RouteState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RouteState {
    route_config: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CertificatesDump {
    certificates: Vec<Certificates>,
}

impl Envoy {
    /// Reads the pages.
    ///
    /// # Errors
    /// When one is not what Envoy writes.
    pub(crate) fn read(pages: &Pages) -> io::Result<Self> {
        let dump: ConfigDump = parse("config_dump", &pages.config_dump)?;
        if dump.configs.is_empty() {
            return Err(invalid("config_dump: there is no configuration in it"));
        }
        let certificates: CertificatesDump = parse("certs", &pages.certs)?;
        let stats = read_stats(&pages.stats)?;
        let mut envoy = Self { certificates: certificates.certificates, stats, ..Self::default() };
        let mut started = None;
        for config in dump.configs {
            match config["@type"].as_str().and_then(|kind| kind.rsplit('.').next()) {
                Some("BootstrapConfigDump") => started = envoy.take_bootstrap(&config),
                Some("ListenersConfigDump") => envoy.take_listeners(of("listeners", config)?),
                Some("SecretsConfigDump") => envoy.take_secrets(of("secrets", config)?),
                Some("EcdsConfigDump") => {
                    let discovered: DiscoveredDump = of("extension configurations", config)?;
                    envoy.discovered = discovered.ecds_filters.into_iter().map(|state| state.ecds_filter).collect();
                }
                Some("RoutesConfigDump") => {
                    let routes: RoutesDump = of("routes", config)?;
                    envoy.routes = routes.dynamic_route_configs.into_iter().map(|state| state.route_config).collect();
                }
                _ => {}
            }
        }
        let saved =
            || started.map(|started: i64| started.saturating_add_unsigned(envoy.stat("server.uptime").unwrap_or(0)));
        envoy.taken = pages.taken.or_else(saved).ok_or_else(|| invalid(NO_TIME))?;
        Ok(envoy)
    }

    /// A counter or gauge; `None` when Envoy does not have it, or was told not to keep it.
    pub(crate) fn stat(&self, name: &str) -> Option<u64> {
        self.stats.get(name).copied()
    }

    /// A secret that arrived.
    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.iter().find(|secret| secret.name == name)
    }

    /// Takes what the bootstrap tells; returns when Envoy started.
    fn take_bootstrap(&mut self, config: &Value) -> Option<i64> {
        let bootstrap = &config["bootstrap"];
        self.release = Release::read(&bootstrap["node"]["user_agent_build_version"]["version"]);
        let tags = bootstrap["stats_config"]["stats_tags"].as_array();
        let names = tags.into_iter().flatten().filter_map(|tag| tag["tag_name"].as_str());
        self.stats_tags = names.map(str::to_owned).collect();
        config["last_updated"].as_str().and_then(seconds)
    }

    fn take_listeners(&mut self, dump: ListenersDump) {
        self.listeners.extend(dump.static_listeners.into_iter().map(|state| state.listener));
        for DynamicListener { active_state, warming_state, error_state } in dump.dynamic_listeners {
            self.listeners.extend(active_state.map(|state| state.listener));
            self.warming.extend(warming_state.map(|state| state.listener));
            self.refused.extend(error_state);
        }
        // Envoy tells a refused update of a known listener twice, once without the time.
        let refused = std::mem::take(&mut self.refused);
        let told = |one: &Refused| {
            one.last_update_attempt.is_none()
                && refused
                    .iter()
                    .any(|other| other.last_update_attempt.is_some() && other.listener.name == one.listener.name)
        };
        self.refused = refused.iter().filter(|one| !told(one)).cloned().collect();
    }

    fn take_secrets(&mut self, dump: SecretsDump) {
        let SecretsDump { static_secrets, dynamic_active_secrets } = dump;
        for SecretState { name, mut secret } in dynamic_active_secrets.into_iter().chain(static_secrets) {
            secret.name = name;
            self.secrets.push(secret);
        }
    }
}

/// Counters and gauges, from either form of `stats`.
fn read_stats(page: &[u8]) -> io::Result<HashMap<String, u64>> {
    #[derive(Deserialize)]
    struct Stats {
        stats: Vec<Value>,
    }
    if page.trim_ascii_start().starts_with(b"{") {
        let page: Stats = parse("stats", page)?;
        let pair = |stat: &Value| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?));
        return Ok(page.stats.iter().filter_map(pair).collect());
    }
    let text = std::str::from_utf8(page).map_err(|_| invalid("stats: neither JSON nor text"))?;
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    let stats: HashMap<String, u64> = text.lines().filter_map(pair).collect();
    if stats.is_empty() { Err(invalid("stats: there is no counter in it")) } else { Ok(stats) }
}

fn parse<T: DeserializeOwned>(page: &str, text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text).map_err(|error| invalid(&format!("{page}: {error}")))
}

fn of<T: DeserializeOwned>(what: &str, config: Value) -> io::Result<T> {
    serde_json::from_value(config).map_err(|error| invalid(&format!("config_dump: {what}: {error}")))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

fn seconds(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}
