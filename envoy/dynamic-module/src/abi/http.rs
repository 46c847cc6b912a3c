//! The callbacks of HTTP filters.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::{Attribute, Buffer, Counter, Pair, callback};

const REQUEST_HEADERS: c_int = 0;
const DYNAMIC_METADATA: c_int = 0;
const SUCCESS: c_int = 0;

unsafe extern "C" {
    fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        config: *mut c_void,
        name: Buffer<'_>,
        labels: *const Buffer<'_>,
        labels_size: usize,
        id: *mut usize,
    ) -> c_int;
    fn envoy_dynamic_module_callback_http_filter_increment_counter(
        filter: *mut c_void,
        id: usize,
        values: *const Buffer<'_>,
        values_size: usize,
        by: u64,
    ) -> c_int;
    fn envoy_dynamic_module_callback_http_filter_get_worker_index(filter: *mut c_void) -> u32;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        filter: *mut c_void,
        attribute: c_int,
        value: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        filter: *mut c_void,
        attribute: c_int,
        value: *mut u64,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_bool(
        filter: *mut c_void,
        attribute: c_int,
        value: *mut bool,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_get_header(
        filter: *mut c_void,
        map: c_int,
        name: Buffer<'_>,
        value: *mut Buffer<'_>,
        index: usize,
        count: *mut usize,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_get_headers_size(filter: *mut c_void, map: c_int) -> usize;
    fn envoy_dynamic_module_callback_http_get_headers(filter: *mut c_void, map: c_int, headers: *mut Pair<'_>) -> bool;
    fn envoy_dynamic_module_callback_http_get_filter_state_bytes(
        filter: *mut c_void,
        key: Buffer<'_>,
        value: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        filter: *mut c_void,
        key: Buffer<'_>,
        value: Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_get_metadata_namespaces_count(filter: *mut c_void, source: c_int) -> usize;
    fn envoy_dynamic_module_callback_http_get_metadata_namespaces(
        filter: *mut c_void,
        source: c_int,
        names: *mut Buffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        filter: *mut c_void,
        namespace: Buffer<'_>,
        key: Buffer<'_>,
        value: Buffer<'_>,
    );
    fn envoy_dynamic_module_callback_http_send_response(
        filter: *mut c_void,
        status: u32,
        headers: *const Pair<'_>,
        headers_size: usize,
        body: Buffer<'_>,
        details: Buffer<'_>,
    );
    fn envoy_dynamic_module_callback_http_filter_send_go_away_and_close(filter: *mut c_void, graceful: bool);
    fn envoy_dynamic_module_callback_get_most_specific_route_config(filter: *mut c_void) -> *const c_void;
}

/// The host's configuration of a filter, during `config_new`.
pub(crate) struct HttpFilterConfig<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl HttpFilterConfig<'_> {
    /// Wraps the pointer of a `config_new` hook.
    ///
    /// # Safety
    /// The host must have passed `raw` to the hook, which must not have ended.
    pub(crate) const unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw, hook: PhantomData }
    }

    /// Defines a counter with these labels, or none. Returns `None` if the host rejects it.
    pub(crate) fn counter<const N: usize>(&mut self, name: &str, labels: [&str; N]) -> Option<Counter> {
        let labels = labels.map(|label| Buffer::of(label.as_bytes()));
        let mut id = 0;
        // SAFETY: the host passed `raw` to `config_new`; every other pointer is valid for its length.
        let result = unsafe {
            envoy_dynamic_module_callback_http_filter_config_define_counter(
                self.raw,
                Buffer::of(name.as_bytes()),
                labels.as_ptr(),
                N,
                &raw mut id,
            )
        };
        (result == SUCCESS).then_some(Counter(id))
    }
}

