//! Tests of the core through its public interface.

mod allocation;
mod corpus;
mod decisions;
mod diagnostics;
mod documentation;
mod lints;
mod scope;
#[cfg(not(target_arch = "wasm32"))]
mod spiffe_crate;
mod support;
