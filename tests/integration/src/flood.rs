//! Connections that are opened and closed at a given rate, each with a handshake and one request.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::authority::{Leaf, client_config};
use crate::http::Client;
use crate::load::{Call, Tally};

const THREADS: u32 = 4;

/// A caller in a flood: its certificate and its request.
#[derive(Debug)]
pub struct Caller {
    /// The name in reports.
    pub name: &'static str,
    /// The certificate.
    pub leaf: Leaf,
    /// The request on each connection.
    pub call: Call,
}

/// The result of a flood.
#[derive(Debug)]
pub struct Flood {
    /// The results of the requests, one for each connection.
    pub tally: Tally,
    /// The number of completed connections per second.
    pub rate: f64,
}

/// Opens and closes `per_second` connections every second, or as many as this machine can, for the callers in turn.
///
/// # Errors
/// Returns an error if a certificate is invalid.
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
            // Late connections are not waited for.
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
    #[expect(clippy::cast_precision_loss, reason = "approximate output")]
    let rate = served as f64 / start.elapsed().as_secs_f64();
    Ok(Flood { tally, rate })
}
