//! Which far routers have answered inside their tunnels, on disk for the next start: who has answered can fall silent, and a tunnel that is
//! cut while the router starts is told from one that never was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weft_dataplane::FarEnd;

use super::super::record::Record;
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
pub(super) struct Entry {
    far_end: FarEnd,
    vnis: Vec<u32>,
}

/// The record.
pub(super) fn open(config: &Config, state: Option<&Path>) -> Record<Vec<Entry>> {
    let without = "which far routers have answered is not known to a start";
    Record::new(config, state, FILE, without)
}

/// What the former process left; nobody, where there was none, or its record is old or cannot be read.
pub(super) fn read(record: &Record<Vec<Entry>>) -> Answered {
    let entries = record.read(Some(LASTS)).unwrap_or_default().into_iter();
    entries.map(|one| (one.far_end, one.vnis)).collect()
}

/// Writes what the sender is told, from now on, where it is news or was written long ago.
pub(super) fn keep(record: Record<Vec<Entry>>) -> watch::Sender<Answered> {
    let (sender, said) = watch::channel(Answered::new());
    let mut written: Option<(Answered, Instant)> = None;
    record.follow(said, Duration::ZERO, move |answered: &Answered| {
        let held = written.as_ref();
        // Nobody, right after a start: what is there may be needed by the next one.
        if answered.is_empty()
            || held.is_some_and(|(one, at)| one == answered && at.elapsed() < AGAIN)
        {
            return None;
        }
        written = Some((answered.clone(), Instant::now()));
        let entries = answered.iter().take(MOST).map(|(far_end, vnis)| Entry {
            far_end: *far_end,
            vnis: vnis.clone(),
        });
        Some(entries.collect())
    });
    sender
}

#[cfg(test)]
mod tests {
    use weft_overlay::Encapsulation;

    use super::*;

    #[tokio::test]
    async fn who_has_answered_is_known_to_the_next_start() {
        let name = format!("weft-answered-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let text = "router: { name: a, router_id: 192.0.2.1, asn: 64512 }\n";
        let config = Config::parse("a.yaml", text).unwrap();
        let record = || open(&config, Some(&folder));
        assert!(read(&record()).is_empty());
        let far_end = FarEnd {
            address: [192, 0, 2, 2].into(),
            encapsulation: Encapsulation::Vxlan,
            endpoint_id: None,
            port: Some(4789),
        };
        let answered = Answered::from([(far_end, vec![10_001])]);
        let sender = keep(record());
        sender.send_replace(answered.clone());
        let wait = async {
            while read(&record()) != answered {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
