//! Another configuration while the router runs: what differs is changed, and nothing else. A session that is the same in both
//! stays up, and a tenant that is the same in both keeps forwarding.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use ipnet::IpNet;
use tracing::warn;
use weft_bgp::NeighborChanges;
use weft_bgp::rib::Origination;
use weft_bgp_wire::AttributesView;
use weft_overlay::chain::relabel;
use weft_overlay::intent::TenantId;
use weft_overlay::label::names_any;
use weft_overlay::table::TenantConfig;
use weft_overlay::{Vni, VniSet};

use super::core::{Core, NETWORK_PATH, own_attributes, redistribute, tenant_config};
use super::hook::LabelHook;
use super::setup;
use crate::cli::human::several;
use crate::config::{Config, Group, Tenant};

/// What a new configuration changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reloaded {
    neighbors: NeighborChanges,
    /// Groups that are new, gone or different.
    groups: usize,
    /// New, removed and changed ones.
    tenants: [usize; 3],
    /// Announced and withdrawn ones.
    networks: [usize; 2],
    /// Sections that differ, and stay as they were until the router starts anew.
    restart: Vec<&'static str>,
}

impl Reloaded {
    /// Sections that wait for a restart.
    pub(super) fn restart(&self) -> &[&'static str] {
        &self.restart
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let neighbors = &self.neighbors;
        let parts = [
            (neighbors.added, "neighbour", "added"),
            (neighbors.removed, "neighbour", "removed"),
            (neighbors.restarted, "session", "restarted"),
            (neighbors.changed, "neighbour", "changed"),
            (self.groups, "group", "changed"),
            (self.tenants[0], "tenant", "added"),
            (self.tenants[1], "tenant", "removed"),
            (self.tenants[2], "tenant", "changed"),
            (self.networks[0], "network", "announced"),
            (self.networks[1], "network", "withdrawn"),
        ];
        let mut parts = parts.iter().filter(|(count, ..)| *count > 0).peekable();
        if parts.peek().is_none() {
            return f.write_str("nothing changed");
        }
        for (at, (count, what, done)) in parts.enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let what = several(*count as u64, what);
            write!(f, "{comma}{what} {done}")?;
        }
        Ok(())
    }
}

/// Chains that cannot follow those that ran before: a mistake of the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ChainsError(String);

/// Looks whether routers can be told of the change of chains one after the other: from what runs, and from what ran before it, which
/// other routers may have still.
///
/// # Errors
/// Where a packet that one router leads by old chains and another one by the new ones would miss a service of both, or would be
/// another tenant's.
pub(super) fn check_chains(ran: &[TenantConfig], wanted: &Config) -> Result<(), ChainsError> {
    let others: Vec<TenantConfig> = wanted.tenants.iter().map(tenant_config).collect();
    for running in ran {
        let used = |label: Vni| {
            running
                .chains
                .iter()
                .any(|one| one.services.contains(&label))
        };
        for service in running.services.iter().filter(|one| used(one.label)) {
            let another = others.iter().find(|one| {
                let services = one.services.iter().map(|one| one.label);
                let mut vnis = [one.primary_vni]
                    .into_iter()
                    .chain(one.vnis.iter().copied())
                    .chain(services);
                one.primary_vni != running.primary_vni && vnis.any(|vni| vni == service.label)
            });
            if let Some(another) = another {
                return Err(ChainsError(format!(
                    "tenant `{}`: {} was the label of `{}`, a service of tenant `{}`, whose packets other routers may send with it still: \
                     take a VNI that no service has had",
                    another.name, service.label, service.name, running.name
                )));
            }
        }
        let Some(wanted) = others
            .iter()
            .find(|one| one.primary_vni == running.primary_vni)
        else {
            continue;
        };
        let labels = relabel(
            (&running.services, &running.chains),
            (&wanted.services, &wanted.chains),
        );
        let services = wanted
            .services
            .iter()
            .filter(|one| labels.contains(&one.label));
        let names: Vec<String> = services.map(|one| format!("`{}`", one.name)).collect();
        if !names.is_empty() {
            return Err(ChainsError(format!(
                "tenant `{}`: while some routers have the old chains and some the new ones, packets would miss a service of both. Give {} \
                 another label, which no service has had, together with this change, on every router: who has the old chains drops what \
                 comes with a new label then, and the other way round",
                wanted.name,
                names.join(" and ")
            )));
        }
    }
    Ok(())
}

