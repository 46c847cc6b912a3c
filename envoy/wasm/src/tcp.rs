//! The network filter, which decides a connection before any byte passes in either direction.
//!
//! Envoy has no callback for the end of a TLS handshake. The client's data arrives after it, so the connection is decided then. If
//! the server speaks first, its data can arrive before the handshake is complete. The filter holds it until Envoy exposes the
//! client's certificate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proxy_wasm::traits::{Context, StreamContext};
use proxy_wasm::types::Action;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::identity::IdentityReason;
use spiffe_authz::worker::Lease;

use crate::attributes::{CurrentConnection, TcpConnection};
use crate::host;
use crate::worker::Worker;

/// The maximum time for which the server's data is held, in seconds. Then the connection is closed.
const HOLD_LIMIT: u64 = 10;
const TICK_MILLISECONDS: u32 = 1000;

/// A connection.
pub(crate) struct Connection {
    context: u32,
    /// `None` if the configuration is not for connections.
    worker: Option<Rc<Worker>>,
    state: Rc<Cell<State>>,
    held: Held,
}

/// The decision on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No decision yet.
    Pending,
    /// No decision yet, and the server's data is held.
    Held,
    Allowed(Lease),
    Denied,
    Gone,
}

impl Connection {
    pub(crate) fn new(context: u32, worker: Option<Rc<Worker>>, held: Held) -> Self {
        Self { context, worker, state: Rc::new(Cell::new(State::Pending)), held }
    }

    /// Decides the connection, unless an earlier decision is still valid. On an open connection, an SVID can expire, an identity can
    /// be revoked, and a policy can begin or cease to apply.
    fn decided(&self) -> Action {
        match (self.state.get(), &self.worker) {
            (State::Denied | State::Gone, _) => return Action::Pause,
            (State::Allowed(lease), Some(worker)) if worker.holds(&lease) => return Action::Continue,
            _ => {}
        }
        let decided = match &self.worker {
            Some(worker) => worker.decide_for_now(TcpConnection),
            None => Err(DenyReason::NotConfigured),
        };
        match decided {
            Ok(lease) => {
                self.state.set(State::Allowed(lease));
                Action::Continue
            }
            Err(_) => {
                self.state.set(State::Denied);
                close()
            }
        }
    }

    /// Returns `true` if Envoy exposes the client's certificate, before any data of the client. That is shortly before the handshake
    /// is complete. A client without the private key cannot decrypt what is written to it.
    fn is_decidable(&self) -> bool {
        let validated = self.worker.as_ref().is_some_and(|worker| worker.requires_validated());
        CurrentConnection::is_handshake_complete()
            || (CurrentConnection::exposes_certificate() && (!validated || CurrentConnection::is_validated()))
    }
}

impl Context for Connection {}

impl StreamContext for Connection {
    /// Decides at once without TLS, because there is no certificate to wait for.
    fn on_new_connection(&mut self) -> Action {
        if self.worker.is_some() && CurrentConnection::is_tls() { Action::Continue } else { self.decided() }
    }

    /// Decides: the handshake is complete, because Envoy has decrypted data of the client.
    fn on_downstream_data(&mut self, _: usize, _: bool) -> Action {
        self.decided()
    }

    fn on_upstream_data(&mut self, _: usize, _: bool) -> Action {
        let pending = matches!(self.state.get(), State::Pending | State::Held);
        if pending && !self.is_decidable() {
            if self.state.replace(State::Held) == State::Pending {
                self.held.add(self);
            }
            return Action::Pause;
        }
        self.decided()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.set(State::Gone);
    }
}

/// The connections, of a configuration on a worker, whose server has sent data before the decision.
#[derive(Clone, Default)]
pub(crate) struct Held(Rc<RefCell<Vec<HeldConnection>>>);

struct HeldConnection {
    context: u32,
    worker: Option<Rc<Worker>>,
    state: Rc<Cell<State>>,
    /// In seconds.
    since: u64,
}

impl Held {
    fn add(&self, connection: &Connection) {
        let Connection { context, worker, state, held: _ } = connection;
        let (worker, state) = (worker.as_ref().map(Rc::clone), Rc::clone(state));
        self.0.borrow_mut().push(HeldConnection { context: *context, worker, state, since: host::seconds() });
        host::tick_every(TICK_MILLISECONDS);
    }

    /// Closes the connections that were held for too long.
    pub(crate) fn on_tick(&self) {
        let now = host::seconds();
        let mut held = self.0.borrow_mut();
        held.retain(|connection| {
            connection.state.get() == State::Held && {
                let waits = now.saturating_sub(connection.since) < HOLD_LIMIT;
                if !waits {
                    connection.close();
                }
                waits
            }
        });
        if held.is_empty() {
            host::stop_ticking();
        }
    }
}

impl HeldConnection {
    fn close(&self) {
        host::act_for(self.context);
        if let Some(worker) = &self.worker {
            let reason = DenyReason::Identity(IdentityReason::PeerCertificateUnreadable);
            worker.deny(reason, TcpConnection);
        }
        self.state.set(State::Denied);
        close();
    }
}

/// Closes the connection. If Envoy does not close it, the filter still passes no data.
fn close() -> Action {
    if host::close_client_connection().is_err() {
        log::error!("spiffe-authz: Envoy did not close a denied connection, which stays open without data");
    }
    Action::Pause
}
