//! The callbacks of Envoy's interface for dynamic modules, with safe wrappers.
//!
//! Source: envoyproxy/envoy, source/extensions/dynamic_modules/abi/abi.h, releases 1.38 to 1.40, in which the used parts are the
//! same. A callback that a release lacks is looked up at run time and not linked: Envoy loads a module with `RTLD_NOW`, which
//! rejects a module with a missing symbol.
//!
//! The host guarantees: a pointer to an object of the host is valid during the hook that received it; a buffer is valid until the
//! hook ends or a value is set; all hooks of a stream or connection run on one worker thread; the pointer that a `…_new` hook
//! returns is passed to the later hooks, and finally, once, to `…_destroy`.
#![expect(unsafe_code, reason = "callbacks are foreign functions")]

pub(crate) mod http;
pub(crate) mod network;

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{align_of, offset_of, size_of, transmute_copy};
use std::sync::OnceLock;

/// `envoy_dynamic_module_type_envoy_buffer` and `…_module_buffer`: bytes that one side lends to the other, for this lifetime.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Buffer<'b> {
    bytes: *const u8,
    length: usize,
    lender: PhantomData<&'b [u8]>,
}

const _: () = assert!(
    size_of::<Buffer<'_>>() == 16
        && align_of::<Buffer<'_>>() == 8
        && offset_of!(Buffer<'_>, bytes) == 0
        && offset_of!(Buffer<'_>, length) == 8
);

impl<'b> Buffer<'b> {
    const EMPTY: Self = Self { bytes: std::ptr::null(), length: 0, lender: PhantomData };

    pub(crate) const fn of(bytes: &'b [u8]) -> Self {
        Self { bytes: bytes.as_ptr(), length: bytes.len(), lender: PhantomData }
    }

    /// The bytes.
    ///
    /// # Safety
    /// The host must have passed the buffer, and must keep it for `'b`.
    pub(crate) const unsafe fn get(self) -> &'b [u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: the host lends `length` bytes at a pointer that is not null, for the lifetime that the caller guarantees.
        unsafe { std::slice::from_raw_parts(self.bytes, self.length) }
    }
}

/// `envoy_dynamic_module_type_envoy_http_header`, `…_module_http_header` and `…_module_key_value_pair`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Pair<'b> {
    pub(crate) key: Buffer<'b>,
    pub(crate) value: Buffer<'b>,
}

const _: () = assert!(
    size_of::<Pair<'_>>() == 32
        && align_of::<Pair<'_>>() == 8
        && offset_of!(Pair<'_>, key) == 0
        && offset_of!(Pair<'_>, value) == 16
);

impl<'b> Pair<'b> {
    const EMPTY: Self = Self { key: Buffer::EMPTY, value: Buffer::EMPTY };

    const fn of(key: &'b str, value: &'b str) -> Self {
        Self { key: Buffer::of(key.as_bytes()), value: Buffer::of(value.as_bytes()) }
    }
}

/// `envoy_dynamic_module_type_log_level`.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(crate) enum Level {
    Warning = 3,
    Error = 4,
}

/// `envoy_dynamic_module_type_attribute_id`: the position in the C enumeration.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(crate) enum Attribute {
    SourceAddress = 24,
    DestinationAddress = 26,
    DestinationPort = 27,
    ConnectionMtls = 29,
    ServerName = 30,
    PeerUriSan = 37,
    PeerCertificateDigest = 38,
}

/// A counter of a configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counter(usize);

/// Writes a line to Envoy's log.
pub(crate) fn log(level: Level, line: &str) {
    // `envoy_dynamic_module_callback_log` is deprecated in 1.40, which has a new callback.
    type Log = unsafe extern "C" fn(c_int, Buffer<'_>);
    type LogWithPlace = unsafe extern "C" fn(c_int, Buffer<'_>, Buffer<'_>, u32);
    static LOG: OnceLock<Option<Log>> = OnceLock::new();
    static LOG_WITH_PLACE: OnceLock<Option<LogWithPlace>> = OnceLock::new();
    let level = level.number();
    // SAFETY: the types are those of the header.
    if let Some(log) = LOG_WITH_PLACE.get_or_init(|| unsafe { callback(LOG_V2) }) {
        // SAFETY: both buffers outlive the call, which copies them.
        unsafe { log(level, Buffer::of(line.as_bytes()), Buffer::of(file!().as_bytes()), line!()) };
        // SAFETY: the types are those of the header.
    } else if let Some(log) = LOG.get_or_init(|| unsafe { callback(c"envoy_dynamic_module_callback_log") }) {
        // SAFETY: the buffer outlives the call, which copies it.
        unsafe { log(level, Buffer::of(line.as_bytes())) };
    }
}

const LOG_V2: &CStr = c"envoy_dynamic_module_callback_log_v2";

impl Level {
    #[expect(clippy::as_conversions, reason = "the discriminant")]
    const fn number(self) -> c_int {
        self as c_int
    }
}

impl Attribute {
    #[expect(clippy::as_conversions, reason = "the discriminant")]
    const fn number(self) -> c_int {
        self as c_int
    }
}

/// Returns the callback of the host with this name, or `None` if the host lacks it.
///
/// # Safety
/// `F` must be the type of that function pointer.
unsafe fn callback<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name ends with NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: POSIX makes the address of a symbol a function pointer of the same size. The caller guarantees its type.
    if found.is_null() { None } else { Some(unsafe { transmute_copy(&found) }) }
}

/// Returns `true` if the host is Envoy 1.40 or later.
pub(crate) fn is_envoy_1_40() -> bool {
    // SAFETY: the pointer is only compared with null.
    unsafe { callback::<*mut c_void>(LOG_V2) }.is_some()
}
