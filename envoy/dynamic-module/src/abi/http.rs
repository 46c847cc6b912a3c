//! The interface of HTTP filters.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::{NonNull, null, null_mut};
use std::sync::OnceLock;

use super::{Attribute, Buffer, Counter, Pair, callback, guarded};
use crate::http::{HttpConfiguration, RouteConfiguration};

const REQUEST_HEADERS: c_int = 0;
const DYNAMIC_METADATA: c_int = 0;
const SUCCESS: c_int = 0;
const CONTINUE: c_int = 0;
const STOP_ITERATION: c_int = 1;

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

/// The host's configuration of a filter, while `config_new` runs.
pub(crate) struct HttpFilterConfig<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl HttpFilterConfig<'_> {
    /// Defines a counter with labels; `None` where the host does not let it.
    pub(crate) fn counter<const N: usize>(&mut self, name: &str, labels: [&str; N]) -> Option<Counter> {
        let labels = labels.map(|label| Buffer::of(label.as_bytes()));
        let mut id = 0;
        // SAFETY: `raw` is the host's, during `config_new`; every other pointer is good for the length beside it.
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

/// The host's filter of one request, while a hook of that request runs. What it lends is lent until something is set, which takes
/// it mutably.
pub(crate) struct HttpFilter<'h> {
    raw: *mut c_void,
    hook: PhantomData<&'h mut ()>,
}

impl<'h> HttpFilter<'h> {
    /// Which worker this is, from 0.
    pub(crate) fn worker_index(&self) -> u32 {
        // SAFETY: `raw` is the host's, during a hook, here and below.
        unsafe { envoy_dynamic_module_callback_http_filter_get_worker_index(self.raw) }
    }

