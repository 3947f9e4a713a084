//! The exchange with other domains: whom this controller follows, and who follows it.
//!
//! Every controller of a domain follows every domain that is trusted. What they hear is the same, and is written once; a domain is
//! stale when none of them has heard it for the domain's lease.

mod follow;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

pub(super) use self::serve::service;
use super::Controller;
use super::grpc::AbortOnDrop;
use crate::database::{Database, Transaction};
use crate::exchange::operations;
use crate::model::{Trust, now};

/// How often those who follow hear that nothing has changed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Domains that asked and are not trusted, at most: who they are, anybody may claim.
const STRANGERS: usize = 16;

/// What of a domain's words is left out and named.
const LEFT_OUT: usize = 10;

/// How the exchange with a domain does, at this controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// This controller hears the domain.
    pub follows: bool,
    /// When it last did, ms since 1970.
    pub heard: Option<u64>,
    /// The domain's latest revision, as it last said.
    pub revision: u64,
    /// Why this controller does not hear it.
    pub error: String,
    /// What of its words is left out, and why: the first ones, and how many more.
    pub left_out: Vec<String>,
    /// Words of where labels lead to that it is not told, since they are more than it takes.
    pub untold: usize,
    /// Controllers of the domain that follow this one.
    pub followed: usize,
}

/// A domain that asked, and is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The name that it gave.
    pub domain: String,
    /// SHA-256 of its authority's certificate, in hexadecimal.
    pub fingerprint: String,
    /// When it last asked, ms since 1970.
    pub at: u64,
}

#[derive(Default)]
struct Inner {
    links: BTreeMap<String, Link>,
    /// The latest first.
    strangers: Vec<Stranger>,
    /// Told when a domain that could not be reached may be.
    wakes: BTreeMap<String, Arc<Notify>>,
}

/// How the exchange with all domains does; cheap to clone.
#[derive(Clone, Default)]
pub struct Exchange {
    inner: Arc<Mutex<Inner>>,
}

impl Exchange {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How that with one domain does.
    pub fn link(&self, domain: &str) -> Link {
        let inner = self.inner();
        inner.links.get(domain).cloned().unwrap_or_default()
    }

    /// Domains that asked and are not trusted, the latest first.
    pub fn strangers(&self) -> Vec<Stranger> {
        self.inner().strangers.clone()
    }

    fn change(&self, domain: &str, change: impl FnOnce(&mut Link)) {
        change(self.inner().links.entry(domain.to_owned()).or_default());
    }

    /// The domain has said something.
    fn heard(&self, domain: &str, revision: u64) {
        self.change(domain, |link| {
            link.follows = true;
            link.heard = Some(now());
            link.revision = revision;
            link.error.clear();
        });
    }

    /// What of its words is left out; it is logged when that changes.
    fn left_out(&self, domain: &str, mut left_out: Vec<String>) {
        let more = left_out.len().saturating_sub(LEFT_OUT);
        left_out.truncate(LEFT_OUT);
        if more > 0 {
            left_out.push(format!("and {more} more"));
        }
        let before = self.link(domain).left_out;
        for one in left_out.iter().filter(|one| !before.contains(one)) {
            warn!(domain, "what the other domain says is left out: {one}");
        }
        self.change(domain, |link| link.left_out = left_out);
    }

    /// It cannot be heard.
    fn lost(&self, domain: &str, error: String) {
        self.change(domain, |link| {
            link.follows = false;
            link.error = error;
        });
    }

    /// What is told when the domain follows this controller: then it is there, and trusts us.
    fn wake(&self, domain: &str) -> Arc<Notify> {
        let mut inner = self.inner();
        inner.wakes.entry(domain.to_owned()).or_default().clone()
    }

    fn refused(&self, domain: &str, fingerprint: &str) {
        let mut inner = self.inner();
        let strangers = &mut inner.strangers;
        strangers.retain(|one| one.domain != domain || one.fingerprint != fingerprint);
        strangers.insert(
            0,
            Stranger {
                domain: domain.to_owned(),
                fingerprint: fingerprint.to_owned(),
                at: now(),
            },
        );
        strangers.truncate(STRANGERS);
    }

