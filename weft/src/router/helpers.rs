//! Neighbours that keep our routes while we are away (the helpers of RFC 4724), on disk for the next start: it waits for them alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::record::Record;
use crate::config::Config;

/// The file in the router's folder.
pub(super) const FILE: &str = "helpers.json";
/// Between two writes: sessions come up and flap many at a time.
const PAUSE: Duration = Duration::from_secs(1);

/// What a start knows of the one before.
#[derive(Default)]
pub(super) struct Before {
    /// The routes of an earlier process still forward.
    pub(super) restarting: bool,
    /// Neighbours that may keep our routes; `None` where nobody knows.
    pub(super) helpers: Option<BTreeSet<IpAddr>>,
}

impl Before {
    /// `found_state`: the kernel has what an earlier process made.
    pub(super) fn new(
        config: &Config,
        found_state: bool,
        helpers: Option<BTreeSet<IpAddr>>,
    ) -> Self {
        // What only reflects routes holds nothing in the kernel, and forwards no less while it is away.
        let reflects = config.overlay.is_none() && config.install.is_empty();
        let kept = helpers.as_ref().is_some_and(|helpers| !helpers.is_empty());
        let restarting = found_state || (reflects && kept);
        Self {
            restarting,
            helpers: helpers.filter(|_| restarting),
        }
    }
}

/// The record.
pub(super) fn record(config: &Config, state: Option<&Path>) -> Record<BTreeSet<IpAddr>> {
    let without = "which neighbours keep our routes is not known to a start: all are waited for";
    Record::new(config, state, FILE, without)
}

/// Writes what the sender is told, from now on.
pub(super) fn keep(record: Record<BTreeSet<IpAddr>>) -> watch::Sender<BTreeSet<IpAddr>> {
    let (sender, said) = watch::channel(BTreeSet::new());
    record.follow(said, PAUSE, |helpers| Some(helpers.clone()));
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = format!("router: {{ name: a, router_id: 192.0.2.1, asn: 64512 }}\n{more}");
        Config::parse("a.yaml", &text).unwrap()
    }

    #[test]
    fn a_reflector_that_comes_back_says_so_without_anything_in_the_kernel() {
        let reflector = config("");
        let helpers = BTreeSet::from([IpAddr::from([192, 0, 2, 2])]);
        let before = Before::new(&reflector, false, Some(helpers.clone()));
        assert!(before.restarting);
        assert_eq!(before.helpers, Some(helpers.clone()));
        // Nobody keeps anything, or nobody knows.
        for helpers in [Some(BTreeSet::new()), None] {
            assert!(!Before::new(&reflector, false, helpers).restarting);
        }
        // A router that forwards, after the machine has started anew.
        let edge = config("install: [192.0.2.0/24]");
        let before = Before::new(&edge, false, Some(helpers.clone()));
        assert!(!before.restarting && before.helpers.is_none());
        assert!(Before::new(&edge, true, Some(helpers)).restarting);
    }
}