    /// An attribute that is text.
    pub(crate) fn text(&self, attribute: Attribute) -> Option<&[u8]> {
        // SAFETY: the pointer is good for the length of the call.
        self.lent(|value| unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_string(self.raw, attribute.number(), value)
        })
    }

    /// An attribute that is a number.
    pub(crate) fn number(&self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the pointer is good for the length of the call.
        let found = unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_int(self.raw, attribute.number(), &raw mut value)
        };
        found.then_some(value)
    }

    /// An attribute that is true or false.
    pub(crate) fn boolean(&self, attribute: Attribute) -> Option<bool> {
        let mut value = false;
        // SAFETY: the pointer is good for the length of the call, and the host writes a C++ bool, which is 0 or 1.
        let found = unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_bool(self.raw, attribute.number(), &raw mut value)
        };
        found.then_some(value)
    }

    /// The first line of a request header.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let name = Buffer::of(name.as_bytes());
        // SAFETY: the pointers are good for the length of the call; the count of lines may be left out.
        self.lent(|value| unsafe {
            envoy_dynamic_module_callback_http_get_header(self.raw, REQUEST_HEADERS, name, value, 0, null_mut())
        })
    }

    /// Name and value of every request header line; `None` where the host does not tell.
    pub(crate) fn headers(&self) -> Option<Vec<(&[u8], &[u8])>> {
        // SAFETY: see `worker_index`.
        let count = unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.raw, REQUEST_HEADERS) };
        let mut lines = vec![Pair::EMPTY; count];
        // SAFETY: the host writes as many pairs as it has just said that there are; nothing was set in between.
        let found =
            unsafe { envoy_dynamic_module_callback_http_get_headers(self.raw, REQUEST_HEADERS, lines.as_mut_ptr()) };
        // SAFETY: the host has written every pair, and lends them for `&self`.
        found.then(|| lines.into_iter().map(|line| unsafe { (line.key.get(), line.value.get()) }).collect())
    }

    /// Filter state of the request or its connection.
    pub(crate) fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let key = Buffer::of(key.as_bytes());
        // SAFETY: the pointers are good for the length of the call.
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
        // SAFETY: the host writes as many names as it has just said that there are; nothing was set in between.
        let found = unsafe {
            envoy_dynamic_module_callback_http_get_metadata_namespaces(self.raw, DYNAMIC_METADATA, names.as_mut_ptr())
        };
        // SAFETY: the host has written every name, and lends them for `&self`.
        found.then(|| names.into_iter().map(|name| unsafe { name.get() }).collect())
    }

    /// The configuration of the request's route, if it has one of its own.
    ///
    /// # Errors
    /// When another module has made it: one of another file, even if it is a copy.
    pub(crate) fn route(&self) -> Result<Option<&'h RouteConfiguration>, OfAnotherModule> {
        // SAFETY: see `worker_index`.
        let route = unsafe { envoy_dynamic_module_callback_get_most_specific_route_config(self.raw) };
        let route = route.cast::<Route>();
        if !route.is_aligned() {
            return Err(OfAnotherModule);
        }
        // SAFETY: the host returns what a `per_route_config_new` has returned, and keeps it while a hook runs. Every build of this
        // module puts this field first. If a different module made it, the pointer must point to eight readable bytes, which a module
        // that returns, for example, a small number does not guarantee. Only the operator can configure such a module on a route.
        let Some(maker) = (unsafe { route.cast::<*const u8>().as_ref() }) else { return Ok(None) };
        if *maker != &raw const MAKER {
            return Err(OfAnotherModule);
        }
        // SAFETY: this very code has made it.
        Ok(unsafe { route.as_ref() }.map(|route| &route.configuration))
    }

    /// What `call` lets the host write, if it says that it has.
    fn lent(&self, call: impl FnOnce(*mut Buffer<'_>) -> bool) -> Option<&[u8]> {
        let mut value = Buffer::EMPTY;
        // SAFETY: where the host says so, it has written a buffer, which it lends until something is set: for `&self`.
        call(&raw mut value).then(|| unsafe { value.get() })
    }

    /// Sets filter state of the request; whether that was taken.
    pub(crate) fn set_filter_state(&mut self, key: &str, value: &str) -> bool {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value.as_bytes()));
        // SAFETY: the host copies both buffers.
        unsafe { envoy_dynamic_module_callback_http_set_filter_state_bytes(self.raw, key, value) }
    }

    /// Sets dynamic metadata of the request.
    pub(crate) fn set_metadata<'m>(&mut self, namespace: &str, values: impl Iterator<Item = (&'m str, &'m str)>) {
        // New in 1.40: all at once, which costs a fraction.
        type SetAll = unsafe extern "C" fn(*mut c_void, Buffer<'_>, *const Pair<'_>, usize);
        static SET_ALL: OnceLock<Option<SetAll>> = OnceLock::new();
        let namespace = Buffer::of(namespace.as_bytes());
        let values: Vec<Pair<'_>> = values.map(|(key, value)| Pair::of(key, value)).collect();
        // SAFETY: the types are those of the header.
        let set_all = SET_ALL.get_or_init(|| unsafe {
            callback(c"envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch")
        });
        if let Some(set_all) = set_all {
            // SAFETY: the host copies what the pointer is good for.
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

    /// Counts one.
    pub(crate) fn increment<const N: usize>(&mut self, counter: Counter, labels: [&str; N]) {
        let labels = labels.map(|label| Buffer::of(label.as_bytes()));
        // SAFETY: the pointer is good for the length beside it. A failure to count changes no verdict.
        unsafe {
            envoy_dynamic_module_callback_http_filter_increment_counter(self.raw, counter.0, labels.as_ptr(), N, 1);
        }
    }

    /// Answers the request here, with these header lines.
    pub(crate) fn respond(&mut self, status: u32, headers: &[(&str, &str)], body: &str, details: &str) {
        let headers: Vec<Pair<'_>> = headers.iter().map(|(name, value)| Pair::of(name, value)).collect();
        let (body, details) = (Buffer::of(body.as_bytes()), Buffer::of(details.as_bytes()));
        // SAFETY: the host copies the headers, as many as it is told, and the buffers.
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
}

impl HttpFilter<'_> {
    /// Drains the connection: the response has `connection: close`, or GOAWAY precedes it. Requests that are being served are
    /// completed. Without the grace, Envoy would close the connection before the response.
    pub(crate) fn drain_connection(&mut self) {
        // SAFETY: see `worker_index`.
        unsafe { envoy_dynamic_module_callback_http_filter_send_go_away_and_close(self.raw, true) };
    }
}

