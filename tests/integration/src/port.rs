//! Ports of 127.0.0.1 for programs that need to know their port before they start.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

/// The ports below those that Linux assigns to connections (`ip_local_port_range`).
const UNASSIGNED: Range<u16> = 10_000..32_000;
const TRIES: usize = 100;

/// Returns a port that is currently free, for a program that cannot choose one itself. The kernel does not assign it to
/// a connection, so a server can use it again after a restart.
///
/// # Errors
/// Returns an error if no port is free.
pub fn free() -> Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut tries = std::iter::repeat_with(|| fastrand::u16(UNASSIGNED)).take(TRIES);
    tries.find(is_free).context("found no free port")
}

/// A free port for an Envoy. While this value exists, the kernel does not assign the port, and Envoy can listen on it.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _socket: Socket,
}

impl ReservedPort {
    /// Reserves a port that the kernel chooses.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn new() -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // Envoy sets the same option on its listeners, so both can bind the port.
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let number = socket.local_addr()?.as_socket().context("no address")?.port();
        Ok(Self { number, _socket: socket })
    }

    /// Returns the port.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}
