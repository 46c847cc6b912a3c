//! Connections opened and closed as fast as is asked for, each with a handshake and one request.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::authority::{Leaf, client_config};
use crate::http::Client;
use crate::load::{Call, Tally};

const THREADS: u32 = 4;

/// A caller of a flood: its certificate, and what it asks for.
#[derive(Debug)]
pub struct Caller {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub leaf: Leaf,
    /// What it asks for on each connection.
    pub call: Call,
}

/// What came of a flood.
#[derive(Debug)]
pub struct Flood {
    /// What became of the requests, one for each connection.
    pub tally: Tally,
    /// Connections that were opened, served and closed in each second.
    pub rate: f64,
}

/// Opens and closes `per_second` connections in each second, or as many as this machine manages, the callers in turn.
///
/// # Errors
/// Returns an error if a certificate cannot be used.
pub fn flood(address: SocketAddr, callers: &[Caller], per_second: u32, duration: Duration) -> Result<Flood> {
    let configs = callers.iter().map(|caller| client_config(Some(&caller.leaf))).collect::<Result<Vec<_>>>()?;
    let interval = Duration::from_secs(1) * THREADS / per_second;
    let start = Instant::now();
    let work = || {
        let mut tally = Tally::default();
        for ((caller, config), number) in callers.iter().zip(&configs).cycle().zip(0..) {
            let due = interval * number;
            if due >= duration || start.elapsed() >= duration {
                break;
            }
            // No waiting for those that are late.
            thread::sleep(due.saturating_sub(start.elapsed()));
            let Call { host, method, path, .. } = caller.call;
            let answer =
                Client::tls(address, config.clone()).and_then(|mut client| client.request_of(host, method, path, &[]));
            tally.count(caller.name, &caller.call, answer);
        }
        tally
    };
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(part) => tally.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let served = tally.requests - tally.error_count();
    #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = served as f64 / start.elapsed().as_secs_f64();
    Ok(Flood { tally, rate })
}
