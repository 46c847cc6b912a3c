//! The host calls of the filter. They pass bytes, and every unknown status is a failure.
//!
//! The wrappers of the SDK panic on a status that they do not list, and on a string that is not UTF-8. A panic stops the VM of the
//! worker, and every later request fails. Source: proxy-wasm ABI v0.2.1.
#![expect(unsafe_code, reason = "host calls are foreign functions")]

use std::ptr::{null, null_mut};

use spiffe_authz::host::HostFailure;
use spiffe_authz::timestamp::Timestamp;
use spiffe_authz::worker::Span;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const REQUEST_HEADERS: u32 = 0;
const COUNTER: u32 = 0;
const NOT_GRPC: i32 = -1;
#[cfg(target_arch = "wasm32")]
const WASM_PAGE_BYTES: usize = 65_536;
const DOWNSTREAM: u32 = 2;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_property(path: *const u8, path_size: usize, value: *mut *mut u8, value_size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, value: *mut *mut u8, value_size: *mut usize) -> u32;
    fn proxy_send_local_response(
        status_code: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        result: *mut *mut u8,
        result_size: *mut usize,
    ) -> u32;
}

/// The bytes that a host call returned.
fn returned(status: u32, value: *mut u8, size: usize) -> Result<Option<Vec<u8>>, HostFailure> {
    match status {
        OK if value.is_null() => Ok(None),
        // SAFETY: on success the host passes ownership of `size` bytes, which it allocated with this module's allocator.
        OK => Ok(Some(unsafe { Vec::from_raw_parts(value, size, size) })),
        NOT_FOUND => Ok(None),
        _ => Err(HostFailure),
    }
}

/// Closes the client connection of the current context.
pub(crate) fn close_client_connection() -> Result<(), HostFailure> {
    // SAFETY: takes values only.
    let status = unsafe { proxy_close_stream(DOWNSTREAM) };
    if status == OK { Ok(()) } else { Err(HostFailure) }
}

/// Selects the context of the following host calls.
pub(crate) fn act_for(context: u32) {
    // SAFETY: takes values only.
    unsafe { proxy_set_effective_context(context) };
}

/// Requests a tick of the current plugin in this interval.
pub(crate) fn tick_every(milliseconds: u32) {
    // SAFETY: takes values only.
    unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
}

/// Requests no more ticks of the current plugin.
pub(crate) fn stop_ticking() {
    tick_every(0);
}

/// An attribute of the connection or request. NUL separates the parts of `path`.
pub(crate) fn property(path: &[u8]) -> Result<Option<Vec<u8>>, HostFailure> {
    let (mut value, mut size) = (null_mut(), 0);
    // SAFETY: every pointer is valid for its length, and during the call.
    let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut value, &raw mut size) };
    returned(status, value, size)
}

/// Sets filter state `wasm.<key>`. A failure does not change a verdict, so the status is ignored.
pub(crate) fn set_filter_state(key: &str, value: &[u8]) {
    // SAFETY: as in `property`.
    unsafe { proxy_set_property(key.as_ptr(), key.len(), value.as_ptr(), value.len()) };
}

/// Declares filter state `wasm.<key>`. Without a declaration, the next request can read the state of the previous one.
pub(crate) fn declare_filter_state(key: &str, span: Span) {
    // The spans of `envoy.source.extensions.common.wasm.DeclarePropertyArguments`.
    let span = match span {
        Span::Request => 1,
        Span::Connection => 2,
    };
    // DeclarePropertyArguments: name = 1, type = 3 (String = 1), span = 5.
    let Ok(length) = u8::try_from(key.len()) else { return };
    let argument = [&[0x0a, length], key.as_bytes(), &[0x18, 1, 0x28, span]].concat();
    let name = b"declare_property";
    let (mut result, mut size) = (null_mut(), 0);
    // SAFETY: as in `property`.
    let status = unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            argument.as_ptr(),
            argument.len(),
            &raw mut result,
            &raw mut size,
        )
    };
    // The response is empty, and must still be freed.
    drop(returned(status, result, size));
}

/// Every request header line, in the map layout of the ABI: the number of pairs, the lengths of each name and value, then each name
/// and value with a trailing NUL. Numbers have four bytes in little-endian order.
pub(crate) fn request_headers() -> Result<Vec<u8>, HostFailure> {
    let (mut value, mut size) = (null_mut(), 0);
    // SAFETY: as in `property`.
    let status = unsafe { proxy_get_header_map_pairs(REQUEST_HEADERS, &raw mut value, &raw mut size) };
    returned(status, value, size)?.ok_or(HostFailure)
}

/// Responds to the request. A gRPC client receives the gRPC status that Envoy derives from `status`.
pub(crate) fn respond(status: u32, details: &str, body: &str) -> Result<(), HostFailure> {
    // SAFETY: as in `property`; no headers are given.
    let result = unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            null(),
            0,
            NOT_GRPC,
        )
    };
    if result == OK { Ok(()) } else { Err(HostFailure) }
}

/// The number of the counter `name`.
pub(crate) fn counter(name: &str) -> Result<u32, HostFailure> {
    let mut id = 0;
    // SAFETY: as in `property`.
    let status = unsafe { proxy_define_metric(COUNTER, name.as_ptr(), name.len(), &raw mut id) };
    if status == OK { Ok(id) } else { Err(HostFailure) }
}

/// Increments a counter. A failure does not change a verdict, so the status is ignored.
pub(crate) fn increment(counter: u32) {
    // SAFETY: takes values only.
    unsafe { proxy_increment_metric(counter, 1) };
}

/// Returns the time. A host without a clock reports 0, or no time.
pub(crate) fn now() -> Result<Timestamp, HostFailure> {
    let seconds = seconds();
    if seconds == 0 {
        return Err(HostFailure);
    }
    i64::try_from(seconds).map(Timestamp::from_seconds).map_err(|_| HostFailure)
}

/// Returns the Unix time in nanoseconds, or 0 if the host has no clock.
pub(crate) fn nanoseconds() -> u64 {
    let mut nanoseconds = 0;
    // SAFETY: as in `property`.
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
    if status == OK { nanoseconds } else { 0 }
}

/// Returns the Unix time in seconds, or 0 if the host has no clock.
pub(crate) fn seconds() -> u64 {
    nanoseconds() / 1_000_000_000
}

/// Returns the memory of the VM, in MiB.
pub(crate) fn memory_mib() -> usize {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size::<0>() * WASM_PAGE_BYTES / (1024 * 1024);
    #[cfg(not(target_arch = "wasm32"))]
    return 0;
}
