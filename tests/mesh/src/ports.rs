//! Ports for programs that cannot let the kernel choose one.

use std::net::TcpListener;

use anyhow::{Context as _, Result};

const ATTEMPTS: usize = 100;

/// A free port of 127.0.0.1, out of those that the kernel gives to nobody by itself: it stays free until it is used.
///
/// # Errors
/// When none is free.
pub fn free() -> Result<u16> {
    let mut candidates = (0..ATTEMPTS).map(|_| fastrand::u16(10_000..32_000));
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no free port was found")
}
