//! One configuration of the filter on one worker.

use std::cell::{Cell, OnceCell};

use spiffe_authz::policy::{Layer, Policy};

use crate::host::{self, Level};
use crate::worker::{self, Worker};

/// What was configured, and who decides by it. Whether for requests or for connections shows with the first of them, and
/// Envoy lets an HTTP filter and a network filter of the very same configuration share this.
pub(crate) struct Plugin {
    document: Vec<u8>,
    /// As compiled when it was configured, until the first who needs it.
    policy: Cell<Option<Policy>>,
    http: OnceCell<Option<Worker>>,
    tcp: OnceCell<Option<Worker>>,
}

impl Plugin {
    /// The plugin with this configuration document, if that compiles; if not, every mistake is logged.
    pub(crate) fn new(document: Vec<u8>) -> Option<Self> {
        match Policy::from_json(&document) {
            Ok(policy) => {
                worker::declare_filter_state();
                let (http, tcp) = (OnceCell::new(), OnceCell::new());
                Some(Self { document, policy: Cell::new(Some(policy)), http, tcp })
            }
            Err(diagnostics) => {
                for diagnostic in &diagnostics {
                    host::log(Level::Error, &format!("spiffe-authz: {diagnostic}"));
                }
                let count = diagnostics.len();
                host::log(Level::Error, &format!("spiffe-authz: configuration refused: {count} to mend"));
                None
            }
        }
    }

    /// Who decides on this layer. That it is nobody cannot be, since the document has compiled.
    pub(crate) fn worker(&self, layer: Layer) -> Option<&Worker> {
        let cell = match layer {
            Layer::Http => &self.http,
            Layer::Tcp => &self.tcp,
        };
        cell.get_or_init(|| {
            let policy = self.policy.take().or_else(|| Policy::from_json(&self.document).ok())?;
            Some(Worker::new(policy.on(layer)))
        })
        .as_ref()
    }
}
