//! How the tables of chains come into the kernel, and how one takes another's place under packets on their way.
//!
//! A packet keeps the rules that it began with, while the kernel asks the maps and intervals of their sets by what is there now: in the
//! midst of a table that is replaced it finds nothing, and goes on past its services. So decisions are never replaced, only who leads to
//! them: new ones come beside the old, with names of their own generation; one transaction then changes the hooks, whose rules ask no
//! set; and the old go when no packet can be in them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::{TABLE, counters, no_table, quoted};
use crate::nftables;
use crate::ruleset_watch::signature;

/// Stands for the generation in names of decisions: no interface and no rule has it.
pub(super) const GENERATION: char = '~';

/// A packet has left the decisions that it began with after so long.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Where packets come from, and what leads them to decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hook {
    /// Name and number. Behind the classifier, which says whose a packet is.
    pub(super) devices: BTreeSet<(String, u32)>,
    /// Rules that look nothing up.
    pub(super) rules: Vec<String>,
}

/// The tables as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepTable {
    /// Chains without a hook.
    pub(super) decisions: String,
    pub(super) hooks: BTreeMap<String, Hook>,
    /// The table that drops other protocols.
    pub(super) others: String,
    pub(super) counters: BTreeSet<String>,
}

/// What is in the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    generation: u32,
    /// Its decisions.
    chains: Vec<String>,
    hooks: BTreeMap<String, Hook>,
    others: Option<String>,
    counters: BTreeSet<String>,
    /// Decisions of generations before it, and what only they counted by.
    past: Vec<String>,
    past_counters: BTreeSet<String>,
}

impl Loaded {
    /// What an earlier process left, if anything.
    pub(crate) fn found() -> Option<Self> {
        let there = counters()?;
        let (mut past, mut hooks) = (Vec::new(), BTreeMap::new());
        for chain in listed_chains()? {
            match chain.hook {
                Some(_) => {
                    hooks.insert(chain.name, Hook::default());
                }
                None => past.push(chain.name),
            }
        }
        let generations = past.iter().filter_map(|name| generation(name));
        Some(Self {
            generation: generations.max().unwrap_or_default(),
            hooks,
            counters: there.into_keys().collect(),
            past,
            ..Self::default()
        })
    }

    /// Decisions that no packet is in any more, once [`GRACE`] is over.
    pub(crate) fn has_past(&self) -> bool {
        !self.past.is_empty() || !self.past_counters.is_empty()
    }

    /// Takes them away.
    ///
    /// # Errors
    /// What nft said: they stay.
    pub(crate) fn clear_past(&mut self) -> Result<(), String> {
        let mut text = String::new();
        // The transaction's signature.
        let done = format!("{}-cleared", prefix(self.generation));
        let _ = writeln!(text, "table inet {TABLE} {{\n{}}}", signed_chain(&done));
        for name in &self.past {
            let _ = writeln!(text, "flush chain inet {TABLE} {name}");
        }
        for name in &self.past {
            let _ = writeln!(text, "delete chain inet {TABLE} {name}");
        }
        for name in &self.past_counters {
            let _ = writeln!(text, "delete counter inet {TABLE} {name}");
        }
        nftables::load(&text)?;
        self.past.clear();
        self.past_counters.clear();
        self.chains.push(done);
        Ok(())
    }
}

fn prefix(generation: u32) -> String {
    format!("g{generation}")
}

fn generation(name: &str) -> Option<u32> {
    name.strip_prefix('g')?.split('-').next()?.parse().ok()
}

/// Says whose the transaction is that makes it, where the table was there before.
fn signed_chain(name: &str) -> String {
    format!("  chain {name} {{\n    comment \"{}\"\n  }}\n", signature())
}

fn put_hook(out: &mut String, name: &str, hook: &Hook) {
    let _ = writeln!(
        out,
        "  chain {name} {{
    type filter hook ingress devices = {{ {} }} priority 0; policy accept;",
        quoted(&hook.devices)
    );
    for rule in &hook.rules {
        let _ = writeln!(out, "    {rule}");
    }
    out.push_str("  }\n");
}

impl StepTable {
    /// There is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Brings the kernel from `before` to this; with the counters as they are.
    ///
    /// # Errors
    /// What nft said, or that it is not there; `before` stands, or nothing does that leads packets anywhere.
    pub(crate) fn load(&self, before: Option<Loaded>) -> Result<Loaded, String> {
        if let Some(before) = before.filter(|_| !self.is_empty()) {
            match self.take_over(&before) {
                Ok(loaded) => return Ok(loaded),
                Err(error) => tracing::debug!(%error, "the table of chains is made anew"),
            }
        }
        self.load_anew()
    }

