//! The hooks of Envoy's interface for dynamic modules, which Envoy calls.
#![expect(unsafe_code, reason = "hooks are foreign functions")]

mod http;
mod network;

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{self, Level};

/// The first call to a module. Envoy warns if the returned version is not its own.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    if abi::is_envoy_1_40() { c"v0.2.0".as_ptr() } else { c"v0.1.0".as_ptr() }
}

/// Runs a hook, and returns `failed` if it panics. A panic that leaves the module would abort Envoy.
fn guarded<T>(hook: impl FnOnce() -> T, failed: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(hook)) {
        Ok(result) => result,
        Err(payload) => {
            // Dropping the payload of a panic can panic again. The payload of the second panic is leaked.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(payload);
            }
            abi::log(Level::Error, "spiffe-authz: the module panicked, and denied the request or connection");
            failed()
        }
    }
}

#[cfg(test)]
mod tests;
