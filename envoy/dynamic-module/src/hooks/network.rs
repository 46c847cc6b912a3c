//! The hooks of network filters.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null};

use spiffe_authz::worker::Lease;

use super::guarded;
use crate::abi::Buffer;
use crate::abi::network::{NetworkFilter, NetworkFilterConfig};
use crate::network::NetworkConfiguration;

const CONTINUE: c_int = 0;
const STOP_ITERATION: c_int = 1;
/// `envoy_dynamic_module_type_network_connection_event_Connected`: after the TLS handshake, before the first byte.
const CONNECTED: c_int = 2;

/// The filter of a connection, as the host stores it.
struct Filter {
    configuration: NonNull<NetworkConfiguration>,
    /// Only the hooks of this connection access it, and they run on one thread.
    state: Cell<State>,
    /// The number of times that other filters had disabled reading before it was enabled for the handshake.
    reading_disabled: Cell<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No decision yet.
    Pending,
    Allowed(Lease),
    Denied,
}

impl Filter {
    /// Decides the connection, and closes it if it is denied.
    fn decide(&self, mut host: NetworkFilter<'_>) {
        // A connection is denied until it is allowed.
        self.state.set(State::Denied);
        // SAFETY: this is the pointer that `config_new` returned. The host keeps it as long as its filters.
        let configuration = unsafe { self.configuration.as_ref() };
        match guarded(|| configuration.on_connection(&mut host), || Err(crate::network::failed())) {
            Ok(lease) => self.state.set(State::Allowed(lease)),
            // The host calls other hooks of this filter before this returns.
            Err(details) => host.close(&details),
        }
    }

    /// Continues if the connection is allowed.
    fn pass(&self) -> c_int {
        if matches!(self.state.get(), State::Allowed(_)) { CONTINUE } else { STOP_ITERATION }
    }

    /// Continues if the connection is allowed. Decides again if the earlier decision is no longer valid.
    fn pass_now(&self, host: NetworkFilter<'_>) -> c_int {
        if let State::Allowed(lease) = self.state.get() {
            // SAFETY: as in `decide`.
            let configuration = unsafe { self.configuration.as_ref() };
            if !guarded(|| configuration.holds(&host, &lease), || false) {
                self.decide(host);
            }
        }
        self.pass()
    }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_config_new(
    host: *mut c_void,
    name: Buffer<'_>,
    text: Buffer<'_>,
) -> *const c_void {
    let new = || {
        // SAFETY: the host lends both buffers during this hook.
        let (name, text) = unsafe { (name.get(), text.get()) };
        // SAFETY: the host passes it to this hook.
        let mut host = unsafe { NetworkFilterConfig::new(host) };
        NetworkConfiguration::new(&mut host, name, text)
            .map_or(null(), |new| Box::into_raw(Box::new(new)).cast_const().cast())
    };
    guarded(new, null)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_config_destroy(config: *mut c_void) {
    // SAFETY: the host passes, once, the pointer that `config_new` returned, after the last filter of it was destroyed.
    guarded(|| drop(unsafe { Box::from_raw(config.cast::<NetworkConfiguration>()) }), || ());
}

/// Returns NULL, which closes the connection, without a configuration.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_new(
    config: *mut c_void,
    _host: *mut c_void,
) -> *const c_void {
    NonNull::new(config.cast()).map_or(null(), |configuration| {
        let filter = Filter { configuration, state: Cell::new(State::Pending), reading_disabled: Cell::new(0) };
        Box::into_raw(Box::new(filter)).cast_const().cast()
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_destroy(filter: *mut c_void) {
    // SAFETY: the host passes, once, the pointer that `filter_new` returned.
    drop(unsafe { Box::from_raw(filter.cast::<Filter>()) });
}

/// Runs `hook` on a filter. Stops if there is none.
fn on(filter: *const c_void, hook: impl FnOnce(&Filter) -> c_int) -> c_int {
    // SAFETY: the host passes the pointer that `filter_new` returned, until `destroy`. Hooks can be nested, and make only shared
    // references.
    unsafe { filter.cast::<Filter>().as_ref() }.map_or(STOP_ITERATION, hook)
}

/// Wraps the pointer of the current hook.
const fn filter_of<'h>(host: *mut c_void) -> NetworkFilter<'h> {
    // SAFETY: every caller is a hook to which the host passes it.
    unsafe { NetworkFilter::new(host) }
}

/// Runs before the TLS handshake. The next filters, and the upstream, are notified when the connection is allowed.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_new_connection(
    host: *mut c_void,
    filter: *const c_void,
) -> c_int {
    on(filter, |filter| {
        let mut host = filter_of(host);
        if host.is_tls() {
            // `tcp_proxy` disables reading until it has an upstream. It connects to one when it is notified of the connection, which
            // is after the handshake, and the handshake must read.
            filter.reading_disabled.set(host.enable_reading());
        } else {
            // There is no handshake to wait for.
            filter.decide(host);
        }
        filter.pass()
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_event(
    host: *mut c_void,
    filter: *const c_void,
    event: c_int,
) {
    let decide = |filter: &Filter| {
        if event == CONNECTED && filter.state.get() == State::Pending {
            filter.decide(filter_of(host));
            if filter.pass() == CONTINUE {
                let mut host = filter_of(host);
                host.disable_reading(filter.reading_disabled.take());
                host.continue_reading();
            }
        }
        CONTINUE
    };
    on(filter, decide);
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_read(
    host: *mut c_void,
    filter: *const c_void,
    _length: usize,
    _end_of_stream: bool,
) -> c_int {
    on(filter, |filter| filter.pass_now(filter_of(host)))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_write(
    host: *mut c_void,
    filter: *const c_void,
    _length: usize,
    _end_of_stream: bool,
) -> c_int {
    on(filter, |filter| filter.pass_now(filter_of(host)))
}