impl Core {
    /// Goes over to another configuration.
    pub(super) async fn reload(&mut self, mut wanted: Config) -> Reloaded {
        let mut reloaded = Reloaded {
            restart: keep_fixed(&self.config, &mut wanted),
            ..Reloaded::default()
        };
        if !reloaded.restart.is_empty() {
            warn!(
                sections = reloaded.restart.join(", "),
                "changed in the configuration, and in force after a restart"
            );
        }
        let before = std::mem::replace(&mut self.config, wanted.clone());
        let known = before.warnings();
        for warning in wanted.warnings() {
            if !known.contains(&warning) {
                warn!("{warning}");
            }
        }
        // First: what is the operator's from now on is no tenant's.
        self.tell_interfaces().await;
        let tables = self.overlay.tables();
        reloaded.tenants = self.reload_tenants(&before, &wanted).await;
        self.health.watch(&wanted);
        self.overlay.set_stitched(setup::stitched(&wanted));
        // What is withdrawn goes before the tenant's neighbours do.
        self.pass_on().await;
        let sites = self
            .sites
            .reload(&wanted, &mut self.overlay, &self.bgp, &self.dataplane)
            .await;
        match sites {
            Ok(started) => self.await_sites(started),
            Err(error) => warn!(%error, "cannot speak BGP with a tenant's own routers"),
        }
        reloaded.neighbors = self.reload_neighbors(&before, &wanted, &tables).await;
        reloaded.groups = other_groups(&before, &wanted);
        reloaded.networks = self.reload_networks(&before, &wanted).await;
        reloaded
    }

    async fn reload_tenants(&mut self, before: &Config, wanted: &Config) -> [usize; 3] {
        let ids: HashMap<String, TenantId> = self
            .overlay
            .tenants()
            .into_iter()
            .filter(|tenant| !tenant.stitched)
            .map(|tenant| (tenant.config.name, tenant.id))
            .collect();
        let old: HashMap<&str, &Tenant> = before
            .tenants
            .iter()
            .map(|one| (one.name.as_str(), one))
            .collect();
        // Its table is the primary VNI's: with another one it is another tenant.
        let stays = |one: &&Tenant| {
            old.get(one.name.as_str())
                .is_some_and(|old| old.vni == one.vni)
        };
        let staying: BTreeSet<&str> = wanted
            .tenants
            .iter()
            .filter(stays)
            .map(|one| one.name.as_str())
            .collect();
        let mut counts = [0; 3];
        // First, so that a VNI or an interface may go from one tenant to another.
        for tenant in before
            .tenants
            .iter()
            .filter(|one| !staying.contains(one.name.as_str()))
        {
            if let Some(id) = ids.get(&tenant.name) {
                self.sites.remove(*id, &mut self.overlay).await;
                self.overlay.remove_tenant(*id);
                counts[1] += 1;
            }
        }
        let mut redistributed = Vec::new();
        let mut changes: Vec<(TenantId, TenantConfig)> = Vec::new();
        for tenant in &wanted.tenants {
            let config = tenant_config(tenant);
            let old = old.get(tenant.name.as_str()).filter(|_| stays(&tenant));
            let id = ids.get(&tenant.name).copied().filter(|_| old.is_some());
            let Some((id, old)) = id.zip(old) else {
                let id = self.overlay.add_tenant(config);
                redistributed.push((id, tenant));
                counts[0] += 1;
                continue;
            };
            counts[2] += usize::from(*old != tenant);
            if tenant_config(old) != config {
                changes.push((id, config));
            }
            if old.redistribute != tenant.redistribute {
                redistributed.push((id, tenant));
            }
        }
        for (id, config) in changes {
            self.overlay.set_tenant(id, config);
        }
        if let Some(intent) = self.overlay.poll_intent() {
            self.dataplane.apply(intent).await;
        }
        for (id, tenant) in redistributed {
            redistribute(&self.dataplane, id, &tenant.redistribute).await;
        }
        counts
    }

