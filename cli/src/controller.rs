//! The controller: watches the policies of a cluster, and writes the objects that deploy them.
//!
//! Every change in the cluster leads to the same work: list everything, render it as `spiffe-authz render` does, and apply
//! what differs. There is no state between two runs, so a restart or a missed event changes nothing.

mod cluster;
mod endpoints;
mod events;
mod inputs;
mod lease;
mod log;
mod metrics;
mod reconcile;
pub(crate) mod server;
mod status;
pub(crate) mod webhook;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::exit;
use events::Events;
use lease::Lease;
use metrics::{Found, Metrics};
use webhook::Webhook;

/// The time without a change after which a comparison starts, and the longest time until it starts.
const QUIET: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];
/// The time until everything is compared again without a change.
const RESYNC: Duration = Duration::from_secs(300);
/// The shortest and the longest time until a run that failed is repeated.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The time for one comparison. A request to an API server that has vanished has no other limit.
const PATIENCE: Duration = Duration::from_secs(120);

/// The settings of a replica.
pub(crate) struct Settings {
    pub(crate) istio_namespace: String,
    pub(crate) mesh_config: String,
    /// The namespace of the Lease.
    pub(crate) namespace: String,
    /// The name of this replica.
    pub(crate) replica: String,
    /// The address of the health checks and metrics.
    pub(crate) listen: SocketAddr,
}

/// Serves the webhook, or waits indefinitely if there is none.
async fn serve_webhook(webhook: Option<&(Webhook, TcpListener)>, client: &Client, settings: &Arc<Settings>) {
    match webhook {
        Some((webhook, listener)) => webhook::serve(listener, webhook, client, settings).await,
        None => pending().await,
    }
}

/// Runs until the process is told to stop.
///
/// # Errors
/// Returns an error if there is no cluster, if an address is in use, or if the certificate of the webhook cannot be used.
pub(crate) async fn run(settings: Settings, webhook: Option<Webhook>) -> io::Result<()> {
    let settings = Arc::new(settings);
    let client = Client::try_default().await.map_err(io::Error::other)?;
    let metrics = Arc::new(Metrics::default());
    let listener = server::listen(settings.listen).await?;
    let webhook = match webhook {
        Some(webhook) => {
            webhook.certificate.read()?;
            let listener = server::listen(webhook.listen).await?;
            Some((webhook, listener))
        }
        None => None,
    };
    let changed = Arc::new(Notify::new());
    let lease = Arc::new(Lease::new(client.clone(), &settings.namespace, &settings.replica, Arc::clone(&changed)));
    log::info("started", &[("replica", &settings.replica)]);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = endpoints::serve(&listener, &metrics, &lease) => {}
        () = serve_webhook(webhook.as_ref(), &client, &settings) => {}
        () = lease.hold() => {}
        () = cluster::watch(&client, &settings, &changed) => {}
        () = act(&client, &settings, &changed, &lease, &metrics) => {}
    }
    lease.release().await;
    log::info("stopped", &[("replica", &settings.replica)]);
    Ok(())
}

/// Waits until the changes pause. Each comparison during many changes would write objects that are already outdated.
async fn settle(changed: &Notify) {
    let [pause, longest] = QUIET;
    let until_paused = async { while timeout(pause, changed.notified()).await.is_ok() {} };
    // The other changes lead to the next comparison.
    let _ = timeout(longest, until_paused).await;
}

/// Reconciles after each change, while this replica is the one that acts.
async fn act(client: &Client, settings: &Settings, changed: &Notify, lease: &Lease, metrics: &Metrics) {
    let mut events = Events::new(client.clone(), &settings.replica);
    let mut wait = RESYNC;
    loop {
        // Without a change, the time has passed, and everything is compared again.
        let _ = timeout(wait, changed.notified()).await;
        settle(changed).await;
        if !lease.is_held() {
            metrics.found(&Found::default());
            wait = RESYNC;
            continue;
        }
        let run = timeout(PATIENCE, reconcile::run(client, settings, lease, metrics, &mut events)).await;
        wait = match run.unwrap_or_else(|_| Err(io::Error::other("the API server does not answer"))) {
            Ok(()) => {
                metrics.succeeded();
                RESYNC
            }
            Err(error) => {
                metrics.failed();
                log::error("the cluster cannot be read or changed", &[("error", &exit::text(&error))]);
                let [shortest, longest] = BACKOFF;
                if wait == RESYNC { shortest } else { (wait * 2).min(longest) }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::time::{Instant, sleep};

    use super::{QUIET, settle};

    #[tokio::test]
    async fn changes_without_a_pause_do_not_delay_a_comparison_for_ever() {
        let [pause, longest] = QUIET;
        let changed = Notify::new();
        let start = Instant::now();
        settle(&changed).await;
        assert!(start.elapsed() >= pause && start.elapsed() < longest, "{:?}", start.elapsed());
        let start = Instant::now();
        tokio::select! {
            () = settle(&changed) => {}
            () = async {
                loop {
                    changed.notify_one();
                    sleep(Duration::from_millis(20)).await;
                }
            } => {}
        }
        assert!(start.elapsed() >= longest, "{:?}", start.elapsed());
    }
}
