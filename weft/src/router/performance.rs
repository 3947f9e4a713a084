//! How the router does, for a controller that asks: everything as it is now, and what was counted since a time.
//!
//! Counters are kept as they were at some times, so that any asker can have what was counted since: every minute, and at every
//! answer. The farther back, the fewer of them; never more than fit.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weft_api::types::{Drops, Endpoint, Performance, Traffic};
use weft_api::{KernelQuery, RouterState};
use weft_discovery::client::Question;

use super::state::LiveState;

/// Time between samples that nobody asks for.
const INTERVAL: Duration = Duration::from_secs(60);
/// Samples at most, and counters in all of them together.
const SAMPLES: usize = 24;
const COUNTERS: usize = 100_000;

/// Counters at a time.
struct Sample {
    at: Instant,
    traffic: HashMap<(u32, IpAddr), [u64; 4]>,
    probes: HashMap<IpAddr, [u64; 2]>,
    drops: Option<Drops>,
}

fn counters(one: &mut Traffic) -> [&mut u64; 4] {
    [
        &mut one.received_packets,
        &mut one.received_octets,
        &mut one.sent_packets,
        &mut one.sent_octets,
    ]
}

/// What was counted since; all of it where somebody has begun anew.
fn count<const N: usize>(now: [&mut u64; N], before: Option<&[u64; N]>) {
    let Some(before) = before else { return };
    if now.iter().zip(before).all(|(now, before)| **now >= *before) {
        for (now, before) in now.into_iter().zip(before) {
            *now -= before;
        }
    }
}

impl Sample {
    fn new(at: Instant, performance: &Performance) -> Self {
        let traffic = performance.traffic.iter().map(|one| {
            let mut copy = one.clone();
            (
                (one.vni, one.endpoint),
                counters(&mut copy).map(|count| *count),
            )
        });
        let probes = performance.endpoints.iter().filter_map(|one| {
            let probes = one.probes.as_ref()?;
            Some((one.address, [probes.answered, probes.lost]))
        });
        Self {
            at,
            traffic: traffic.collect(),
            probes: probes.collect(),
            drops: performance.drops,
        }
    }

    /// Takes what had been counted then from what is counted now.
    fn subtract_from(&self, performance: &mut Performance) {
        for one in &mut performance.traffic {
            let before = self.traffic.get(&(one.vni, one.endpoint));
            count(counters(one), before);
        }
        for one in &mut performance.endpoints {
            if let Some(probes) = &mut one.probes {
                let before = self.probes.get(&one.address);
                count([&mut probes.answered, &mut probes.lost], before);
            }
        }
        if let (Some(now), Some(before)) = (&mut performance.drops, &self.drops) {
            let before = [
                before.unknown_vni,
                before.foreign_address,
                before.foreign_attachment,
                before.other_protocol,
                before.untranslated,
                before.unknown_sender,
            ];
            let now = [
                &mut now.unknown_vni,
                &mut now.foreign_address,
                &mut now.foreign_attachment,
                &mut now.other_protocol,
                &mut now.untranslated,
                &mut now.unknown_sender,
            ];
            count(now, Some(&before));
        }
    }

    fn counters(&self) -> usize {
        self.traffic.len() + self.probes.len() + 1
    }
}

/// Samples, the latest last.
#[derive(Default)]
struct Samples(VecDeque<Sample>);

impl Samples {
    fn add(&mut self, sample: Sample) {
        let most = (COUNTERS / sample.counters()).clamp(2, SAMPLES);
        self.0.push_back(sample);
        while self.0.len() > most {
            self.thin();
        }
    }

    /// Drops the one whose neighbours are nearest to each other, for how long ago they were. The first and the last stay.
    fn thin(&mut self) {
        let Some(now) = self.0.back().map(|one| one.at) else {
            return;
        };
        let gap = |at: &usize| {
            let (before, after) = (self.0[at - 1].at, self.0[at + 1].at);
            (after - before).as_secs_f64() / (now - before).as_secs_f64().max(f64::EPSILON)
        };
        let inner = 1..self.0.len().saturating_sub(1);
        if let Some(at) = inner.min_by(|a, b| gap(a).total_cmp(&gap(b))) {
            self.0.remove(at);
        }
    }

    /// The latest at a time or before; else the first.
    fn since(&self, time: Option<Instant>) -> Option<&Sample> {
        let before = |one: &&Sample| time.is_some_and(|time| one.at <= time);
        self.0.iter().rev().find(before).or_else(|| self.0.front())
    }
}

