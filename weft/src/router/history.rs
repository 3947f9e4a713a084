//! Chains that this router led packets by, of late: other routers may lead by them still. Where there is a folder for it they
//! are on disk, so that a restart with another configuration is looked at as a reload is.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tracing::warn;
use weft_discovery::pki::{create_private_folder, keep_private, write_secret};
use weft_overlay::Vni;
use weft_overlay::chain::{Chain, Service};
use weft_overlay::table::TenantConfig;

use super::core::tenant_config;
use super::managed;
pub(crate) use super::reload::ChainsError;
use super::reload::check_chains;
use crate::config::Config;

/// How many versions are thought of.
const VERSIONS: usize = 32;
/// The file in the folder.
const FILE: &str = "chains.json";

/// What ran, the latest last.
pub(crate) struct History {
    file: Option<PathBuf>,
    /// Without neighbours, and so without their keys.
    versions: VecDeque<Config>,
}

fn chained(config: &Config) -> impl Iterator<Item = TenantConfig> {
    let tenants = config.tenants.iter().filter(|one| !one.chains.is_empty());
    tenants.map(tenant_config)
}

/// What tenants' packets are led by.
fn led(config: &Config) -> Vec<(Vni, Vec<Service>, Vec<Chain>)> {
    let tenants = config.tenants.iter().map(tenant_config);
    let tenants = tenants.filter(|one| !one.services.is_empty() || !one.chains.is_empty());
    tenants
        .map(|one| (one.primary_vni, one.services, one.chains))
        .collect()
}

impl History {
    /// Nothing, so far; kept in the folder of this router where there is one for what routers have to know.
    pub(super) fn new(state: Option<&Path>, router: &str) -> Self {
        Self {
            file: state.map(|state| managed::folder(state, router).join(FILE)),
            versions: VecDeque::new(),
        }
    }

    /// What is on disk.
    ///
    /// # Errors
    /// Where there is something that cannot be read.
    pub(crate) fn open(state: Option<&Path>, router: &str) -> anyhow::Result<Self> {
        let mut history = Self::new(state, router);
        history.versions = history.read()?;
        Ok(history)
    }

    fn read(&self) -> anyhow::Result<VecDeque<Config>> {
        let Some(file) = &self.file else {
            return Ok(VecDeque::new());
        };
        let name = file.display().to_string();
        let octets = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(VecDeque::new()),
            read => read.with_context(|| format!("cannot read {name}"))?,
        };
        let texts: Vec<String> = serde_json::from_slice(&octets).context(name.clone())?;
        let versions = texts.iter().map(|text| Ok(Config::parse(&name, text)?));
        versions.collect()
    }

    /// Nobody but the owner uses the folder and what is in it.
    pub(super) fn keep_private(&self) {
        if let Some(folder) = self.file.as_ref().and_then(|file| file.parent()) {
            keep_private(folder, &[FILE, super::helpers::FILE]);
        }
    }

    /// Looks whether a configuration can follow.
    ///
    /// # Errors
    /// As [`check_chains`]; with the file that says what ran, where there is one.
    pub(crate) fn check(&self, wanted: &Config) -> anyhow::Result<()> {
        let ran: Vec<TenantConfig> = self.versions.iter().flat_map(chained).collect();
        let checked = check_chains(&ran, wanted);
        match &self.file {
            Some(file) => checked.with_context(|| {
                format!(
                    "{} says which chains this router ran; where no router has them any more, remove it and start the router anew",
                    file.display()
                )
            }),
            None => Ok(checked?),
        }
    }

    /// A configuration with the chains that ran last; `None` where they are the same.
    pub(super) fn before(&self, wanted: &Config) -> Option<Config> {
        let last = self.versions.back()?;
        let mut before = wanted.clone();
        for tenant in &mut before.tenants {
            if let Some(last) = last.tenants.iter().find(|one| one.vni == tenant.vni) {
                tenant.services.clone_from(&last.services);
                tenant.chains.clone_from(&last.chains);
            }
        }
        if led(&before) == led(wanted) {
            return None;
        }
        // An interface may be another tenant's by now.
        let text = before.to_yaml().ok()?;
        Config::parse("the configuration with the chains before", &text).ok()
    }

    /// This runs from now on.
    pub(super) fn add(&mut self, config: &Config) {
        let led_by = led(config);
        let same = |last: &Config| led(last) == led_by;
        if self.versions.back().map_or(led_by.is_empty(), same) {
            return;
        }
        self.versions.retain(|one| !same(one));
        let mut version = config.clone();
        version.neighbors.clear();
        version.groups.clear();
        for tenant in &mut version.tenants {
            tenant.neighbors.clear();
        }
        self.versions.push_back(version);
        if self.versions.len() > VERSIONS {
            self.versions.pop_front();
        }
        if let Err(error) = self.write() {
            warn!("a restart will not know what chains run: {error:#}");
        }
    }

    fn write(&self) -> anyhow::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let texts: anyhow::Result<Vec<String>> =
            self.versions.iter().map(Config::to_yaml).collect();
        let octets = serde_json::to_vec(&texts?)?;
        if let Some(folder) = file.parent() {
            create_private_folder(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(write_secret(file, &octets)?)
    }
}

#[cfg(test)]
mod tests;
