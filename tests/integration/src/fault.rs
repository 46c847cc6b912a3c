//! Faults that are injected and ended while requests continue.

mod policy;
mod steady;
mod trust;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::policy::Policies;
pub use self::policy::publish;
pub use self::steady::{STEADY, callers};
use crate::bootstrap::Adapter;
use crate::federation::{Federation, Side};
use crate::flood::{self, flood};
use crate::load::{Call, Load, Tally};

/// The number of times that every Envoy gets a new certificate.
const ROTATIONS: u32 = 2;
/// The number of connections in a flood for each second.
const FLOOD_RATE: u32 = 1000;
/// The time limit after a fault for the right verdicts, without an error in between.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// A fault or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every Envoy gets a new certificate twice. With [`STEADY`], SVIDs rotate every few seconds.
    IdentitiesRotate,
    /// A trust domain gets a new authority. The old one is tainted and revoked.
    AuthorityRotates(Side),
    /// The agent of a trust domain is killed and restarted.
    AgentDies(Side),
    /// The server of a trust domain is stopped and restarted.
    ServerStops(Side),
    /// The bundle endpoint of a trust domain is unreachable for some time.
    EndpointUnreachable(Side),
    /// The policies change every second.
    PoliciesChange,
    /// Policies that do not compile are published, and valid ones after them.
    PoliciesBreak,
    /// A new file of the dynamic module replaces the previous one every second.
    ModuleChanges,
    /// A hot restart replaces the Envoy of httpbin, which drains and ends.
    EnvoyRestarts,
    /// Up to 1,000 connections a second are opened and closed.
    Flood,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, side) = match self {
            Self::IdentitiesRotate => ("every identity rotates", None),
            Self::AuthorityRotates(side) => ("authority rotated and revoked", Some(side)),
            Self::AgentDies(side) => ("SPIRE agent killed", Some(side)),
            Self::ServerStops(side) => ("SPIRE server stopped", Some(side)),
            Self::EndpointUnreachable(side) => ("bundle endpoint unreachable", Some(side)),
            Self::PoliciesChange => ("policies change every second", None),
            Self::PoliciesBreak => ("policies that do not compile", None),
            Self::ModuleChanges => ("module changes every second", None),
            Self::EnvoyRestarts => ("hot restart of Envoy", None),
            Self::Flood => ("1,000 connections a second", None),
        };
        match side {
            None => f.write_str(what),
            Some(Side::Local) => write!(f, "{what}, local domain"),
            Some(Side::Federated) => write!(f, "{what}, federated domain"),
        }
    }
}

/// The result of a fault.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The fault.
    pub fault: Fault,
    /// The duration of the fault.
    pub lasted: Duration,
    /// The time from its end until every caller got the right verdicts again, without an error in between.
    pub recovery: Duration,
    /// An observation that is specific to the fault.
    pub seen: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, lasted, recovery, seen } = self;
        write!(f, "{fault}: {:.1} s, recovered after {:.1} s", lasted.as_secs_f64(), recovery.as_secs_f64())?;
        if seen.is_empty() { Ok(()) } else { write!(f, "; {seen}") }
    }
}

/// Injects faults in an environment with [`STEADY`].
#[derive(Debug)]
pub struct Faults<'e, 'd> {
    /// The environment.
    pub environment: &'e mut Federation<'d>,
    policies: Policies,
    /// The results of the requests in floods.
    pub flooded: Tally,
    /// The highest rate of connections in a flood, for each second.
    pub fastest_flood: f64,
}

impl Fault {
    /// Returns the faults that can occur with this adapter, for both trust domains.
    #[must_use]
    pub fn all(adapter: Adapter) -> Vec<Self> {
        let mut all = Self::EITHER.to_vec();
        if adapter == Adapter::Module {
            all.push(Self::ModuleChanges);
        }
        all
    }

    /// The faults that occur with both adapters.
    const EITHER: [Self; 13] = [
        Self::IdentitiesRotate,
        Self::AuthorityRotates(Side::Local),
        Self::AuthorityRotates(Side::Federated),
        Self::AgentDies(Side::Local),
        Self::AgentDies(Side::Federated),
        Self::ServerStops(Side::Local),
        Self::ServerStops(Side::Federated),
        Self::EndpointUnreachable(Side::Local),
        Self::EndpointUnreachable(Side::Federated),
        Self::PoliciesChange,
        Self::PoliciesBreak,
        Self::EnvoyRestarts,
        Self::Flood,
    ];
}

