//! What a restart has to know, in small files of the router's folder.

use std::fs;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;
use weft_discovery::pki::{create_private_folder, write_secret};

use super::managed;
use crate::config::Config;

/// A file of the router's folder that holds a `T`.
pub(super) struct Record<T> {
    file: Option<PathBuf>,
    /// What follows where it cannot be read or written.
    without: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Record<T> {
    /// In the folder for what a restart has to know, where there is one. `without` says what a restart does without it.
    pub(super) fn new(
        config: &Config,
        state: Option<&Path>,
        name: &str,
        without: &'static str,
    ) -> Self {
        let managed = config.controller.as_ref().map(|one| one.state.as_path());
        let folder = managed.or(state);
        let router = &config.router.name;
        Self {
            file: folder.map(|folder| managed::folder(folder, router).join(name)),
            without,
            holds: PhantomData,
        }
    }

    /// What the former process left; `None` where there was none, or it cannot be read, or was written longer ago than it `lasts`.
    pub(super) fn read(&self, lasts: Option<Duration>) -> Option<T> {
        let file = self.file.as_ref()?;
        let read = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            read => read.context("cannot read it"),
        };
        if let Some(lasts) = lasts {
            let written = fs::metadata(file).and_then(|about| about.modified());
            let age = written.ok().and_then(|at| at.elapsed().ok());
            age.filter(|age| *age <= lasts)?;
        }
        let parsed = read.and_then(|octets| Ok(serde_json::from_slice(&octets)?));
        parsed
            .inspect_err(|error| warn!("{}: {}: {error:#}", self.without, file.display()))
            .ok()
    }

    /// Writes from now on what `entry` makes of what is said, where it makes something, and at most once in a `pause`.
    pub(super) fn follow<S: Send + Sync + 'static>(
        self,
        mut said: watch::Receiver<S>,
        pause: Duration,
        mut entry: impl FnMut(&S) -> Option<T> + Send + 'static,
    ) {
        let Some(file) = self.file else {
            return;
        };
        tokio::spawn(async move {
            let mut failed = false;
            while said.changed().await.is_ok() {
                let Some(entry) = entry(&said.borrow_and_update()) else {
                    continue;
                };
                let file = file.clone();
                let written = tokio::task::spawn_blocking(move || write(&file, &entry)).await;
                match written {
                    Ok(Ok(())) => failed = false,
                    Ok(Err(error)) if !failed => {
                        warn!("{}: {error:#}", self.without);
                        failed = true;
                    }
                    _ => {}
                }
                tokio::time::sleep(pause).await;
            }
        });
    }
}

fn write(file: &Path, entry: &impl Serialize) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        create_private_folder(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(write_secret(file, &serde_json::to_vec(entry)?)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_read_by_the_next_start_and_an_old_or_torn_record_by_none() {
        let name = format!("weft-record-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let text = "router: { name: a, router_id: 192.0.2.1, asn: 64512 }\n";
        let config = Config::parse("a.yaml", text).unwrap();
        let record = || -> Record<BTreeSet<u8>> {
            Record::new(&config, Some(&folder), "numbers.json", "a test fails")
        };
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(record().read(None), None);
        let (sender, said) = watch::channel(BTreeSet::new());
        // An empty one is not written.
        let entry = |one: &BTreeSet<u8>| (!one.is_empty()).then(|| one.clone());
        record().follow(said, Duration::ZERO, entry);
        let numbers = BTreeSet::from([1, 2]);
        sender.send_replace(numbers.clone());
        let wait = async {
            while record().read(Some(day)).as_ref() != Some(&numbers) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
        let file = folder.join("a").join("numbers.json");
        let long_ago = SystemTime::now() - day - Duration::from_secs(1);
        let opened = fs::File::options().append(true).open(&file).unwrap();
        opened.set_modified(long_ago).unwrap();
        assert_eq!(record().read(Some(day)), None, "it is of another day");
        assert_eq!(record().read(None), Some(numbers));
        fs::write(&file, "[1, ").unwrap();
        assert_eq!(record().read(None), None, "it is torn");
        fs::remove_dir_all(folder).unwrap();
    }
}
