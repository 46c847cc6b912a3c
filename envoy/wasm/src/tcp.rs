//! The network filter: one connection at a time, decided once, before a byte passes either way.
//!
//! Envoy has no callback for the end of a TLS handshake. Data of the client comes after it, so it is decided by then. A
//! server that speaks first may do so before: its data is held until the caller's certificate shows.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proxy_wasm::traits::{Context, StreamContext};
use proxy_wasm::types::Action;
use spiffe_authz::decision::DenyReason;
use spiffe_authz::peer::IdentityReason;
use spiffe_authz::worker::Lease;

use crate::attributes::{CurrentConnection, TcpConnection};
use crate::host;
use crate::worker::Worker;

/// How long the server's data is held, in seconds. Then the connection is closed, since Envoy tells nothing more.
const HOLD_LIMIT: u64 = 10;
const TICK_MILLISECONDS: u32 = 1000;

/// A connection.
pub(crate) struct Connection {
    context: u32,
    /// Nobody, where the configuration is not for connections.
    worker: Option<Rc<Worker>>,
    state: Rc<Cell<State>>,
    held: Held,
}

/// The decision on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Undecided,
    /// Undecided, and the server has spoken.
    Held,
    Allowed(Lease),
    Denied,
    Gone,
}

impl Connection {
    pub(crate) fn new(context: u32, worker: Option<Rc<Worker>>, held: Held) -> Self {
        Self { context, worker, state: Rc::new(Cell::new(State::Undecided)), held }
    }

    /// Acts on the decision, which is made now if there is none, or if it no longer holds: on a connection that is open, an SVID
    /// expires, an identity is revoked, and a policy begins or ceases to apply.
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
                refuse()
            }
        }
    }

    /// Whether the caller's certificate shows, before any data of the client. It shows a moment before the handshake is
    /// complete; a caller that cannot prove it never sees what is written to it.
    fn is_decidable(&self) -> bool {
        let validated = self.worker.as_ref().is_some_and(|worker| worker.requires_validated());
        CurrentConnection::is_handshake_complete()
            || (CurrentConnection::shows_certificate() && (!validated || CurrentConnection::is_validated()))
    }
}

impl Context for Connection {}

impl StreamContext for Connection {
    /// Without TLS there is no certificate to wait for.
    fn on_new_connection(&mut self) -> Action {
        if self.worker.is_some() && CurrentConnection::is_tls() { Action::Continue } else { self.decided() }
    }

    /// The handshake is complete: data of the client is read from TLS.
    fn on_downstream_data(&mut self, _: usize, _: bool) -> Action {
        self.decided()
    }

    fn on_upstream_data(&mut self, _: usize, _: bool) -> Action {
        let undecided = matches!(self.state.get(), State::Undecided | State::Held);
        if undecided && !self.is_decidable() {
            if self.state.replace(State::Held) == State::Undecided {
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

/// The connections of a configuration on one worker whose server has spoken before they were decided.
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

    /// Closes the connections that were held too long.
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
        refuse();
    }
}

/// Closes the connection. Whether or not Envoy could be told, nothing passes.
fn refuse() -> Action {
    if host::close_client_connection().is_err() {
        log::error!("spiffe-authz: Envoy did not close a denied connection; it is left hanging");
    }
    Action::Pause
}