/// A route's configuration, as the host keeps it.
#[repr(C)]
struct Route {
    maker: *const u8,
    configuration: RouteConfiguration,
}

const _: () = assert!(offset_of!(Route, maker) == 0);

/// Its address tells this module from every other that is loaded beside it.
static MAKER: u8 = 0;

/// A route's configuration of which nothing is known.
#[derive(Debug)]
pub(crate) struct OfAnotherModule;

/// Whether a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It does.
    Continue,
    /// It was answered.
    Answered,
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    host: *mut c_void,
    name: Buffer<'_>,
    text: Buffer<'_>,
) -> *const c_void {
    let new = || {
        // SAFETY: the host lends both for the length of this hook.
        let (name, text) = unsafe { (name.get(), text.get()) };
        let mut host = HttpFilterConfig { raw: host, hook: PhantomData };
        HttpConfiguration::new(&mut host, name, text)
            .map_or(null(), |new| Box::into_raw(Box::new(new)).cast_const().cast())
    };
    guarded(new, null)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *mut c_void) {
    // SAFETY: the host gives back, once, what `config_new` has returned, when no filter of it is left.
    guarded(|| drop(unsafe { Box::from_raw(config.cast::<HttpConfiguration>()) }), || ());
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    name: Buffer<'_>,
    text: Buffer<'_>,
) -> *const c_void {
    let new = || {
        // SAFETY: the host lends both for the length of this hook.
        let (name, text) = unsafe { (name.get(), text.get()) };
        RouteConfiguration::new(name, text).map_or(null(), |configuration| {
            let route = Route { maker: &raw const MAKER, configuration };
            Box::into_raw(Box::new(route)).cast_const().cast()
        })
    };
    guarded(new, null)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(config: *mut c_void) {
    // SAFETY: the host gives back, once, what `per_route_config_new` has returned, when no request uses it.
    guarded(|| drop(unsafe { Box::from_raw(config.cast::<Route>()) }), || ());
}

/// A request keeps nothing of its own, so its filter is its configuration, which the host keeps as long as the filter.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: *const c_void,
    _host: *mut c_void,
) -> *const c_void {
    config
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_destroy(_filter: *const c_void) {}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    host: *mut c_void,
    filter: *const c_void,
    _end_of_stream: bool,
) -> c_int {
    let host = || HttpFilter { raw: host, hook: PhantomData };
    let decide = || {
        // SAFETY: this is what `config_new` has returned, by way of `filter_new`; it is not given back before the filter.
        let configuration =
            unsafe { NonNull::new(filter.cast_mut().cast::<HttpConfiguration>()).map(|it| it.as_ref()) };
        configuration.map_or_else(|| crate::http::fail(&mut host()), |it| it.on_request(&mut host()))
    };
    match guarded(decide, || crate::http::fail(&mut host())) {
        Step::Continue => CONTINUE,
        Step::Answered => STOP_ITERATION,
    }
}

/// Hooks that must be there, and let everything pass.
macro_rules! passing {
    ($($name:ident($($argument:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $argument),*) -> c_int {
                CONTINUE
            }
        )*
    };
}

passing! {
    envoy_dynamic_module_on_http_filter_request_body(*mut c_void, *const c_void, bool);
    envoy_dynamic_module_on_http_filter_request_trailers(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_response_headers(*mut c_void, *const c_void, bool);
    envoy_dynamic_module_on_http_filter_response_body(*mut c_void, *const c_void, bool);
    envoy_dynamic_module_on_http_filter_response_trailers(*mut c_void, *const c_void);
}

/// Hooks that must be there, for what this module never starts or does not care for.
macro_rules! ignored {
    ($($name:ident($($argument:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $argument),*) {}
        )*
    };
}

ignored! {
    envoy_dynamic_module_on_http_filter_stream_complete(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_http_callout_done(
        *mut c_void, *const c_void, u64, c_int, *const c_void, usize, *const c_void, usize
    );
    envoy_dynamic_module_on_http_filter_http_stream_headers(*mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(*mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(*mut c_void, *const c_void, u64, *const c_void, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(*mut c_void, *const c_void, u64, c_int);
    envoy_dynamic_module_on_http_filter_scheduled(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(*mut c_void, *const c_void);
}
