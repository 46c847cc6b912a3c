//! The network filter: one connection at a time, decided once, before a byte passes either way.
//!
//! Envoy has no callback for the end of a TLS handshake. Data of the client comes after it, so it is decided by then. A
//! server that speaks first may do so before: its data is held until the caller's certificate shows.

use std::cell::Cell;

use spiffe_authz::decision::DenyReason;
use spiffe_authz::peer::IdentityReason;
use spiffe_authz::policy::Layer;
use spiffe_authz::request::Request;

use crate::attributes::{CurrentConnection, TcpConnection};
use crate::exports::Action;
use crate::host::{self, Level};
use crate::plugin::Plugin;
use crate::worker::Worker;

/// How long the server's data is held, in seconds. Then the connection is closed, since Envoy tells nothing more.
const HOLD_LIMIT: u64 = 10;
const TICK_MILLISECONDS: u32 = 1000;

/// A connection, and what was decided of it.
pub(crate) struct Connection {
    context: u32,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Undecided,
    /// Undecided, and the server has spoken at this time, in seconds.
    Held(u64),
    Allowed,
    Denied,
}

impl Connection {
    pub(crate) const fn new(context: u32) -> Self {
        Self { context, state: Cell::new(State::Undecided) }
    }

    /// Without TLS there is no certificate to wait for.
    pub(crate) fn on_new(&self, plugin: &Plugin) -> Action {
        if CurrentConnection::is_tls() { Action::Continue } else { self.decided(plugin) }
    }

    /// The handshake is complete: data of the client is read from TLS.
    pub(crate) fn on_client_data(&self, plugin: &Plugin) -> Action {
        self.decided(plugin)
    }

    pub(crate) fn on_server_data(&self, plugin: &Plugin) -> Action {
        let undecided = matches!(self.state.get(), State::Undecided | State::Held(_));
        if undecided && !is_decidable(plugin) {
            if self.state.get() == State::Undecided {
                self.state.set(State::Held(host::seconds()));
                host::tick_every(TICK_MILLISECONDS);
            }
            return Action::Pause;
        }
        self.decided(plugin)
    }

    /// Closes a connection that was held too long; tells whether it is still held.
    pub(crate) fn on_tick(&self, plugin: &Plugin) -> bool {
        let State::Held(since) = self.state.get() else { return false };
        if host::seconds().saturating_sub(since) < HOLD_LIMIT {
            return true;
        }
        host::act_for(self.context);
        if let Some(worker) = plugin.worker(Layer::Tcp) {
            let reason = DenyReason::Identity(IdentityReason::PeerCertificateUnreadable);
            worker.deny(reason, &Request::new(TcpConnection));
        }
        self.state.set(State::Denied);
        refuse();
        false
    }

    /// What was decided, or is now.
    fn decided(&self, plugin: &Plugin) -> Action {
        match self.state.get() {
            State::Allowed => return Action::Continue,
            State::Denied => return Action::Pause,
            State::Undecided | State::Held(_) => {}
        }
        let denial = match plugin.worker(Layer::Tcp) {
            Some(worker) => worker.decide(&Request::new(TcpConnection)),
            None => Some(DenyReason::NotConfigured),
        };
        self.state.set(if denial.is_none() { State::Allowed } else { State::Denied });
        if denial.is_none() { Action::Continue } else { refuse() }
    }
}

/// Whether the caller's certificate shows, before any data of the client. It shows a moment before the handshake is
/// complete; a caller that cannot prove it never sees what is written to it.
fn is_decidable(plugin: &Plugin) -> bool {
    let validated = plugin.worker(Layer::Tcp).is_some_and(Worker::requires_validated);
    CurrentConnection::is_handshake_complete()
        || (CurrentConnection::shows_certificate() && (!validated || CurrentConnection::is_validated()))
}

/// Closes the connection. Whether or not Envoy could be told, nothing passes.
pub(crate) fn refuse() -> Action {
    if host::close_client_connection().is_err() {
        host::log(Level::Error, "spiffe-authz: Envoy did not close a denied connection; it is left hanging");
    }
    Action::Pause
}
