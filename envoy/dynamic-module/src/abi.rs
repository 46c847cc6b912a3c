//! Envoy's interface for dynamic modules, as far as it is used here: the only unsafe code of this package.
//!
//! Source: envoyproxy/envoy, source/extensions/dynamic_modules/abi/abi.h, of 1.38 to 1.40; what is used is the same in all
//! of them. A callback that one of them lacks is looked up when it is wanted and never linked: Envoy loads a module with
//! `RTLD_NOW`, which refuses one with a symbol that is not there.
//!
//! What the host guarantees in general: pointers to its objects are good for the length of the hook that was given them;
//! buffers that it hands over are good until that hook ends or something is set; every hook of one stream or connection
//! runs on one worker thread; what a `…_new` hook has returned is given back to the later hooks and then to `…_destroy`, once.
#![expect(unsafe_code, reason = "hooks and callbacks are foreign functions")]

pub(crate) mod http;
pub(crate) mod network;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{align_of, offset_of, size_of, transmute_copy};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// `envoy_dynamic_module_type_envoy_buffer` and `…_module_buffer`: bytes of the one side, lent to the other. The lifetime is that
/// of the lender.
#[repr(C)]
#[derive(Clone, Copy)]
struct Buffer<'b> {
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

    const fn of(bytes: &'b [u8]) -> Self {
        Self { bytes: bytes.as_ptr(), length: bytes.len(), lender: PhantomData }
    }

    /// The bytes.
    ///
    /// # Safety
    /// The buffer must come from the host, as it is, and the host must keep it for `'b`.
    const unsafe fn get(self) -> &'b [u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: the host lends `length` bytes at a pointer that is not null, for as long as the caller promises.
        unsafe { std::slice::from_raw_parts(self.bytes, self.length) }
    }
}

/// `envoy_dynamic_module_type_envoy_http_header`, `…_module_http_header` and `…_module_key_value_pair`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pair<'b> {
    key: Buffer<'b>,
    value: Buffer<'b>,
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

/// `envoy_dynamic_module_type_attribute_id`, in C an enumeration: its place in it.
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

/// A counter that was defined for a configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counter(usize);

/// Writes a line to Envoy's log.
pub(crate) fn log(level: Level, line: &str) {
    // `envoy_dynamic_module_callback_log` is deprecated in 1.40, and its successor is new there.
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

/// The host's callback of this name, if it has it.
///
/// # Safety
/// `F` must be the type of that function pointer.
unsafe fn callback<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name ends with NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: POSIX makes a symbol's address a function pointer of the same size; its type is the caller's promise.
    if found.is_null() { None } else { Some(unsafe { transmute_copy(&found) }) }
}

/// The first call to a module. The version that it returns is for a warning alone: of those that are supported, the host's.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    // SAFETY: only whether it is there is looked at.
    let newer = unsafe { callback::<*mut c_void>(LOG_V2) }.is_some();
    if newer { c"v0.2.0".as_ptr() } else { c"v0.1.0".as_ptr() }
}

/// Runs a hook. A panic would end Envoy if it left the module, so it ends here, as `failed`.
fn guarded<T>(hook: impl FnOnce() -> T, failed: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(hook)) {
        Ok(result) => result,
        Err(payload) => {
            // Dropping what a panic carries might panic again; what that carries is kept.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(payload);
            }
            log(Level::Error, "spiffe-authz: the module has panicked; what it was asked for is denied");
            failed()
        }
    }
}

#[cfg(test)]
mod tests;
