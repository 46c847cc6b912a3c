//! Ports that an Envoy is to listen on, known before it starts.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

/// A free port of 127.0.0.1. While it is held, the kernel gives it to no connection, and Envoy can listen on it.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _socket: Socket,
}

impl ReservedPort {
    /// One that the kernel chooses.
    ///
    /// # Errors
    /// When no port is free.
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