/// Answers the controller's questions.
#[derive(Clone)]
pub(super) struct Reporter {
    state: Arc<LiveState>,
    samples: Arc<Mutex<Samples>>,
}

impl Reporter {
    /// One that keeps samples from now on.
    pub(super) fn start(state: Arc<LiveState>) -> Self {
        let reporter = Self {
            state,
            samples: Arc::default(),
        };
        let sampling = reporter.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(INTERVAL);
            loop {
                tick.tick().await;
                let now = sampling.now(true).await;
                sampling.keep(&now);
            }
        });
        reporter
    }

    /// How the router does, for who asked the controller.
    pub(super) async fn answer(self, question: Question) {
        // A tenant's administrator sees the tenant's, and nothing of the router's.
        let whole = question.tenant.is_empty();
        let mut now = self.now(whole).await;
        if whole {
            self.keep(&now);
        } else {
            let tenant = Some(&question.tenant);
            now.neighbors.retain(|one| one.tenant.as_ref() == tenant);
            now.tenants.retain(|one| Some(&one.name) == tenant);
            now.traffic.retain(|one| one.tenant.as_ref() == tenant);
            now.endpoints = self.endpoints(tenant.cloned()).await;
        }
        if let Some(ago) = question.since {
            let time = Instant::now();
            let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sample) = samples.since(time.checked_sub(ago)) {
                sample.subtract_from(&mut now);
                now.seconds = Some((time - sample.at).as_secs_f64());
            }
        }
        let answer = serde_json::to_value(now).unwrap_or_default();
        // The stream may have ended.
        let _ = question.answer.send(answer);
    }

    fn keep(&self, performance: &Performance) {
        let sample = Sample::new(Instant::now(), performance);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.add(sample);
    }

    async fn endpoints(&self, tenant: Option<String>) -> Vec<Endpoint> {
        self.state.endpoints(tenant).await.unwrap_or_default()
    }

    /// Everything, as it is now.
    async fn now(&self, whole: bool) -> Performance {
        let state = &self.state;
        let (mut status, mut drops, mut endpoints) = (None, None, Vec::new());
        if whole {
            status = state.status().await.ok();
            let kernel = state.kernel(KernelQuery {
                offset: 0,
                limit: 1,
            });
            drops = kernel.await.ok().and_then(|kernel| kernel.drops);
            endpoints = self.endpoints(None).await;
        }
        Performance {
            seconds: None,
            status,
            neighbors: state.neighbors().await.unwrap_or_default(),
            tenants: state.tenants().await.unwrap_or_default(),
            traffic: state.traffic().await.unwrap_or_default(),
            endpoints,
            drops,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn performance(packets: u64) -> Performance {
        Performance {
            seconds: None,
            status: None,
            neighbors: Vec::new(),
            tenants: Vec::new(),
            traffic: vec![Traffic {
                tenant: Some("red".into()),
                vni: 10_000,
                endpoint: [192, 0, 2, 1].into(),
                received_packets: packets,
                received_octets: packets * 100,
                sent_packets: 0,
                sent_octets: 0,
            }],
            endpoints: Vec::new(),
            drops: None,
        }
    }

    #[test]
    fn what_was_counted_since_is_told_however_long_ago_with_a_bounded_memory() {
        let start = Instant::now();
        let minute = |minute: u64| start + Duration::from_secs(60 * minute);
        let mut samples = Samples::default();
        let week = 7 * 24 * 60;
        for number in 0..=week {
            samples.add(Sample::new(minute(number), &performance(number)));
            assert!(samples.0.len() <= SAMPLES);
        }
        for ago in [0, 1, 5, 60, 600, 24 * 60, week] {
            let sample = samples.since(Some(minute(week - ago))).unwrap();
            let covered = (minute(week) - sample.at).as_secs() / 60;
            // All that is asked for, and not much more.
            assert!(covered >= ago && covered <= ago * 3 + 1, "{ago} {covered}");
            let mut now = performance(week);
            sample.subtract_from(&mut now);
            assert_eq!(now.traffic[0].received_packets, covered);
            assert_eq!(now.traffic[0].received_octets, covered * 100);
        }
        // Before the first: since the first.
        assert_eq!(samples.since(None).unwrap().at, start);
        // A tenant that was made anew counts from nothing.
        let mut now = performance(3);
        samples
            .since(Some(minute(week)))
            .unwrap()
            .subtract_from(&mut now);
        assert_eq!(now.traffic[0].received_packets, 3);
    }
}
