//! The core by its public interface.

mod allocation;
mod decisions;
mod diagnostics;
mod documentation;
#[cfg(not(target_arch = "wasm32"))]
mod spiffe_crate;
mod support;
