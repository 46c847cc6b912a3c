//! Runs real Envoys and real SPIRE for the integration tests, the demo and the benchmark.

pub mod authority;
pub mod bootstrap;
pub mod differential;
pub mod envoy;
pub mod guarded;
pub mod http;
pub mod mesh;
pub mod process;
pub mod scratch;
pub mod spire;
pub mod token;
pub mod tools;
pub mod upstream;
pub mod wait;
