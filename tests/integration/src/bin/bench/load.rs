//! The load on each Envoy: many requests on open connections, and many connections with one request each.

use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use fastrand::Rng;

use crate::variants::{Subject, Variant};

/// The number of concurrent clients.
pub(crate) const CLIENTS: u32 = 4;
/// Requests before the first round, which warm up caches and the JIT compiler.
const WARM_UP_REQUESTS: u32 = 4000;
const WARM_UP_CONNECTIONS: u32 = 100;

/// The size of the measurement.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Requests on open connections for each round.
    pub(crate) requests: u32,
    /// New connections with one request each, for each round.
    pub(crate) connections: u32,
    pub(crate) rounds: u32,
}

/// The measurements of a subject, with one value for each round.
pub(crate) struct Measured {
    pub(crate) subject: Subject,
    /// Envoy's CPU time for a request on an open connection, in microseconds.
    pub(crate) request: Vec<f64>,
    /// Envoy's CPU time for a new connection and a request on it, in microseconds.
    pub(crate) connection: Vec<f64>,
    /// New connections a second, with a request each.
    pub(crate) rate: Vec<f64>,
}

impl Load {
    /// Measures all variants. Each round has its own order, because a busy variant leaves a slower machine to the next
    /// one.
    pub(crate) fn measure(&self, variants: Vec<Variant<'_>>) -> Result<Vec<Measured>> {
        for variant in &variants {
            eprintln!("warming up: {}", variant.subject.name());
            variant.kept(WARM_UP_REQUESTS)?;
            variant.new_connections(WARM_UP_CONNECTIONS)?;
        }
        let empty = |variant: &Variant<'_>| Measured {
            subject: variant.subject,
            request: Vec::new(),
            connection: Vec::new(),
            rate: Vec::new(),
        };
        let mut measured: Vec<Measured> = variants.iter().map(empty).collect();
        let mut random = Rng::with_seed(self.rounds.into());
        for round in 1..=self.rounds {
            let mut turns: Vec<_> = variants.iter().zip(&mut measured).collect();
            random.shuffle(&mut turns);
            for (variant, measured) in turns {
                measured.request.push(variant.kept(self.requests)?);
                let start = Instant::now();
                measured.connection.push(variant.new_connections(self.connections)?);
                measured.rate.push(f64::from(self.connections) / start.elapsed().as_secs_f64());
            }
            eprintln!("round {round} of {}", self.rounds);
        }
        Ok(measured)
    }
}

impl Variant<'_> {
    /// Returns the microseconds of a request, averaged over this number of requests on open connections.
    fn kept(&self, requests: u32) -> Result<f64> {
        self.microseconds(requests, |share| {
            let mut client = self.fixture.leaf("default", "sleep")?.connect(self.envoy.address()?)?;
            for _ in 0..share {
                let status = client.get("/status/200")?.status;
                ensure!(status == 200, "status {status}");
            }
            Ok(())
        })
    }

    /// Returns the microseconds of a request with its own connection, averaged over this number.
    fn new_connections(&self, connections: u32) -> Result<f64> {
        self.microseconds(connections, |share| {
            let (leaf, address) = (self.fixture.leaf("default", "sleep")?, self.envoy.address()?);
            for _ in 0..share {
                let status = leaf.connect(address)?.get("/status/200")?.status;
                ensure!(status == 200, "status {status}");
            }
            Ok(())
        })
    }

    fn microseconds(&self, count: u32, client: impl Fn(u32) -> Result<()> + Sync) -> Result<f64> {
        ensure!(count.is_multiple_of(CLIENTS), "{count} is not a multiple of {CLIENTS} clients");
        let before = self.envoy.cpu_time()?;
        thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(count / CLIENTS))).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })?;
        Ok((self.envoy.cpu_time()? - before).as_secs_f64() * 1e6 / f64::from(count))
    }
}

/// Returns the median.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 1, 2)
}

/// Returns the quantile `part / parts`.
pub(crate) fn quantile(values: &[f64], part: usize, parts: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * part / parts]
}
