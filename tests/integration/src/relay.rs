//! A relay to a port of 127.0.0.1 that can be cut, to make a server unreachable.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;

/// A listening relay. Its threads end with the process.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1, and forwards each connection to `target`.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !is_cut.load(Ordering::SeqCst) {
                    // A broken connection does not affect others.
                    thread::spawn(move || drop(pass_on(stream, target)));
                }
            }
        });
        Ok(Self { port, cut })
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Closes every new connection immediately if `cut`, or forwards them again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

fn pass_on(near: TcpStream, target: u16) -> io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", target))?;
    let (mut from_near, mut to_far) = (near.try_clone()?, far.try_clone()?);
    let forth = thread::spawn(move || {
        let copied = io::copy(&mut from_near, &mut to_far);
        to_far.shutdown(Shutdown::Write).and(copied.map(|_| ()))
    });
    let (mut from_far, mut to_near) = (far, near);
    io::copy(&mut from_far, &mut to_near)?;
    to_near.shutdown(Shutdown::Both)?;
    forth.join().unwrap_or(Ok(()))
}
