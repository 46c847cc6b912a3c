//! The two adapters, and the replacement of one with the other in a bootstrap.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result};
use serde_json::Value;

use super::{Bootstrap, CONFIGURATION, FILTER, FILTERS};

/// The JSON pointer of the fields of the access log in the server's file.
const LOG_FIELDS: &str = "/static_resources/listeners/0/filter_chains/0/filters/1/typed_config/access_log/0/typed_config/log_format/json_format";

/// The HTTP connection manager of the inner listener of the HBONE server.
const INNER_MANAGER: &str = "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config";

/// An adapter of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// The proxy-wasm filter.
    Wasm,
    /// The dynamic module.
    Module,
}

/// The labels of the counter of decisions.
const LABELS: [&str; 4] = ["spiffe_authz_mode", "spiffe_authz_verdict", "spiffe_authz_reason", "spiffe_authz_policy"];

impl Adapter {
    /// Both adapters.
    pub const ALL: [Self; 2] = [Self::Wasm, Self::Module];

    /// The server's file in examples/bootstrap.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Wasm => "server/envoy.yaml",
            Self::Module => "dynamic-module/envoy.yaml",
        }
    }

    /// The file of the TCP server in examples/bootstrap.
    #[must_use]
    pub const fn tcp_example(self) -> &'static str {
        match self {
            Self::Wasm => "tcp/envoy.yaml",
            Self::Module => "dynamic-module/tcp.yaml",
        }
    }

    /// The JSON pointer of the configuration in the server's file.
    pub(super) fn configuration(self) -> String {
        match self {
            Self::Wasm => CONFIGURATION.to_owned(),
            Self::Module => format!("{FILTER}/typed_config/filter_config/value"),
        }
    }

    /// Returns the name of the counter of connections with these values: mode, verdict, reason, policy. It has no
    /// labels in either adapter.
    #[must_use]
    pub fn tcp_counter(self, values: [&str; 4]) -> String {
        let labels = LABELS.iter().zip(values).map(|(label, value)| format!("{label}=.={value};.;"));
        let (space, counter) = match self {
            Self::Wasm => ("wasmcustom.spiffe_authz.", "decisions"),
            Self::Module => ("dynamicmodulescustom.", "spiffe_authz_decisions"),
        };
        format!("{space}{}{counter}", labels.collect::<String>())
    }

    /// Returns the name of the counter of requests with these values: mode, verdict, reason, policy.
    #[must_use]
    pub fn counter(self, values: [&str; 4]) -> String {
        match self {
            Self::Wasm => self.tcp_counter(values),
            Self::Module => {
                let labels = LABELS.iter().zip(values).map(|(label, value)| format!(".{label}.{value}"));
                format!("dynamicmodulescustom.spiffe_authz_decisions{}", labels.collect::<String>())
            }
        }
    }

    /// The name of the counter of allowed requests or connections.
    #[must_use]
    pub const fn allowed_counter(self) -> &'static str {
        match self {
            Self::Wasm => "wasmcustom.spiffe_authz.allowed",
            Self::Module => "dynamicmodulescustom.spiffe_authz_allowed",
        }
    }

    /// Returns the reason in the name of a counter of enforced denials, or `None` for any other name.
    #[must_use]
    pub fn deny_reason(self, counter: &str) -> Option<&str> {
        let any = self.counter(["enforce", "deny", "*", ""]);
        let (before, _) = any.split_once('*')?;
        let end = if self == Self::Wasm { ";.;" } else { ".spiffe_authz_policy." };
        Some(counter.strip_prefix(before)?.split_once(end)?.0)
    }
}

/// Writes the name that the commands use.
impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasm => "wasm",
            Self::Module => "module",
        })
    }
}

impl FromStr for Adapter {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|adapter| adapter.to_string() == name)
            .with_context(|| format!("unknown adapter `{name}` (expected `wasm` or `module`)"))
    }
}

impl Bootstrap {
    /// Returns an example of the Wasm filter with this adapter instead, and the same document.
    ///
    /// # Errors
    /// Returns an error if the example, or that of the module, differs from what is expected.
    pub fn with(self, adapter: Adapter) -> Result<Self> {
        match adapter {
            Adapter::Wasm => Ok(self),
            Adapter::Module => self.with_module(),
        }
    }

    /// Returns the example of the HBONE server, whose filter is in the inner listener, with this adapter and the same
    /// document.
    pub(super) fn with_inner(self, adapter: Adapter) -> Result<Self> {
        if adapter == Adapter::Wasm {
            return Ok(self);
        }
        let example = Self::example(Adapter::Module.example())?;
        let mut filter = example.at(FILTER)?.clone();
        let document = self.at(&format!("{INNER_MANAGER}/http_filters/0/typed_config/config/configuration/value"))?;
        filter["typed_config"]["filter_config"]["value"] = document.clone();
        let pointer = format!("{INNER_MANAGER}/access_log/0/typed_config/log_format/json_format");
        let mut logged = self.at(&pointer)?.clone();
        for (name, field) in logged.as_object_mut().context("the access log has no fields")? {
            *field = example.at(&format!("{LOG_FIELDS}/{name}"))?.clone();
        }
        Self { adapter, ..self }.set(&pointer, logged)?.set(&format!("{INNER_MANAGER}/http_filters/0"), filter)
    }

    /// Replaces the Wasm filter with the module and its settings from the module's example.
    fn with_module(self) -> Result<Self> {
        let example = Self::example(Adapter::Module.example())?;
        // The counters of the module have labels without stats tags.
        let mut adapted = Self { adapter: Adapter::Module, ..self.without("", "stats_config")? };

        // With the filters before it, the connection manager has the same position in every example.
        let state = example.at(&format!("{FILTERS}/0"))?;
        let filters = adapted.value.pointer_mut(FILTERS).and_then(Value::as_array_mut);
        let filters = filters.context("the example has no filters")?;
        filters.retain(|filter| filter["name"] != state["name"]);
        filters.insert(0, state.clone());

        let document = adapted.at(CONFIGURATION)?.clone();
        let mut logged = adapted.at(LOG_FIELDS)?.clone();
        for (name, field) in logged.as_object_mut().context("the access log has no fields")? {
            *field = example.at(&format!("{LOG_FIELDS}/{name}"))?.clone();
        }
        let filter = example.at(FILTER)?.clone();
        adapted.set(LOG_FIELDS, logged)?.set(FILTER, filter)?.set(&Adapter::Module.configuration(), document)
    }
}

#[cfg(test)]
mod tests {
    use super::Adapter;

    #[test]
    fn distinguishes_enforced_denials_from_other_counters() {
        for adapter in Adapter::ALL {
            let reason = |values| adapter.deny_reason(&format!("{}: 7", adapter.counter(values))).map(str::to_owned);
            let denied = reason(["enforce", "deny", "denied-by-policy", "default/nobody-reads.admin"]);
            assert_eq!(denied.as_deref(), Some("denied-by-policy"), "{adapter}");
            assert_eq!(reason(["enforce", "allow", "none", "default/sleep-reads"]), None, "{adapter}");
            assert_eq!(reason(["shadow", "deny", "denied-by-policy", "default/no-teapots"]), None, "{adapter}");
        }
    }
}
