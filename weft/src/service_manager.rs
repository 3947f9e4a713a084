//! What the service manager is told (sd_notify(3)): that a router or controller is ready, how it does, and that it is alive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;
use weft_api::RouterState;

/// How often the manager is told how the router does, where it asks for no sign of life more often.
const TELL: Duration = Duration::from_secs(10);

/// Tells the manager; does nothing where none asks.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}

/// What was started runs, or does its part of it: it waits for what others have to say.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] says that this is over.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It was told to stop.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the manager for ever that it is alive, while it waits for others and there is nothing to ask.
pub(crate) async fn wait() -> Infallible {
    let Some(longest) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(longest / 3).await;
    }
}

/// Tells the manager for ever how the router does, and that it is alive: while BGP, overlay and data plane answer. What hangs is
/// restarted by the manager then; forwarding stays meanwhile.
pub(crate) async fn watch<S: RouterState>(state: Arc<S>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let pause = match sd_notify::watchdog_enabled() {
        Some(longest) => (longest / 3).min(TELL),
        None => TELL,
    };
    loop {
        if let Ok(status) = state.status().await {
            let words = format!(
                "{}; {} of {} neighbours established",
                status.forwarding.verdict.as_str(),
                status.neighbors_established,
                status.neighbors
            );
            tell(&[NotifyState::Watchdog, NotifyState::Status(&words)]);
        }
        tokio::time::sleep(pause).await;
    }
}
