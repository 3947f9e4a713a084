//! How far the routers are that tunnels lead to: echo requests through the underlay, one at a time, evenly over the interval.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use weft_api::types as api;
use weft_dataplane::Echo;

use super::core::Queries;
use crate::config::Config;

/// Routers that are probed at most, by address from the first on.
const MOST: usize = 4096;
/// Probes that loss and round-trip times are of.
const RECENT: usize = 32;

/// What was found, by address.
#[derive(Clone, Default)]
pub(super) struct Endpoints(Arc<Mutex<BTreeMap<IpAddr, Probed>>>);

/// What echo requests to one router found.
#[derive(Clone, Debug, Default)]
struct Probed {
    answered: u64,
    lost: u64,
    /// Round-trip times of the latest, the latest last; `None` for a lost one.
    recent: VecDeque<Option<Duration>>,
    /// The one that is on its way.
    waiting: Option<(u16, Instant)>,
}

impl Probed {
    fn note(&mut self, round_trip: Option<Duration>) {
        match round_trip {
            Some(_) => self.answered += 1,
            None => self.lost += 1,
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(round_trip);
    }

    /// Another one goes out: the one before is lost, where it has no answer.
    fn handle_sent(&mut self, sequence: u16, now: Instant) {
        if self.waiting.replace((sequence, now)).is_some() {
            self.note(None);
        }
    }

    fn handle_answer(&mut self, sequence: u16, now: Instant) {
        if let Some((_, sent)) = self.waiting.take_if(|(waiting, _)| *waiting == sequence) {
            self.note(Some(now.duration_since(sent)));
        }
    }

    /// For the API; `None` before the first has been answered or lost.
    fn probes(&self) -> Option<api::Probes> {
        let micros = |one: &Duration| u64::try_from(one.as_micros()).unwrap_or(u64::MAX);
        let times: Vec<u64> = self.recent.iter().flatten().map(micros).collect();
        let (least, most) = (times.iter().min(), times.iter().max());
        let round_trip = times.last().zip(least.zip(most));
        let round_trip = round_trip.map(|(last, (least, most))| api::RoundTrip {
            last: *last,
            least: *least,
            mean: times.iter().sum::<u64>() / times.len() as u64,
            most: *most,
        });
        (!self.recent.is_empty()).then(|| api::Probes {
            answered: self.answered,
            lost: self.lost,
            recent: self.recent.len() as u32,
            recent_lost: (self.recent.len() - times.len()) as u32,
            round_trip,
        })
    }
}

impl Endpoints {
    /// Probes the routers that tunnels lead to, each once an interval, for ever.
    pub(super) fn start(config: &Config, queries: Queries) -> Self {
        let endpoints = Self::default();
        let overlay = config.overlay.as_ref();
        let Some(overlay) = overlay.filter(|overlay| overlay.probe_interval > 0) else {
            return endpoints;
        };
        let interval = Duration::from_secs(overlay.probe_interval.into());
        match Echo::open(overlay.endpoint) {
            Ok(echo) => {
                tokio::spawn(endpoints.clone().run(interval, queries, echo));
            }
            Err(error) => warn!(
                %error,
                "cannot send echo requests: no round-trip times; give the process CAP_NET_RAW, or set `overlay.probe_interval` to 0"
            ),
        }
        endpoints
    }

    /// What was found of one router.
    pub(super) fn probes(&self, one: IpAddr) -> Option<api::Probes> {
        self.all().get(&one)?.probes()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Probed>> {
        // Nobody panics with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, interval: Duration, queries: Queries, echo: Echo) {
        let mut sequence: u16 = 0;
        // Those of this round that have not had their turn.
        let mut turns: VecDeque<IpAddr> = VecDeque::new();
        let mut step = interval;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                (from, sequence) = echo.receive() => {
                    if let Some(probed) = self.all().get_mut(&from) {
                        probed.handle_answer(sequence, Instant::now());
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    if turns.is_empty() {
                        let Some(used) = queries.ask(weft_overlay::table::Overlay::endpoints).await else {
                            return;
                        };
                        turns = self.adopt(used.into_keys());
                        step = interval / u32::try_from(turns.len()).unwrap_or(1).max(1);
                    }
                    if let Some(to) = turns.pop_front() {
                        sequence = sequence.wrapping_add(1);
                        if let Some(probed) = self.all().get_mut(&to) {
                            probed.handle_sent(sequence, Instant::now());
                        }
                        // One that cannot leave is lost like another.
                        let _ = echo.send(to, sequence);
                    }
                    next = Instant::now() + step.mul_f64(jitter());
                }
            }
        }
    }

    /// Goes over to these routers; gives those that have a turn.
    fn adopt(&self, used: impl Iterator<Item = IpAddr>) -> VecDeque<IpAddr> {
        let turns: VecDeque<IpAddr> = used.take(MOST).collect();
        let mut all = self.all();
        all.retain(|address, _| turns.binary_search(address).is_ok());
        for address in &turns {
            all.entry(*address).or_default();
        }
        turns
    }
}

/// 0.5 to 1.5: routers do not probe in step.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0);
    0.5 + (random >> 32) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_for_the_probe_that_waits_and_for_no_other() {
        let mut probed = Probed::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(probed.probes(), None);
        probed.handle_sent(1, at(0));
        assert_eq!(probed.probes(), None, "it may still be answered");
        probed.handle_answer(1, at(3));
        // Twice, and one that was never sent.
        probed.handle_answer(1, at(4));
        probed.handle_answer(9, at(4));
        probed.handle_sent(2, at(10));
        probed.handle_sent(3, at(20));
        // Too late.
        probed.handle_answer(2, at(21));
        probed.handle_answer(3, at(25));
        let probes = probed.probes().unwrap();
        assert_eq!((probes.answered, probes.lost), (2, 1));
        assert_eq!((probes.recent, probes.recent_lost), (3, 1));
        let expected = api::RoundTrip {
            last: 5000,
            least: 3000,
            mean: 4000,
            most: 5000,
        };
        assert_eq!(probes.round_trip, Some(expected));
        // It remembers so many and no more.
        for number in 0..1000 {
            probed.handle_sent(number, at(30));
        }
        let probes = probed.probes().unwrap();
        assert_eq!((probes.answered, probes.lost), (2, 1000));
        assert_eq!((probes.recent, probes.recent_lost), (32, 32));
        assert_eq!(probes.round_trip, None);
    }
}
