//! Ports of 127.0.0.1 that programs are to listen on, known before they start.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

/// Ports below those that Linux gives to connections (`ip_local_port_range`).
const UNASSIGNED: Range<u16> = 10_000..32_000;
const TRIES: usize = 100;

/// A port that was free just now, for a program that cannot choose one by itself. It is none that the kernel gives to
/// connections, since a server that is stopped must get it again.
///
/// # Errors
/// Returns an error if none is found.
pub fn free() -> Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut tries = std::iter::repeat_with(|| fastrand::u16(UNASSIGNED)).take(TRIES);
    tries.find(is_free).context("no free port was found")
}

/// A free port for an Envoy. While it is held, the kernel gives it to no connection, and Envoy can listen on it.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _socket: Socket,
}

impl ReservedPort {
    /// One that the kernel chooses.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn new() -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // As Envoy does with its listeners; two that both do may have one port.
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let number = socket.local_addr()?.as_socket().context("no address")?.port();
        Ok(Self { number, _socket: socket })
    }

    /// The port's number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}
