//! Which far routers have answered inside their tunnels, on disk for the next start: who has answered can fall silent, and a tunnel that is
//! cut while the router starts is told from one that never was.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{debug, warn};
use weft_dataplane::FarEnd;
use weft_discovery::pki::{create_private_folder, write_secret};

use super::super::managed;
use crate::config::Config;

/// The file in the router's folder.
const FILE: &str = "answered.json";
/// What is older says nothing of today. What holds is written again long before.
const LASTS: Duration = Duration::from_secs(24 * 3600);
const AGAIN: Duration = Duration::from_secs(3600);
/// Far routers that are written down at most.
const MOST: usize = 4096;

/// Far routers, with VNIs that have answered there.
pub(super) type Answered = BTreeMap<FarEnd, Vec<u32>>;

/// A far router in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    far_end: FarEnd,
    vnis: Vec<u32>,
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

    /// What the former process left; nobody, where there was none, or its record is old or cannot be read.
    pub(super) fn read(&self) -> Answered {
        let Some(file) = &self.file else {
            return Answered::new();
        };
        let age = fs::metadata(file).and_then(|about| about.modified());
        let age = age.ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age > LASTS) {
            return Answered::new();
        }
        let read = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Answered::new(),
            read => read.context("cannot read it"),
        };
        let parsed = read.and_then(|octets| Ok(serde_json::from_slice::<Vec<Entry>>(&octets)?));
        match parsed {
            Ok(entries) => {
                let entries = entries.into_iter();
                entries.map(|one| (one.far_end, one.vnis)).collect()
            }
            Err(error) => {
                let file = file.display();
                debug!("which far routers have answered is not known: {file}: {error:#}");
                Answered::new()
            }
        }
    }

    /// Writes what the sender is told, from now on, where it is news or was written long ago.
    pub(super) fn keep(self) -> watch::Sender<Answered> {
        let (sender, mut said) = watch::channel(Answered::new());
        let Some(file) = self.file else {
            return sender;
        };
        tokio::spawn(async move {
            let mut failed = false;
            let mut written: Option<(Answered, Instant)> = None;
            while said.changed().await.is_ok() {
                let answered = said.borrow_and_update().clone();
                let held = written.as_ref();
                // Nobody, right after a start: what is there may be needed by the next one.
                if answered.is_empty()
                    || held.is_some_and(|(one, at)| *one == answered && at.elapsed() < AGAIN)
                {
                    continue;
                }
                written = Some((answered.clone(), Instant::now()));
                let file = file.clone();
                let done = tokio::task::spawn_blocking(move || write(&file, answered)).await;
                match done {
                    Ok(Ok(())) => failed = false,
                    Ok(Err(error)) if !failed => {
                        warn!("a restart will not know which far routers have answered: {error:#}");
                        failed = true;
                    }
                    _ => {}
                }
            }
        });
        sender
    }
}

fn write(file: &Path, answered: Answered) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        create_private_folder(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let entries = answered.into_iter().take(MOST);
    let entries: Vec<Entry> = entries
        .map(|(far_end, vnis)| Entry { far_end, vnis })
        .collect();
    Ok(write_secret(file, &serde_json::to_vec(&entries)?)?)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use weft_overlay::Encapsulation;

    use super::*;

    #[tokio::test]
    async fn who_has_answered_is_known_to_the_next_start_for_a_day() {
        let name = format!("weft-answered-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let text = "router: { name: a, router_id: 192.0.2.1, asn: 64512 }\n";
        let config = Config::parse("a.yaml", text).unwrap();
        let record = || Record::new(&config, Some(&folder));
        assert!(record().read().is_empty());
        let far_end = FarEnd {
            address: [192, 0, 2, 2].into(),
            encapsulation: Encapsulation::Vxlan,
            endpoint_id: None,
            port: Some(4789),
        };
        let answered = Answered::from([(far_end, vec![10_001])]);
        let sender = record().keep();
        sender.send_replace(answered.clone());
        let wait = async {
            while record().read() != answered {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
        let file = folder.join("a").join(FILE);
        let long_ago = SystemTime::now() - LASTS - Duration::from_secs(1);
        fs::File::options()
            .append(true)
            .open(&file)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert!(record().read().is_empty(), "it is of another day");
        fs::write(&file, "[{\"far").unwrap();
        assert!(record().read().is_empty(), "it is torn");
        fs::remove_dir_all(folder).unwrap();
    }
}