    /// Forgets what is said of domains that are trusted no more, and that those have asked that now are.
    fn retain(&self, trusts: &BTreeMap<String, Trust>) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.links.retain(|name, _| trusts.contains_key(name));
        inner.wakes.retain(|name, _| trusts.contains_key(name));
        inner.strangers.retain(|one| {
            let trust = trusts.get(&one.domain);
            trust.is_none_or(|trust| trust.fingerprint != one.fingerprint)
        });
    }
}

/// Follows every domain that is trusted, and notes who is heard no more; for ever.
pub(super) async fn run(controller: Arc<Controller>) {
    let mut news = controller.database.watch();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut followers: BTreeMap<String, (Trust, AbortOnDrop)> = BTreeMap::new();
    let mut absences = Absences::default();
    loop {
        let state = controller.database.state();
        let trusts = state.trusts().map(|one| (one.name.clone(), one.clone()));
        let trusts: BTreeMap<String, Trust> = trusts.collect();
        followers.retain(|name, (followed, _)| {
            trusts.get(name).is_some_and(|trust| {
                trust.controllers == followed.controllers
                    && trust.fingerprint == followed.fingerprint
            })
        });
        controller.exchange.retain(&trusts);
        for (name, trust) in trusts {
            followers.entry(name).or_insert_with(|| {
                let follow = follow::follow(controller.clone(), trust.clone());
                (trust, AbortOnDrop(tokio::spawn(follow)))
            });
        }
        tokio::select! {
            news = news.recv() => if matches!(news, Err(RecvError::Closed)) { return },
            _ = tick.tick() => absences.look(&controller).await,
        }
    }
}

/// Since when controllers of ours do not hear a domain that they are said to follow.
#[derive(Default)]
struct Absences(BTreeMap<(String, String), Instant>);

impl Absences {
    /// Notes who is heard no more: a domain is stale when nobody hears it.
    async fn look(&mut self, controller: &Controller) {
        let state = controller.database.state();
        let Some(own) = state.domain() else { return };
        let lease = Duration::from_secs(own.lease.into());
        let followed = state.remotes().filter(|one| !one.followers.is_empty());
        let followed: Vec<_> = followed.collect();
        let id = controller.hub.id();
        let alone = |followers: &BTreeSet<String>| followers.iter().all(|one| one == id);
        let alive = match followed.iter().all(|one| alone(&one.followers)) {
            true => BTreeSet::new(),
            false => match controller.database.alive(id).await {
                Ok(alive) => alive.unwrap_or_default(),
                Err(error) => {
                    warn!(%error, "cannot say which controllers are here");
                    return;
                }
            },
        };
        let mut absent = BTreeSet::new();
        for remote in &followed {
            let link = controller.exchange.link(&remote.name);
            for follower in &remote.followers {
                let here = match follower == id {
                    true => link.follows,
                    false => alive.contains(follower),
                };
                if !here {
                    absent.insert((remote.name.clone(), follower.clone()));
                }
            }
        }
        self.0.retain(|who, _| absent.contains(who));
        let mut over: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (domain, follower) in absent {
            let since = self.0.entry((domain.clone(), follower.clone()));
            if since.or_insert_with(Instant::now).elapsed() >= lease {
                over.entry(domain).or_default().insert(follower);
            }
        }
        for (domain, followers) in over {
            let heard = controller.exchange.link(&domain).heard.unwrap_or(0);
            lose(&controller.database, domain, followers, heard).await;
        }
    }
}

async fn lose(database: &Database, domain: String, followers: BTreeSet<String>, heard: u64) {
    let name = domain.clone();
    let what = format!("domain {domain} is heard no more by {}", followers.len());
    let lose = move |transaction: &mut Transaction<'_>| {
        operations::lose(transaction, &name, &followers, heard)
    };
    match database.change("lease", what, lose).await {
        Ok(_) => info!(
            domain,
            "a controller of ours hears it no more: what it said stays"
        ),
        Err(error) => warn!(domain, %error, "cannot note that a domain is heard no more"),
    }
}
