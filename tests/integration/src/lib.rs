//! Runs real Envoys and real SPIRE for the integration tests, the demo and the benchmark.

pub mod authority;
pub mod background;
pub mod bootstrap;
pub mod browser;
pub mod compose;
pub mod differential;
pub mod environment;
pub mod envoy;
pub mod fault;
pub mod federation;
pub mod fixture;
pub mod flood;
pub mod http;
pub mod http2;
pub mod http3;
pub mod interruption;
pub mod istio;
pub mod load;
pub mod memory;
pub mod port;
pub mod process;
pub mod relay;
pub mod scenario;
pub mod scratch;
pub mod secrets;
pub mod spire;
pub mod supervised;
pub mod tcp;
pub mod token;
pub mod tools;
pub mod upstream;
pub mod wait;

/// Runs functions that take an adapter as tests, once with each: `wasm::<name>` and `module::<name>`.
#[macro_export]
macro_rules! test_with_each_adapter {
    ($($name:ident),* $(,)?) => {
        mod wasm {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name($crate::bootstrap::Adapter::Wasm)
                }
            )*
        }
        mod module {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name($crate::bootstrap::Adapter::Module)
                }
            )*
        }
    };
}