impl<'e, 'd> Faults<'e, 'd> {
    /// Uses this environment.
    ///
    /// # Errors
    /// Returns an error if the example has no policies.
    pub fn on(environment: &'e mut Federation<'d>) -> Result<Self> {
        Ok(Self { policies: Policies::of(environment)?, environment, flooded: Tally::default(), fastest_flood: 0.0 })
    }

    /// Injects a fault, for this duration if it has no end, and waits until every caller gets the right verdicts again.
    ///
    /// # Errors
    /// Returns an error if the fault cannot be injected, if recovery takes too long, or if an SVID expired although SPIRE
    /// could renew it.
    pub fn run(&mut self, fault: Fault, duration: Duration, load: &Load) -> Result<Outcome> {
        let start = Instant::now();
        let expired = load.tally().expired_count();
        let seen = self.inject(fault, duration).with_context(|| fault.to_string())?;
        let lasted = start.elapsed();
        let recovery = load.recovered(RECOVERY_LIMIT).with_context(|| fault.to_string())?;
        if let Fault::AgentDies(side) | Fault::ServerStops(side) = fault {
            // Before that, certificates can be those from before the fault.
            trust::identities_rotate(self.environment, &[side]).with_context(|| fault.to_string())?;
        } else {
            let expired = load.tally().expired_count() - expired;
            ensure!(expired == 0, "{fault}: {expired} requests were denied with `svid-expired`, but SPIRE was running");
        }
        Ok(Outcome { fault, lasted, recovery, seen })
    }

    fn inject(&mut self, fault: Fault, duration: Duration) -> Result<String> {
        match fault {
            Fault::IdentitiesRotate => {
                for _ in 0..ROTATIONS {
                    trust::identities_rotate(self.environment, &[Side::Local, Side::Federated])?;
                }
            }
            Fault::AuthorityRotates(side) => trust::authority_rotates(self.environment, side)?,
            Fault::AgentDies(side) => {
                let spire = &mut self.environment.domain_mut(side).spire;
                spire.kill_agent()?;
                thread::sleep(duration);
                spire.restart_agent()?;
            }
            Fault::ServerStops(side) => {
                let server = &mut self.environment.domain_mut(side).spire.server;
                server.stop()?;
                thread::sleep(duration);
                server.restart()?;
            }
            Fault::EndpointUnreachable(side) => {
                self.environment.domain(side).endpoint.cut(true);
                let refreshed = self.environment.domain(side.across()).spire.server.refresh();
                thread::sleep(duration);
                self.environment.domain(side).endpoint.cut(false);
                ensure!(refreshed.is_err(), "the endpoint was reachable");
                self.environment.domain(side.across()).spire.server.refresh()?;
            }
            Fault::PoliciesChange => return self.policies.change(self.environment, duration),
            Fault::PoliciesBreak => return self.policies.break_and_restore(self.environment, duration),
            Fault::ModuleChanges => return self.policies.change_module(self.environment, duration),
            Fault::EnvoyRestarts => self.environment.restart_httpbin()?,
            Fault::Flood => return self.flood(duration),
        }
        Ok(String::new())
    }

    fn flood(&mut self, duration: Duration) -> Result<String> {
        let call = |path, allowed| Call { host: crate::bootstrap::SERVER_HOST, method: "GET", path, allowed };
        let (local, federated) = (&self.environment.local, &self.environment.federated);
        let callers = [
            flood::Caller { name: "local", leaf: local.mint("/ns/default/sa/sleep")?, call: call("/status/200", true) },
            flood::Caller {
                name: "federated",
                leaf: federated.mint("/ns/default/sa/sleep")?,
                call: call("/status/200", false),
            },
        ];
        let flood = flood(self.environment.httpbin.address()?, &callers, FLOOD_RATE, duration)?;
        let seen = format!("{:.0} connections a second, {} errors", flood.rate, flood.tally.error_count());
        self.flooded.add(flood.tally);
        self.fastest_flood = flood.rate.max(self.fastest_flood);
        Ok(seen)
    }
}