    /// In one transaction, whatever was there.
    fn load_anew(&self) -> Result<Loaded, String> {
        let mut text = no_table();
        let mut loaded = Loaded::default();
        if !self.is_empty() {
            let table = self.of_generation(0);
            let before = counters().unwrap_or_default();
            let _ = writeln!(text, "table inet {TABLE} {{");
            for name in &self.counters {
                let (packets, octets) = before.get(name).copied().unwrap_or_default();
                let _ = writeln!(
                    text,
                    "  counter {name} {{ packets {packets} bytes {octets} }}"
                );
            }
            text.push_str(&table.decisions);
            for (name, hook) in &table.hooks {
                put_hook(&mut text, name, hook);
            }
            text.push_str("}\n");
            text.push_str(&self.others);
            loaded = table.loaded(0);
        }
        nftables::load(&text)?;
        Ok(loaded)
    }

    /// Beside what is there, and then in its place.
    fn take_over(&self, before: &Loaded) -> Result<Loaded, String> {
        let generation = before.generation + 1;
        let table = self.of_generation(generation);
        let mut loaded = table.loaded(generation);
        let made = format!("{}-made", prefix(generation));
        let led = format!("{}-led", prefix(generation));

        let mut text = format!("table inet {TABLE} {{\n{}", signed_chain(&made));
        // One that is there goes on counting.
        for name in &self.counters {
            let _ = writeln!(text, "  counter {name} {{ packets 0 bytes 0 }}");
        }
        text.push_str(&table.decisions);
        text.push_str("}\n");
        nftables::load(&text)?;

        let mut text = String::new();
        for (name, hook) in &before.hooks {
            match table.hooks.get(name) {
                // No packet is between two hooks then.
                Some(same) if same.devices == hook.devices => {
                    let _ = writeln!(text, "flush chain inet {TABLE} {name}");
                    for rule in &same.rules {
                        let _ = writeln!(text, "add rule inet {TABLE} {name} {rule}");
                    }
                }
                // The kernel took it away with its last device: it is there to be deleted.
                _ => {
                    let _ = writeln!(text, "add chain inet {TABLE} {name}");
                    let _ = writeln!(text, "delete chain inet {TABLE} {name}");
                }
            }
        }
        let _ = writeln!(text, "table inet {TABLE} {{\n{}", signed_chain(&led));
        for (name, hook) in &table.hooks {
            let there = before.hooks.get(name);
            if there.is_none_or(|there| there.devices != hook.devices) {
                put_hook(&mut text, name, hook);
            }
        }
        text.push_str("}\n");
        if before.others.as_ref() != Some(&self.others) {
            text.push_str(&super::no_table_in("netdev"));
            text.push_str(&self.others);
        }
        nftables::load(&text)?;

        loaded.chains.extend([made, led]);
        loaded.past = [&before.past[..], &before.chains].concat();
        let counters = before.counters.union(&before.past_counters);
        let gone = counters.filter(|name| !self.counters.contains(*name));
        loaded.past_counters = gone.cloned().collect();
        Ok(loaded)
    }

    fn of_generation(&self, generation: u32) -> Self {
        let named = |text: &str| text.replace(GENERATION, &format!("{}-", prefix(generation)));
        let mut table = self.clone();
        table.decisions = named(&table.decisions);
        let rules = table.hooks.values_mut().flat_map(|hook| &mut hook.rules);
        rules.for_each(|rule| *rule = named(rule));
        table
    }

    fn loaded(&self, generation: u32) -> Loaded {
        let lines = self.decisions.lines();
        let names = lines.filter_map(|line| line.strip_prefix("  chain ")?.strip_suffix(" {"));
        Loaded {
            generation,
            chains: names.map(str::to_owned).collect(),
            hooks: self.hooks.clone(),
            others: Some(self.others.clone()),
            counters: self.counters.clone(),
            ..Loaded::default()
        }
    }
}

#[derive(Deserialize)]
struct Chain {
    table: String,
    name: String,
    hook: Option<String>,
}

/// The chains of our table; nothing where they cannot be read.
fn listed_chains() -> Option<Vec<Chain>> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Object>,
    }
    #[derive(Deserialize)]
    struct Object {
        chain: Option<Chain>,
    }
    let output = Command::new("nft")
        .args(["-j", "list", "chains", "inet"])
        .output()
        .ok()?;
    let listing: Listing = serde_json::from_slice(&output.stdout).ok()?;
    let chains = listing.nftables.into_iter().filter_map(|each| each.chain);
    Some(chains.filter(|chain| chain.table == TABLE).collect())
}
