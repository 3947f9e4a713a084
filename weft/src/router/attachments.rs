//! Interfaces that were tenants', on disk for the next start: over a reboot too nothing passes one that its tenant has left.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::record::Record;
use crate::config::Config;

/// The file in the router's folder.
const FILE: &str = "attachments.json";
/// Between two writes: tenants come many at a time.
const PAUSE: Duration = Duration::from_millis(100);

/// The record: by name, the last day (since 1970) on which it was there.
pub(super) fn record(config: &Config, state: Option<&Path>) -> Record<BTreeMap<String, u64>> {
    let without = "which interfaces tenants have left is not known to a start after a reboot: they are not closed then";
    Record::new(config, state, FILE, without)
}

/// Writes what the data plane knows, from now on.
pub(super) fn keep(
    record: Record<BTreeMap<String, u64>>,
    known: watch::Receiver<BTreeMap<String, u64>>,
) {
    record.follow(known, PAUSE, |known| Some(known.clone()));
}
