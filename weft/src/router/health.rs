//! Asks the nodes of services that are attached to this router whether they work.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};
use weft_dataplane::{NodeQuestion, ask_node};
use weft_overlay::Vni;

use crate::config::{Config, ProbeKind, Service};

/// So many questions in a row without an answer, and the node does not work; so many answers, and it does again. With the time that
/// one may take a node is out of use within three intervals.
const ROUNDS: u32 = 2;

/// What is asked, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watch {
    tenant: String,
    service: Service,
    /// Interfaces with the addresses that answer.
    nodes: Vec<(String, IpAddr)>,
    /// `None` where the links are all that is looked at.
    question: Option<NodeQuestion>,
    interval: Duration,
}

impl Watch {
    fn of(tenant: &str, service: &Service) -> Option<Self> {
        let inside = service.interface.as_ref()?;
        let kind = service.probe.kind;
        let question = match kind {
            ProbeKind::Icmp => Some(NodeQuestion::Echo),
            ProbeKind::Tcp => Some(NodeQuestion::Connect(
                service.probe.port.unwrap_or_default(),
            )),
            ProbeKind::Http => Some(NodeQuestion::Get(
                service.probe.port.unwrap_or(80),
                service.probe.path.clone().unwrap_or_else(|| "/".into()),
            )),
            ProbeKind::None => None,
        };
        let outside = service
            .outside
            .iter()
            .map(|one| (&one.interface, &one.node));
        let arms = [(inside, &service.node)].into_iter().chain(outside);
        let most = if kind == ProbeKind::Icmp { 2 } else { 1 };
        let nodes = arms.flat_map(|(interface, addresses)| {
            let addresses = addresses.iter().take(most);
            addresses.map(|address| (interface.clone(), *address))
        });
        Some(Self {
            tenant: tenant.to_owned(),
            service: service.clone(),
            nodes: nodes.collect(),
            question,
            interval: Duration::from_millis(service.probe.interval.into()),
        })
    }

    /// Asks all addresses at once; says what is wrong with the first that is not well.
    async fn ask(&self) -> Result<(), String> {
        let Some(question) = &self.question else {
            return Ok(());
        };
        let questions: Vec<_> = self
            .nodes
            .iter()
            .map(|(interface, node)| {
                let (interface, node, question) = (interface.clone(), *node, question.clone());
                let time = self.interval * 4 / 5;
                let name = format!("{node} at {interface}");
                let asked = tokio::task::spawn_blocking(move || {
                    ask_node(&interface, node, &question, time)
                });
                (name, asked)
            })
            .collect();
        let mut result = Ok(());
        for (name, asked) in questions {
            let answer = asked
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error)));
            if let Err(error) = answer
                && result.is_ok()
            {
                result = Err(format!("{name}: {error}"));
            }
        }
        result
    }

    async fn run(self, news: mpsc::Sender<(Vni, bool)>, reasons: Reasons) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut healthy, mut rounds) = (None, 0);
        loop {
            ticks.tick().await;
            let answer = self.ask().await;
            let is_healthy = answer.is_ok();
            if healthy == Some(is_healthy) {
                rounds = 0;
                continue;
            }
            rounds += 1;
            // A node that works from the start need not prove it twice.
            if healthy.is_some() && rounds < ROUNDS {
                continue;
            }
            (healthy, rounds) = (Some(is_healthy), 0);
            let (tenant, service) = (&self.tenant, &self.service.name);
            let label = self.service.label;
            match &answer {
                Ok(()) => info!(
                    tenant,
                    service,
                    label = label.get(),
                    "the service node answers"
                ),
                Err(error) => warn!(
                    tenant,
                    service,
                    label = label.get(),
                    error,
                    "the service node does not answer: its label is withdrawn"
                ),
            }
            reasons.set(label, answer.err());
            if news.send((label, is_healthy)).await.is_err() {
                return;
            }
            if self.question.is_none() {
                return;
            }
        }
    }
}

/// Why nodes do not work, by label.
#[derive(Clone, Default)]
pub(super) struct Reasons(Arc<Mutex<BTreeMap<Vni, String>>>);

impl Reasons {
    fn set(&self, label: Vni, reason: Option<String>) {
        // Nobody panics with it.
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => map.insert(label, reason),
            None => map.remove(&label),
        };
    }

    pub(super) fn get(&self, label: Vni) -> Option<String> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&label).cloned()
    }
}

/// Everybody who watches a node.
pub(super) struct Health {
    watches: BTreeMap<Vni, (Watch, JoinHandle<()>)>,
    sender: mpsc::Sender<(Vni, bool)>,
    news: mpsc::Receiver<(Vni, bool)>,
    reasons: Reasons,
}

impl Health {
    pub(super) fn new() -> Self {
        let (sender, news) = mpsc::channel(64);
        Self {
            watches: BTreeMap::new(),
            sender,
            news,
            reasons: Reasons::default(),
        }
    }

    pub(super) fn reasons(&self) -> Reasons {
        self.reasons.clone()
    }

    /// Watches the nodes of this configuration; those that are the same in both are watched on.
    pub(super) fn watch(&mut self, config: &Config) {
        let mut wanted: BTreeMap<Vni, Watch> = BTreeMap::new();
        for tenant in &config.tenants {
            let services = tenant.services.iter();
            let watches = services.filter_map(|service| Watch::of(&tenant.name, service));
            wanted.extend(watches.map(|watch| (watch.service.label, watch)));
        }
        self.watches.retain(|label, (watch, task)| {
            let same = wanted.get(label) == Some(watch);
            if !same {
                task.abort();
                self.reasons.set(*label, None);
            }
            same
        });
        for (label, watch) in wanted {
            if !self.watches.contains_key(&label) {
                let task = watch.clone().run(self.sender.clone(), self.reasons.clone());
                self.watches.insert(label, (watch, tokio::spawn(task)));
            }
        }
    }

    /// What changed next: a label, and whether its node works.
    pub(super) async fn next(&mut self) -> Option<(Vni, bool)> {
        loop {
            let news = self.news.recv().await?;
            // Of one that is watched no more something may still be on its way.
            if self.watches.contains_key(&news.0) {
                return Some(news);
            }
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        for (_, task) in self.watches.values() {
            task.abort();
        }
    }
}