    /// `tables` is what the router kept a table for.
    async fn reload_neighbors(
        &mut self,
        before: &Config,
        wanted: &Config,
        tables: &VniSet,
    ) -> NeighborChanges {
        let accept = |config: &Config| -> HashMap<_, _> {
            let neighbors = config.neighbors.iter();
            neighbors
                .map(|one| (one.address, one.accept_vnis.clone()))
                .collect()
        };
        // What groups of dynamic neighbours accept and are told, by name.
        let of_groups = |config: &Config| -> HashMap<String, [VniSet; 2]> {
            let groups = config.listening();
            let sets = groups.map(|(group, one)| {
                let sets = [one.accept_vnis.clone(), one.announce_vnis.clone()];
                (group.name.clone(), sets)
            });
            sets.collect()
        };
        let (accepted, accept) = (accept(before), accept(wanted));
        let none = VniSet::none();
        let mut affected = tables.symmetric_difference(&self.overlay.tables());
        // A tenant that came or went has another table than its VNI had before, which an edge may have had for others.
        let named = |config: &Config| -> BTreeSet<_> {
            let tenants = config.tenants.iter();
            tenants
                .map(|one| (one.name.clone(), one.vni, one.vnis.clone()))
                .collect()
        };
        for (_, vni, vnis) in named(before).symmetric_difference(&named(wanted)) {
            let vnis = vnis.iter().chain([vni]);
            affected = affected.union(&VniSet::from_ranges(vnis.map(|vni| (*vni, *vni))));
        }
        for (address, set) in &accept {
            let old = accepted.get(address).unwrap_or(&none);
            affected = affected.union(&set.symmetric_difference(old));
        }
        let groups_before = of_groups(before);
        for (name, sets) in of_groups(wanted) {
            let old = groups_before.get(&name);
            for (at, set) in sets.iter().enumerate() {
                let old = old.map_or(&none, |old| &old[at]);
                affected = affected.union(&set.symmetric_difference(old));
            }
        }
        let announced = |config: &Config| -> HashMap<_, _> {
            let neighbors = config.neighbors.iter();
            neighbors
                .map(|one| (one.address, one.announce_vnis.clone()))
                .collect()
        };
        let before = announced(before);
        for (address, set) in announced(wanted) {
            if let Some(old) = before.get(&address) {
                affected = affected.union(&set.symmetric_difference(old));
            }
        }
        self.accept = accept;
        self.accept_of.clear();
        let neighbors = setup::neighbors(wanted, &mut self.classes, &self.keys);
        let dynamic = setup::dynamic(wanted, &mut self.classes);
        let hook = LabelHook::boxed(wanted, &self.overlay, &self.classes);
        let administrator = wanted.overlay.as_ref().map(|one| one.global_administrator);
        let changes = self.bgp.with(move |speaker, now| {
            // Before the neighbours: their routes belong to classes that the hook has to know.
            let otherwise = |attributes: AttributesView<'_>| {
                administrator.is_some_and(|administrator| {
                    names_any(attributes.large_communities(), administrator, &affected)
                })
            };
            speaker.rib.set_hook(hook, &otherwise);
            speaker.set_dynamic(dynamic);
            speaker.set_neighbors(neighbors, now)
        });
        changes.await.unwrap_or_default()
    }

    async fn reload_networks(&mut self, before: &Config, wanted: &Config) -> [usize; 2] {
        let set =
            |config: &Config| -> BTreeSet<IpNet> { config.networks.iter().copied().collect() };
        let (old, new) = (set(before), set(wanted));
        let origination = |prefix: &IpNet, on: bool| Origination {
            prefix: *prefix,
            path_id: NETWORK_PATH,
            attributes: on.then(|| own_attributes().octets().to_vec()),
        };
        let gone = old
            .difference(&new)
            .map(|prefix| origination(prefix, false));
        let come = new.difference(&old).map(|prefix| origination(prefix, true));
        let counts = [new.difference(&old).count(), old.difference(&new).count()];
        let changes: Vec<Origination> = gone.chain(come).collect();
        if !changes.is_empty() {
            self.bgp.originate(changes).await;
        }
        counts
    }
}

