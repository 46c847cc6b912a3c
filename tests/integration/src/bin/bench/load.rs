//! The load on each Envoy: many requests on open connections, many streams on one connection, and many connections with
//! one request each.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::http2;

use crate::policies::Kind;
use crate::statistics::microseconds;
use crate::variants::{Decider, Subject, Variant};

/// The number of concurrent clients.
pub(crate) const CLIENTS: u32 = 4;
/// The number of streams that a client of HTTP/2 opens at once.
pub(crate) const STREAMS: u32 = 100;
/// Requests before the first round, which warm up caches and the JIT compiler.
const WARM_UP_REQUESTS: u32 = 4000;
const WARM_UP_CONNECTIONS: u32 = 100;
/// A variant that takes long for each request gets this part of the requests, or it would take most of the run.
const PART_OF_SLOW: u32 = 10;

const ALLOWED_PATH: &str = "/status/200";

/// The size of the measurement.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Requests on open connections for each round, and about as many on streams of one connection.
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
    /// The time from sending such a request to its response, in microseconds, for each request of all rounds.
    pub(crate) latency: Vec<f64>,
    /// Envoy's CPU time for a request on one of many streams of an open connection, in microseconds.
    pub(crate) stream: Vec<f64>,
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
            variant.ensure_decides()?;
            variant.kept(part(variant.subject, WARM_UP_REQUESTS))?;
            variant.streams(part(variant.subject, WARM_UP_REQUESTS))?;
            variant.new_connections(WARM_UP_CONNECTIONS)?;
        }
        let empty = |variant: &Variant<'_>| Measured {
            subject: variant.subject,
            request: Vec::new(),
            latency: Vec::new(),
            stream: Vec::new(),
            connection: Vec::new(),
            rate: Vec::new(),
        };
        let mut measured: Vec<Measured> = variants.iter().map(empty).collect();
        let mut random = Rng::with_seed(self.rounds.into());
        for round in 1..=self.rounds {
            let mut turns: Vec<_> = variants.iter().zip(&mut measured).collect();
            random.shuffle(&mut turns);
            for (variant, measured) in turns {
                let requests = part(variant.subject, self.requests);
                let (request, latencies) = variant.kept(requests)?;
                measured.request.push(request);
                measured.latency.extend(latencies);
                measured.stream.push(variant.streams(requests)?);
                let start = Instant::now();
                measured.connection.push(variant.new_connections(self.connections)?);
                measured.rate.push(f64::from(self.connections) / start.elapsed().as_secs_f64());
            }
            eprintln!("round {round} of {}", self.rounds);
        }
        Ok(measured)
    }
}

/// Returns the number of requests for this subject.
fn part(subject: Subject, requests: u32) -> u32 {
    match (subject.decider, subject.policies) {
        (Decider::IstiosRbac, Some((Kind::Callers, _))) => (requests / PART_OF_SLOW).next_multiple_of(CLIENTS),
        _ => requests,
    }
}

impl Variant<'_> {
    /// Returns an error if the filter allows a caller that no policy names, although it decides.
    pub(crate) fn ensure_decides(&self) -> Result<()> {
        let mut other = self.fixture.leaf("default", "curl")?.connect(self.envoy.address()?)?;
        let status = other.get(ALLOWED_PATH)?.status;
        let expected = if self.subject.decider.denies() { 403 } else { 200 };
        ensure!(status == expected, "{}: status {status} for another caller", self.subject.name());
        Ok(())
    }

    /// Returns the CPU time of a request, averaged over this number of requests on open connections, and the latency of
    /// each.
    pub(crate) fn kept(&self, requests: u32) -> Result<(f64, Vec<f64>)> {
        let connect = |_| {
            let mut client = self.fixture.leaf("default", "sleep")?.connect(self.envoy.address()?)?;
            get(&mut client)?;
            Ok(client)
        };
        let clients: Vec<Client> = (0..CLIENTS).map(connect).collect::<Result<_>>()?;
        let (cost, latencies) = self.cost(requests, clients, |mut client, share| {
            (0..share)
                .map(|_| {
                    let start = Instant::now();
                    get(&mut client)?;
                    Ok(microseconds(start.elapsed()))
                })
                .collect::<Result<Vec<f64>>>()
        })?;
        Ok((cost, latencies.concat()))
    }

    /// Returns the CPU time of a request on one of many streams, averaged over at least this number of requests.
    fn streams(&self, requests: u32) -> Result<f64> {
        let leaf = self.fixture.leaf("default", "sleep")?;
        let mut connection = http2::Connection::open(self.envoy.address()?, &leaf)?;
        ensure!(connection.get(ALLOWED_PATH)?, "a request was denied");
        let batches = requests.div_ceil(STREAMS);
        let (cost, _) = self.cost(batches * STREAMS, vec![connection], |mut connection, _| {
            for _ in 0..batches {
                ensure!(connection.get_at_once(ALLOWED_PATH, STREAMS)? == STREAMS, "a request was denied");
            }
            Ok(())
        })?;
        Ok(cost)
    }

    /// Returns the CPU time of a request with its own connection, averaged over this number.
    pub(crate) fn new_connections(&self, connections: u32) -> Result<f64> {
        let leaves = (0..CLIENTS).map(|_| self.fixture.leaf("default", "sleep")).collect::<Result<_>>()?;
        let address = self.envoy.address()?;
        let (cost, _) = self
            .cost(connections, leaves, |leaf, share| (0..share).try_for_each(|_| get(&mut leaf.connect(address)?)))?;
        Ok(cost)
    }

    /// Runs all clients at the same time, each with its share of the requests. Returns Envoy's CPU time for a request, in
    /// microseconds, and the results of the clients.
    fn cost<C: Send, T: Send>(
        &self,
        requests: u32,
        clients: Vec<C>,
        run: impl Fn(C, u32) -> Result<T> + Sync,
    ) -> Result<(f64, Vec<T>)> {
        let count = u32::try_from(clients.len())?;
        ensure!(requests.is_multiple_of(count), "{requests} is not a multiple of {count} clients");
        let run = &run;
        let before = self.envoy.cpu_time()?;
        let results = thread::scope(|scope| {
            let start = |client| scope.spawn(move || run(client, requests / count));
            let started: Vec<_> = clients.into_iter().map(start).collect();
            let joined = started.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
            joined.collect::<Result<Vec<T>>>()
        });
        let results = results.with_context(|| self.subject.name())?;
        Ok((microseconds(self.envoy.cpu_time()? - before) / f64::from(requests), results))
    }
}

fn get(client: &mut Client) -> Result<()> {
    let status = client.get(ALLOWED_PATH)?.status;
    ensure!(status == 200, "status {status}");
    Ok(())
}
