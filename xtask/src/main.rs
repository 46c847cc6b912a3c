//! `cargo xtask`: tools, build, demo, test.

fn main() {}