/// Groups that one configuration has and the other has not so.
fn other_groups(before: &Config, wanted: &Config) -> usize {
    let changed = |groups: &[Group], others: &[Group]| {
        let others: Vec<&Group> = others.iter().collect();
        let names = groups.iter().filter(|one| !others.contains(one));
        names.map(|one| one.name.clone()).collect::<BTreeSet<_>>()
    };
    let now = changed(&wanted.groups, &before.groups);
    let gone = changed(&before.groups, &wanted.groups);
    now.union(&gone).count()
}

/// Puts what does not change while a router runs back to what it is; says what that was.
pub(super) fn keep_fixed(now: &Config, wanted: &mut Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(now: &T, wanted: &mut T) -> bool {
        let differs = wanted != now;
        wanted.clone_from(now);
        differs
    }
    // What passes between neighbours of which nothing is said changes as neighbours do.
    let default_policy = wanted.router.default_policy;
    wanted.router.default_policy = now.router.default_policy;
    // Which labels are used changes with what the controller says, and which interfaces are the operator's as tenants do.
    let overlay = wanted.overlay.as_ref();
    let changes = overlay.map(|one| (one.unknown_origins, one.uplinks.clone()));
    if let (Some(now), Some(wanted)) = (&now.overlay, &mut wanted.overlay) {
        wanted.unknown_origins = now.unknown_origins;
        wanted.uplinks.clone_from(&now.uplinks);
    }
    let sections = [
        ("router", keep(&now.router, &mut wanted.router)),
        ("overlay", keep(&now.overlay, &mut wanted.overlay)),
        ("install", keep(&now.install, &mut wanted.install)),
        ("api", keep(&now.api, &mut wanted.api)),
        ("log", keep(&now.log, &mut wanted.log)),
    ];
    wanted.router.default_policy = default_policy;
    if let (Some(overlay), Some((unknown_origins, uplinks))) = (&mut wanted.overlay, changes) {
        (overlay.unknown_origins, overlay.uplinks) = (unknown_origins, uplinks);
    }
    let kept = sections.into_iter().filter(|(_, differs)| *differs);
    kept.map(|(section, _)| section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of labels without a word of the controller holds from a reload on; the rest of the overlay takes a restart.
    #[test]
    fn which_labels_are_used_changes_without_a_restart() {
        let config = |overlay: &str| {
            let text = format!(
                "router: {{ name: r, router_id: 192.0.2.1, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.1{overlay} }}"
            );
            Config::parse("test", &text).unwrap()
        };
        let now = config("");
        let mut wanted = config(", unknown_origins: accept, uplinks: [wan9]");
        let said = wanted.clone();
        assert_eq!(keep_fixed(&now, &mut wanted), [""; 0]);
        assert_eq!(wanted, said);
        let mut wanted = config(", unknown_origins: accept, uplinks: [wan9], probe_interval: 3");
        assert_eq!(keep_fixed(&now, &mut wanted), ["overlay"]);
        assert_eq!(wanted, said);
    }
}
