//! The callbacks of network filters.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use super::{Buffer, Counter};

const SUCCESS: c_int = 0;
/// `envoy_dynamic_module_type_network_connection_close_type_NoFlush`
const NO_FLUSH: c_int = 1;
/// The maximum number of filters that can disable reading at once.
const MAX_DISABLED: u32 = 16;

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
    /// Wraps the pointer of a `config_new` hook.
    ///
    /// # Safety
    /// The host must have passed `raw` to the hook, which must not have ended.
    pub(crate) const unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw, hook: PhantomData }
    }

    /// Defines a counter. Returns `None` if the host rejects it.
    pub(crate) fn counter(&mut self, name: &str) -> Option<Counter> {
        let mut id = 0;
        // SAFETY: the host passed `raw` to `config_new`, and the pointers are valid during the call.
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

/// Selects an address of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Address {
    /// The direct remote address.
    Direct,
    /// The client, as trusted proxies report it.
    Remote,
    /// The local address.
    Local,
}

/// The host's filter of a connection, during a hook. The buffers that it lends are valid until a value is set, which borrows it
/// mutably.
pub(crate) struct NetworkFilter<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl NetworkFilter<'_> {
    /// Wraps the pointer of a hook.
    ///
    /// # Safety
    /// The host must have passed `raw` to the hook, which must not have ended.
    pub(crate) const unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw, hook: PhantomData }
    }

    /// The number of the worker, from 0.
    pub(crate) fn worker_index(&self) -> u32 {
        // SAFETY: the host passed `raw` to the hook that runs, here and below.
        unsafe { envoy_dynamic_module_callback_network_filter_get_worker_index(self.raw) }
    }

    /// Returns `true` if the connection uses TLS.
    pub(crate) fn is_tls(&self) -> bool {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_network_filter_is_ssl(self.raw) }
    }

    /// The URI SANs of the client certificate.
    pub(crate) fn uri_sans(&self) -> Vec<&[u8]> {
        // SAFETY: see `worker_index`.
        let count = unsafe { envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans_size(self.raw) };
        let mut sans = vec![Buffer::EMPTY; count];
        // SAFETY: the host writes as many as it has just reported.
        let found =
            unsafe { envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans(self.raw, sans.as_mut_ptr()) };
        // SAFETY: the host wrote every one, and lends them for `&self`.
        if found { sans.into_iter().map(|san| unsafe { san.get() }).collect() } else { Vec::new() }
    }

    /// The subject of the client certificate.
    pub(crate) fn subject(&self) -> Option<&[u8]> {
        // SAFETY: the pointer is valid during the call.
        self.lent(|value| unsafe { envoy_dynamic_module_callback_network_filter_get_ssl_subject(self.raw, value) })
    }

    /// The server name of the TLS handshake (SNI).
    pub(crate) fn server_name(&self) -> Option<&[u8]> {
        // SAFETY: the pointer is valid during the call.
        self.lent(|value| unsafe {
            envoy_dynamic_module_callback_network_filter_get_requested_server_name(self.raw, value)
        })
    }

    /// An address, as a string, and its port.
    pub(crate) fn address(&self, of: Address) -> Option<(&[u8], u32)> {
        let call = match of {
            Address::Direct => envoy_dynamic_module_callback_network_filter_get_direct_remote_address,
            Address::Remote => envoy_dynamic_module_callback_network_filter_get_remote_address,
            Address::Local => envoy_dynamic_module_callback_network_filter_get_local_address,
        };
        let mut port = 0;
        // SAFETY: the pointers are valid during the call.
        let address = self.lent(|value| unsafe { call(self.raw, value, &raw mut port) })?;
        Some((address, port))
    }

    /// The filter state of the connection.
    pub(crate) fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let key = Buffer::of(key.as_bytes());
        // SAFETY: the pointers are valid during the call.
        self.lent(|value| unsafe { envoy_dynamic_module_callback_network_get_filter_state_bytes(self.raw, key, value) })
    }

    /// Returns the buffer that `call` lets the host write, if the host reports that it wrote one.
    fn lent(&self, call: impl FnOnce(*mut Buffer<'_>) -> bool) -> Option<&[u8]> {
        let mut value = Buffer::EMPTY;
        // SAFETY: the host reports that it wrote a buffer, which it lends until a value is set: for `&self`.
        call(&raw mut value).then(|| unsafe { value.get() })
    }

    /// Sets filter state of the connection. No other filter may have set the key, because Envoy rejects a change of read-only state.
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

    /// Increments a counter.
    pub(crate) fn increment(&mut self, counter: Counter) {
        // SAFETY: see `worker_index`. A failure does not change a verdict.
        unsafe { envoy_dynamic_module_callback_network_filter_increment_counter(self.raw, counter.0, 1) };
    }

    /// Enables reading, which the handshake needs. Returns how often reading was disabled, which Envoy counts.
    pub(crate) fn enable_reading(&mut self) -> u32 {
        let mut disabled = 0;
        // SAFETY: see `worker_index`.
        while disabled < MAX_DISABLED && !unsafe { envoy_dynamic_module_callback_network_filter_read_enabled(self.raw) }
        {
            // SAFETY: see `worker_index`.
            unsafe { envoy_dynamic_module_callback_network_filter_read_disable(self.raw, false) };
            disabled = disabled.saturating_add(1);
        }
        disabled
    }

    /// Disables reading this number of times.
    pub(crate) fn disable_reading(&mut self, disabled: u32) {
        for _ in 0..disabled {
            // SAFETY: see `worker_index`.
            unsafe { envoy_dynamic_module_callback_network_filter_read_disable(self.raw, true) };
        }
    }

    /// Continues with the next filters.
    pub(crate) fn continue_reading(&mut self) {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_network_filter_continue_reading(self.raw) };
    }

    /// Closes the connection without flushing.
    pub(crate) fn close(&mut self, details: &str) {
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
