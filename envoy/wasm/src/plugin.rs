//! A configuration of the filter on a worker.

use std::cell::OnceCell;
use std::rc::Rc;

use proxy_wasm::hostcalls::get_buffer;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{BufferType, ContextType};
use spiffe_authz::diagnostic::rejection;
use spiffe_authz::policy::{Layer, PolicySet, Proxy};

use crate::http::Stream;
use crate::tcp::{Connection, Held};
use crate::worker::Worker;
use crate::{attributes, host, node};

/// The root ID of the configuration of a network filter. Envoy also needs it to distinguish an HTTP filter and a network filter with
/// the same document.
const TCP_ROOT_ID: &[u8] = b"tcp";

/// A configuration and its worker.
#[derive(Default)]
pub(crate) struct Plugin {
    worker: Option<Rc<Worker>>,
    layer: Layer,
    /// The layer of the filter, which its first context shows.
    actual_layer: OnceCell<Layer>,
    held: Held,
}

impl Plugin {
    fn actual_layer(&self) -> Layer {
        *self.actual_layer.get_or_init(|| {
            let actual = if attributes::is_request() { Layer::Http } else { Layer::Tcp };
            if actual != self.layer {
                log::error!(
                    "spiffe-authz: `root_id: tcp` is required in a network filter, and not allowed in an HTTP filter"
                );
            }
            actual
        })
    }

    /// The worker, or `None` if the configuration is for the other layer.
    fn worker(&self) -> Option<Rc<Worker>> {
        self.worker.as_ref().filter(|_| self.actual_layer() == self.layer).map(Rc::clone)
    }
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _: usize) -> bool {
        if host::property(b"plugin_root_id").is_ok_and(|id| id.as_deref() == Some(TCP_ROOT_ID)) {
            self.layer = Layer::Tcp;
        }
        let document = get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
        let workload = node::workload();
        let proxy = workload.as_ref().map_or(Proxy::Unknown, Proxy::Of);
        let start = host::nanoseconds();
        match PolicySet::from_json_for(&document.ok().flatten().unwrap_or_default(), proxy) {
            Ok(policies) => {
                let milliseconds = host::nanoseconds().saturating_sub(start) / 1_000_000;
                let (count, memory) = (policies.policy_count(), host::memory_mib());
                log::info!("spiffe-authz: {count} policies compiled in {milliseconds} ms; the VM has {memory} MiB");
                self.worker = Some(Rc::new(Worker::new(policies, self.layer)));
                true
            }
            Err(diagnostics) => {
                rejection(&diagnostics).for_each(|line| log::error!("{line}"));
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(match self.actual_layer() {
            Layer::Http => ContextType::HttpContext,
            Layer::Tcp => ContextType::StreamContext,
        })
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(self.worker())))
    }

    fn create_stream_context(&self, context: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Connection::new(context, self.worker(), self.held.clone())))
    }

    fn on_tick(&mut self) {
        self.held.on_tick();
    }
}
