//! Runs real Envoys and real SPIRE for the integration tests, the demo and the benchmark.

pub mod authority;
pub mod bootstrap;
pub mod compose;
pub mod differential;
pub mod envoy;
pub mod fault;
pub mod federation;
pub mod flood;
pub mod guarded;
pub mod http;
pub mod load;
pub mod mesh;
pub mod process;
pub mod relay;
pub mod scenario;
pub mod scratch;
pub mod secrets;
pub mod spire;
pub mod tcp;
pub mod token;
pub mod tools;
pub mod upstream;
pub mod wait;