/// The host's filter of a request, during a hook. The buffers that it lends are valid until a value is set, which borrows it
/// mutably.
pub(crate) struct HttpFilter<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl HttpFilter<'_> {
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
        unsafe { envoy_dynamic_module_callback_http_filter_get_worker_index(self.raw) }
    }

    /// A string attribute.
    pub(crate) fn text(&self, attribute: Attribute) -> Option<&[u8]> {
        // SAFETY: the pointer is valid during the call.
        self.lent(|value| unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_string(self.raw, attribute.number(), value)
        })
    }

    /// A number attribute.
    pub(crate) fn number(&self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the pointer is valid during the call.
        let found = unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_int(self.raw, attribute.number(), &raw mut value)
        };
        found.then_some(value)
    }

    /// A boolean attribute.
    pub(crate) fn boolean(&self, attribute: Attribute) -> Option<bool> {
        let mut value = false;
        // SAFETY: the pointer is valid during the call, and the host writes a C++ bool, which is 0 or 1.
        let found = unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_bool(self.raw, attribute.number(), &raw mut value)
        };
        found.then_some(value)
    }

    /// The first line of a request header.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let name = Buffer::of(name.as_bytes());
        // SAFETY: the pointers are valid during the call; the count of lines is optional.
        self.lent(|value| unsafe {
            envoy_dynamic_module_callback_http_get_header(self.raw, REQUEST_HEADERS, name, value, 0, null_mut())
        })
    }

    /// The name and the value of every request header line. Returns `None` if the host does not provide them.
    pub(crate) fn headers(&self) -> Option<Vec<(&[u8], &[u8])>> {
        // SAFETY: see `worker_index`.
        let count = unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.raw, REQUEST_HEADERS) };
        let mut lines = vec![Pair::EMPTY; count];
        // SAFETY: the host writes as many pairs as it has just reported, and no value was set in between.
        let found =
            unsafe { envoy_dynamic_module_callback_http_get_headers(self.raw, REQUEST_HEADERS, lines.as_mut_ptr()) };
        // SAFETY: the host wrote every pair, and lends them for `&self`.
        found.then(|| lines.into_iter().map(|line| unsafe { (line.key.get(), line.value.get()) }).collect())
    }

    /// The filter state of the request or its connection.
    pub(crate) fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let key = Buffer::of(key.as_bytes());
        // SAFETY: the pointers are valid during the call.
        self.lent(|value| unsafe { envoy_dynamic_module_callback_http_get_filter_state_bytes(self.raw, key, value) })
    }

    /// The filters that have set dynamic metadata.
    pub(crate) fn metadata_namespaces(&self) -> Option<Vec<&[u8]>> {
        // SAFETY: see `worker_index`.
        let count =
            unsafe { envoy_dynamic_module_callback_http_get_metadata_namespaces_count(self.raw, DYNAMIC_METADATA) };
        if count == 0 {
            return Some(Vec::new());
        }
        let mut names = vec![Buffer::EMPTY; count];
        // SAFETY: the host writes as many names as it has just reported, and no value was set in between.
        let found = unsafe {
            envoy_dynamic_module_callback_http_get_metadata_namespaces(self.raw, DYNAMIC_METADATA, names.as_mut_ptr())
        };
        // SAFETY: the host wrote every name, and lends them for `&self`.
        found.then(|| names.into_iter().map(|name| unsafe { name.get() }).collect())
    }

    /// The configuration of the route, which its module has made. NULL if there is none.
    pub(crate) fn route(&self) -> *const c_void {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_get_most_specific_route_config(self.raw) }
    }

    /// Returns the buffer that `call` lets the host write, if the host reports that it wrote one.
    fn lent(&self, call: impl FnOnce(*mut Buffer<'_>) -> bool) -> Option<&[u8]> {
        let mut value = Buffer::EMPTY;
        // SAFETY: the host reports that it wrote a buffer, which it lends until a value is set: for `&self`.
        call(&raw mut value).then(|| unsafe { value.get() })
    }

    /// Sets filter state of the request. Returns `false` if the host rejects it.
    pub(crate) fn set_filter_state(&mut self, key: &str, value: &str) -> bool {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value.as_bytes()));
        // SAFETY: the host copies both buffers.
        unsafe { envoy_dynamic_module_callback_http_set_filter_state_bytes(self.raw, key, value) }
    }

    /// Sets dynamic metadata of the request.
    pub(crate) fn set_metadata<'m>(&mut self, namespace: &str, values: impl Iterator<Item = (&'m str, &'m str)>) {
        // New in 1.40: one call for all values, which costs much less.
        type SetAll = unsafe extern "C" fn(*mut c_void, Buffer<'_>, *const Pair<'_>, usize);
        static SET_ALL: OnceLock<Option<SetAll>> = OnceLock::new();
        let namespace = Buffer::of(namespace.as_bytes());
        let values: Vec<Pair<'_>> = values.map(|(key, value)| Pair::of(key, value)).collect();
        // SAFETY: the types are those of the header.
        let set_all = SET_ALL.get_or_init(|| unsafe {
            callback(c"envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch")
        });
        if let Some(set_all) = set_all {
            // SAFETY: the host copies the values, as many as their length says.
            unsafe { set_all(self.raw, namespace, values.as_ptr(), values.len()) };
            return;
        }
        for Pair { key, value } in values {
            // SAFETY: the host copies the buffers.
            unsafe {
                envoy_dynamic_module_callback_http_set_dynamic_metadata_string(self.raw, namespace, key, value);
            }
        }
    }

    /// Increments a counter.
    pub(crate) fn increment<const N: usize>(&mut self, counter: Counter, labels: [&str; N]) {
        let labels = labels.map(|label| Buffer::of(label.as_bytes()));
        // SAFETY: the pointer is valid for its length. A failure does not change a verdict.
        unsafe {
            envoy_dynamic_module_callback_http_filter_increment_counter(self.raw, counter.0, labels.as_ptr(), N, 1);
        }
    }

    /// Responds to the request, with these headers.
    pub(crate) fn respond(&mut self, status: u32, headers: &[(&str, &str)], body: &str, details: &str) {
        let headers: Vec<Pair<'_>> = headers.iter().map(|(name, value)| Pair::of(name, value)).collect();
        let (body, details) = (Buffer::of(body.as_bytes()), Buffer::of(details.as_bytes()));
        // SAFETY: the host copies the headers, as many as their length says, and the buffers.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.raw,
                status,
                headers.as_ptr(),
                headers.len(),
                body,
                details,
            );
        }
    }

    /// Drains the connection: the response has `connection: close`, or GOAWAY precedes it. Envoy completes the other
    /// requests of the connection. Without a graceful drain, it would close the connection before the response.
    pub(crate) fn drain_connection(&mut self) {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_http_filter_send_go_away_and_close(self.raw, true) };
    }
}
