//! The interface of network filters.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null};

use super::{Buffer, Counter, guarded};
use crate::network::NetworkConfiguration;
use spiffe_authz::worker::Lease;

const SUCCESS: c_int = 0;
const CONTINUE: c_int = 0;
const STOP_ITERATION: c_int = 1;
/// `envoy_dynamic_module_type_network_connection_event_Connected`: after the TLS handshake, before the first byte.
const CONNECTED: c_int = 2;
/// `envoy_dynamic_module_type_network_connection_close_type_NoFlush`
const NO_FLUSH: c_int = 1;
/// How many filters after this one may forbid to read at once.
const MAX_FORBIDDEN: u32 = 16;

unsafe extern "C" {
    fn envoy_dynamic_module_callback_network_filter_config_define_counter(
        config: *mut c_void,
        name: Buffer<'_>,
        id: *mut usize,
    ) -> c_int;
    fn envoy_dynamic_module_callback_network_filter_increment_counter(filter: *mut c_void, id: usize, by: u64)
    -> c_int;
    fn envoy_dynamic_module_callback_network_filter_get_worker_index(filter: *mut c_void) -> u32;
    fn envoy_dynamic_module_callback_network_filter_is_ssl(filter: *mut c_void) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans_size(filter: *mut c_void) -> usize;
    fn envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans(
        filter: *mut c_void,
        sans: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_ssl_subject(
        filter: *mut c_void,
        subject: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_requested_server_name(
        filter: *mut c_void,
        name: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_direct_remote_address(
        filter: *mut c_void,
        address: *mut Buffer<'_>,
        port: *mut u32,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_remote_address(
        filter: *mut c_void,
        address: *mut Buffer<'_>,
        port: *mut u32,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_local_address(
        filter: *mut c_void,
        address: *mut Buffer<'_>,
        port: *mut u32,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_get_filter_state_bytes(
        filter: *mut c_void,
        key: Buffer<'_>,
        value: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_set_filter_state_bytes(
        filter: *mut c_void,
        key: Buffer<'_>,
        value: Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_network_set_dynamic_metadata_string(
        filter: *mut c_void,
        namespace: Buffer<'_>,
        key: Buffer<'_>,
        value: Buffer<'_>,
    );
    fn envoy_dynamic_module_callback_network_filter_read_enabled(filter: *mut c_void) -> bool;
    fn envoy_dynamic_module_callback_network_filter_read_disable(filter: *mut c_void, disable: bool) -> c_int;
    fn envoy_dynamic_module_callback_network_filter_continue_reading(filter: *mut c_void);
    fn envoy_dynamic_module_callback_network_filter_close_with_details(
        filter: *mut c_void,
        close_type: c_int,
        details: Buffer<'_>,
    );
}

/// The host's configuration of a filter, while `config_new` runs.
pub(crate) struct NetworkFilterConfig<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl NetworkFilterConfig<'_> {
    /// Defines a counter; `None` where the host does not let it.
    pub(crate) fn counter(&mut self, name: &str) -> Option<Counter> {
        let mut id = 0;
        // SAFETY: `raw` is the host's, during `config_new`, and the pointers are good for the length of the call.
        let result = unsafe {
            envoy_dynamic_module_callback_network_filter_config_define_counter(
                self.raw,
                Buffer::of(name.as_bytes()),
                &raw mut id,
            )
        };
        (result == SUCCESS).then_some(Counter(id))
    }
}

/// Whose address, and how the host is asked for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Address {
    Direct,
    Remote,
    Local,
}

/// The host's filter of one connection, while a hook of that connection runs. What it lends is lent until something is set, which
/// takes it mutably.
pub(crate) struct NetworkFilter<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl NetworkFilter<'_> {
    /// Which worker this is, from 0.
    pub(crate) fn worker_index(&self) -> u32 {
        // SAFETY: `raw` is the host's, during a hook, here and below.
        unsafe { envoy_dynamic_module_callback_network_filter_get_worker_index(self.raw) }
    }

    /// Whether the connection is one of TLS.
    pub(crate) fn is_tls(&self) -> bool {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_network_filter_is_ssl(self.raw) }
    }

    /// The URI subject alternative names of the certificate that the caller has shown.
    pub(crate) fn uri_sans(&self) -> Vec<&[u8]> {
        // SAFETY: see `worker_index`.
        let count = unsafe { envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans_size(self.raw) };
        let mut sans = vec![Buffer::EMPTY; count];
        // SAFETY: the host writes as many as it has just said that there are.
        let found =
            unsafe { envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans(self.raw, sans.as_mut_ptr()) };
        // SAFETY: the host has written every one, and lends them for `&self`.
        if found { sans.into_iter().map(|san| unsafe { san.get() }).collect() } else { Vec::new() }
    }

    /// The subject of that certificate.
    pub(crate) fn subject(&self) -> Option<&[u8]> {
        // SAFETY: the pointer is good for the length of the call.
        self.lent(|value| unsafe { envoy_dynamic_module_callback_network_filter_get_ssl_subject(self.raw, value) })
    }

    /// The server name that the client has asked for in TLS.
    pub(crate) fn server_name(&self) -> Option<&[u8]> {
        // SAFETY: the pointer is good for the length of the call.
        self.lent(|value| unsafe {
            envoy_dynamic_module_callback_network_filter_get_requested_server_name(self.raw, value)
        })
    }

    /// An address, as text, and its port.
    pub(crate) fn address(&self, of: Address) -> Option<(&[u8], u32)> {
        let call = match of {
            Address::Direct => envoy_dynamic_module_callback_network_filter_get_direct_remote_address,
            Address::Remote => envoy_dynamic_module_callback_network_filter_get_remote_address,
            Address::Local => envoy_dynamic_module_callback_network_filter_get_local_address,
        };
        let mut port = 0;
        // SAFETY: the pointers are good for the length of the call.
        let address = self.lent(|value| unsafe { call(self.raw, value, &raw mut port) })?;
        Some((address, port))
    }

    /// Filter state of the connection.
    pub(crate) fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let key = Buffer::of(key.as_bytes());
        // SAFETY: the pointers are good for the length of the call.
        self.lent(|value| unsafe { envoy_dynamic_module_callback_network_get_filter_state_bytes(self.raw, key, value) })
    }

    /// What `call` lets the host write, if it says that it has.
    fn lent(&self, call: impl FnOnce(*mut Buffer<'_>) -> bool) -> Option<&[u8]> {
        let mut value = Buffer::EMPTY;
        // SAFETY: where the host says so, it has written a buffer, which it lends until something is set: for `&self`.
        call(&raw mut value).then(|| unsafe { value.get() })
    }

    /// Sets filter state of the connection. The key must be our own: Envoy takes no change of what is read-only.
    pub(crate) fn set_filter_state(&mut self, key: &str, value: &str) {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value.as_bytes()));
        // SAFETY: the host copies both buffers.
        unsafe { envoy_dynamic_module_callback_network_set_filter_state_bytes(self.raw, key, value) };
    }

    /// Sets dynamic metadata of the connection.
    pub(crate) fn set_metadata(&mut self, namespace: &str, key: &str, value: &str) {
        let [namespace, key, value] = [namespace, key, value].map(|text| Buffer::of(text.as_bytes()));
        // SAFETY: the host copies the buffers.
        unsafe {
            envoy_dynamic_module_callback_network_set_dynamic_metadata_string(self.raw, namespace, key, value);
        }
    }

    /// Counts one.
    pub(crate) fn increment(&mut self, counter: Counter) {
        // SAFETY: see `worker_index`. A failure to count changes no verdict.
        unsafe { envoy_dynamic_module_callback_network_filter_increment_counter(self.raw, counter.0, 1) };
    }

    /// Lets the connection read, for its handshake; returns how often that was forbidden. Envoy counts.
    fn enable_reading(&mut self) -> u32 {
        let mut forbidden = 0;
        // SAFETY: see `worker_index`.
        while forbidden < MAX_FORBIDDEN
            && !unsafe { envoy_dynamic_module_callback_network_filter_read_enabled(self.raw) }
        {
            // SAFETY: see `worker_index`.
            unsafe { envoy_dynamic_module_callback_network_filter_read_disable(self.raw, false) };
            forbidden = forbidden.saturating_add(1);
        }
        forbidden
    }

    /// Forbids it again as often.
    fn disable_reading(&mut self, forbidden: u32) {
        for _ in 0..forbidden {
            // SAFETY: see `worker_index`.
            unsafe { envoy_dynamic_module_callback_network_filter_read_disable(self.raw, true) };
        }
    }

    fn continue_reading(&mut self) {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_network_filter_continue_reading(self.raw) };
    }

    fn close(&mut self, details: &str) {
        // SAFETY: the host copies the buffer.
        unsafe {
            envoy_dynamic_module_callback_network_filter_close_with_details(
                self.raw,
                NO_FLUSH,
                Buffer::of(details.as_bytes()),
            );
        }
    }
}

/// A filter of one connection, as the host keeps it.
struct Filter {
    configuration: NonNull<NetworkConfiguration>,
    /// Only hooks of this connection look at it, and they run on one thread.
    state: Cell<State>,
    /// How often others had forbidden to read, which was lifted for the handshake.
    reading_forbidden: Cell<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Undecided,
    Allowed(Lease),
    Denied,
}

impl Filter {
    /// Decides, and closes the connection if it is denied.
    fn decide(&self, mut host: NetworkFilter<'_>) {
        // Until it is known that the connection is allowed, it is not.
        self.state.set(State::Denied);
        // SAFETY: this is what `config_new` has returned; the host keeps it as long as its filters.
        let configuration = unsafe { self.configuration.as_ref() };
        match guarded(|| configuration.on_connection(&mut host), || Err(crate::network::failed())) {
            Ok(lease) => self.state.set(State::Allowed(lease)),
            // The host calls hooks of this very filter before this returns.
            Err(details) => host.close(&details),
        }
    }

    /// Whether bytes pass, in either direction.
    fn pass(&self) -> c_int {
        if matches!(self.state.get(), State::Allowed(_)) { CONTINUE } else { STOP_ITERATION }
    }

    /// As `pass`, after the decision was made again if it no longer holds.
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
        // SAFETY: the host lends both for the length of this hook.
        let (name, text) = unsafe { (name.get(), text.get()) };
        let mut host = NetworkFilterConfig { raw: host, hook: PhantomData };
        NetworkConfiguration::new(&mut host, name, text)
            .map_or(null(), |new| Box::into_raw(Box::new(new)).cast_const().cast())
    };
    guarded(new, null)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_config_destroy(config: *mut c_void) {
    // SAFETY: the host gives back, once, what `config_new` has returned, when no filter of it is left.
    guarded(|| drop(unsafe { Box::from_raw(config.cast::<NetworkConfiguration>()) }), || ());
}

/// NULL makes Envoy close the connection.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_new(
    config: *mut c_void,
    _host: *mut c_void,
) -> *const c_void {
    NonNull::new(config.cast()).map_or(null(), |configuration| {
        let filter = Filter { configuration, state: Cell::new(State::Undecided), reading_forbidden: Cell::new(0) };
        Box::into_raw(Box::new(filter)).cast_const().cast()
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_destroy(filter: *mut c_void) {
    // SAFETY: the host gives back, once, what `filter_new` has returned.
    drop(unsafe { Box::from_raw(filter.cast::<Filter>()) });
}

/// Runs `hook` on a filter; one that is not there passes nothing.
fn on(filter: *const c_void, hook: impl FnOnce(&Filter) -> c_int) -> c_int {
    // SAFETY: the host gives what `filter_new` has returned, until `destroy`. Hooks may run inside one another: only shared
    // references are made.
    unsafe { filter.cast::<Filter>().as_ref() }.map_or(STOP_ITERATION, hook)
}

/// Before the TLS handshake. The next filters, and so the upstream, hear of the connection when it is allowed.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_new_connection(
    host: *mut c_void,
    filter: *const c_void,
) -> c_int {
    on(filter, |filter| {
        let mut host = NetworkFilter { raw: host, hook: PhantomData };
        if host.is_tls() {
            // `tcp_proxy` forbids to read until it has an upstream, which it gets when it hears of the connection: after
            // the handshake, which must read.
            filter.reading_forbidden.set(host.enable_reading());
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
        if event == CONNECTED && filter.state.get() == State::Undecided {
            filter.decide(NetworkFilter { raw: host, hook: PhantomData });
            if filter.pass() == CONTINUE {
                let mut host = NetworkFilter { raw: host, hook: PhantomData };
                host.disable_reading(filter.reading_forbidden.take());
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
    on(filter, |filter| filter.pass_now(NetworkFilter { raw: host, hook: PhantomData }))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_network_filter_write(
    host: *mut c_void,
    filter: *const c_void,
    _length: usize,
    _end_of_stream: bool,
) -> c_int {
    on(filter, |filter| filter.pass_now(NetworkFilter { raw: host, hook: PhantomData }))
}
