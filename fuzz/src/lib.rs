//! The fuzz targets of the core, with their seeds.
//!
//! `cargo xtask fuzz` runs them with libFuzzer. The tests replay every seed and every finding on a stable compiler.

pub mod seeds;
pub mod targets;

/// A target: the function that is called with each input, by its name.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the target, of its program and of its folders.
    pub name: &'static str,
    /// Panics if an input breaks a property.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "spiffe_id", run: targets::spiffe_id },
    Target { name: "certificate", run: targets::certificate },
    Target { name: "xfcc", run: targets::xfcc },
    Target { name: "metadata", run: targets::metadata },
    Target { name: "document", run: targets::document },
    Target { name: "decide", run: targets::decide },
];
