//! Neighbours that keep our routes while we are away (the helpers of RFC 4724), on disk for the next start: it waits for them alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tracing::warn;
use weft_discovery::pki::{create_private_folder, write_secret};

use super::managed;
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
pub(super) struct Record {
    file: Option<PathBuf>,
}

impl Record {
    /// In the folder for what a restart has to know, where there is one.
    pub(super) fn new(config: &Config, state: Option<&Path>) -> Self {
        let managed = config.controller.as_ref().map(|one| one.state.as_path());
        let folder = managed.or(state);
        Self {
            file: folder.map(|folder| managed::folder(folder, &config.router.name).join(FILE)),
        }
    }

    /// What the former process left; `None` where there was none, or its record cannot be read.
    pub(super) fn read(&self) -> Option<BTreeSet<IpAddr>> {
        let file = self.file.as_ref()?;
        let read = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            read => read.context("cannot read it"),
        };
        let parsed = read.and_then(|octets| Ok(serde_json::from_slice(&octets)?));
        parsed
            .inspect_err(|error| {
                let file = file.display();
                warn!("which neighbours keep our routes is not known, so all are waited for: {file}: {error:#}");
            })
            .ok()
    }

    /// Writes what the sender is told, from now on.
    pub(super) fn keep(self) -> watch::Sender<BTreeSet<IpAddr>> {
        let (sender, mut said) = watch::channel(BTreeSet::new());
        let Some(file) = self.file else {
            return sender;
        };
        tokio::spawn(async move {
            let mut failed = false;
            while said.changed().await.is_ok() {
                let helpers = said.borrow_and_update().clone();
                let file = file.clone();
                let written = tokio::task::spawn_blocking(move || write(&file, &helpers)).await;
                match written {
                    Ok(Ok(())) => failed = false,
                    Ok(Err(error)) if !failed => {
                        warn!("a restart will wait for all neighbours: {error:#}");
                        failed = true;
                    }
                    _ => {}
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        sender
    }
}

fn write(file: &Path, helpers: &BTreeSet<IpAddr>) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        create_private_folder(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(write_secret(file, &serde_json::to_vec(helpers)?)?)
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

    #[tokio::test]
    async fn what_is_kept_is_read_by_the_next_start_and_a_torn_record_by_none() {
        let name = format!("weft-helpers-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let record = || Record::new(&config(""), Some(&folder));
        assert_eq!(record().read(), None);
        let helpers = BTreeSet::from([IpAddr::from([192, 0, 2, 2])]);
        let sender = record().keep();
        sender.send_replace(helpers.clone());
        let wait = async {
            while record().read().as_ref() != Some(&helpers) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
        fs::write(folder.join("a").join(FILE), "[\"192.0").unwrap();
        assert_eq!(record().read(), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
