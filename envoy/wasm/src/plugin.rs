//! One configuration of the filter on one worker.

use std::cell::OnceCell;
use std::rc::Rc;

use proxy_wasm::hostcalls::get_buffer;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{BufferType, ContextType};
use spiffe_authz::diagnostic::refusal;
use spiffe_authz::policy::{Layer, Policy};

use crate::http::Stream;
use crate::tcp::{Connection, Held};
use crate::worker::Worker;
use crate::{attributes, host};

/// The root ID of the configuration of a network filter. By their root IDs Envoy also tells apart an HTTP filter and a network
/// filter of the very same document, which would share this.
const TCP_ROOT_ID: &[u8] = b"tcp";

/// What was configured, and who decides by it.
#[derive(Default)]
pub(crate) struct Plugin {
    worker: Option<Rc<Worker>>,
    layer: Layer,
    /// What Envoy asks this for, as its first context shows.
    asked_on: OnceCell<Layer>,
    held: Held,
}

impl Plugin {
    fn asked_on(&self) -> Layer {
        *self.asked_on.get_or_init(|| {
            let asked_on = if attributes::is_request() { Layer::Http } else { Layer::Tcp };
            if asked_on != self.layer {
                log::error!("spiffe-authz: the root_id of a network filter is `tcp`, and of an HTTP filter another");
            }
            asked_on
        })
    }

    /// Who decides; nobody, where the configuration is for the other layer.
    fn worker(&self) -> Option<Rc<Worker>> {
        self.worker.as_ref().filter(|_| self.asked_on() == self.layer).map(Rc::clone)
    }
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _: usize) -> bool {
        if host::property(b"plugin_root_id").is_ok_and(|id| id.as_deref() == Some(TCP_ROOT_ID)) {
            self.layer = Layer::Tcp;
        }
        let document = get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
        let start = host::nanoseconds();
        match Policy::from_json(&document.ok().flatten().unwrap_or_default()) {
            Ok(policy) => {
                let milliseconds = host::nanoseconds().saturating_sub(start) / 1_000_000;
                let (policies, memory) = (policy.policy_count(), host::memory_mib());
                log::info!("spiffe-authz: {policies} policies compiled in {milliseconds} ms; the VM has {memory} MiB");
                self.worker = Some(Rc::new(Worker::new(policy, self.layer)));
                true
            }
            Err(diagnostics) => {
                refusal(&diagnostics).for_each(|line| log::error!("{line}"));
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(match self.asked_on() {
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
