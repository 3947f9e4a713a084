//! What the overlay has to say when BGP announces a route.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp::rib::{ExportContext, ExportHook, PeerKind, PlainBgp, Stripped};
use weft_bgp_wire::{AttributesBuilder, AttributesView, LargeCommunity};
use weft_overlay::export::{
    Direction, ExportSettings, LocalNextHopMode, OwnLabels, Rewrite, Usable, join, restrict,
    rewrite, usable,
};
use weft_overlay::import::ImportPolicy;
use weft_overlay::label::{Endpoint, Label, leads_to_any, names_these_alone};
use weft_overlay::origins::Origins;
use weft_overlay::table::Overlay;
use weft_overlay::{EndpointId, Vni, VniSet};

use crate::config::{Config, LocalNextHop, Neighbor};

/// Whom a class is for alone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Neighbor(IpAddr),
    /// The dynamic neighbours of a group.
    Group(Option<Arc<str>>),
}

/// Neighbours that are treated alike have one class: those of one export class are sent the same octets, encoded once.
/// A class is never another one: a neighbour that stays as it is keeps its own.
#[derive(Clone)]
pub(super) struct Classes {
    import: Vec<ImportPolicy>,
    export: Vec<(ExportSettings, Option<Owner>)>,
    /// What each export class is told of, where that is not everything. Such a class is one neighbour's, so that it stays the same one
    /// when that changes: with another class the session would begin anew.
    announce: Vec<Option<VniSet>>,
}

impl Classes {
    /// Class 0, of our own routes, accepts and keeps everything.
    pub(super) fn new() -> Self {
        Self {
            import: vec![ImportPolicy::everything()],
            export: vec![(
                ExportSettings {
                    local_next_hop: None,
                    strip_overlay: false,
                },
                None,
            )],
            announce: vec![None],
        }
    }

    /// Import and export class of a neighbour.
    pub(super) fn of(&mut self, neighbor: &Neighbor) -> (u32, u32) {
        let settings = ExportSettings {
            local_next_hop: neighbor.local_next_hop.map(|mode| match mode {
                LocalNextHop::Own => LocalNextHopMode::Self_,
                LocalNextHop::Keep => LocalNextHopMode::Keep,
                LocalNextHop::Strip => LocalNextHopMode::Strip,
            }),
            strip_overlay: neighbor.strip_overlay,
        };
        let announce = &neighbor.announce_vnis;
        let announce = (*announce != VniSet::all()).then(|| announce.clone());
        let owner = match neighbor.address.is_unspecified() {
            false => Owner::Neighbor(neighbor.address),
            true => Owner::Group(neighbor.group.clone()),
        };
        let own = announce.as_ref().map(|_| owner);
        let export = class(&mut self.export, &(settings, own));
        self.announce.resize(self.export.len(), None);
        self.announce[export as usize] = announce;
        (class(&mut self.import, &neighbor.import_policy()), export)
    }
}

fn class<T: Clone + PartialEq>(known: &mut Vec<T>, settings: &T) -> u32 {
    let at = known.iter().position(|one| one == settings);
    at.unwrap_or_else(|| {
        known.push(settings.clone());
        known.len() - 1
    }) as u32
}

/// Rewrites label communities by each neighbour's settings.
pub(super) struct LabelHook {
    own: OwnLabels,
    /// VNIs that this router keeps a table for.
    tables: VniSet,
    /// What is accepted, and how labels go out.
    classes: Classes,
    /// Import classes that lose something: that is asked once an UPDATE.
    strips: Vec<bool>,
    /// Far ends that are not reached.
    unreached: BTreeSet<Endpoint>,
    /// Endpoint ids that have an address.
    known: BTreeSet<EndpointId>,
    /// Which labels may lead where they do, where a controller says so.
    origins: Option<Arc<Origins>>,
}

impl LabelHook {
    /// The hook of this configuration.
    pub(super) fn boxed(
        config: &Config,
        overlay: &Overlay,
        classes: &Classes,
    ) -> Box<dyn ExportHook> {
        let (tables, known) = (overlay.tables(), overlay.known_ids());
        let unreached = overlay.unreached();
        let origins = overlay.origins().cloned();
        let Some(overlay) = &config.overlay else {
            return Box::new(PlainBgp);
        };
        let own = OwnLabels {
            administrator: overlay.global_administrator,
            endpoint: overlay.endpoint,
            id: EndpointId(config.router.router_id.0),
            encapsulation: overlay.encapsulation,
        };
        let tenants = config
            .tenants
            .iter()
            .flat_map(|tenant| tenant.vnis.iter().chain([&tenant.vni]));
        let tables = tables.union(&VniSet::from_ranges(tenants.map(|vni| (*vni, *vni))));
        Box::new(Self {
            own,
            tables,
            strips: classes.import.iter().map(ImportPolicy::strips).collect(),
            classes: classes.clone(),
            unreached,
            known,
            origins,
        })
    }

    /// This router accepts the label from where the route came from, and keeps a table for it.
    fn forwards(&self, import_class: u32, vni: Vni) -> bool {
        self.tables.contains(vni)
            && self
                .classes
                .import
                .get(import_class as usize)
                .is_some_and(|policy| policy.vnis.contains(vni))
    }

    fn rewrite(&self, context: &ExportContext, communities: &[LargeCommunity]) -> Rewrite {
        let Some((settings, _)) = self.classes.export.get(context.export_class as usize) else {
            return Rewrite::Unchanged;
        };
        let direction = Direction {
            from_ebgp: context.source == Some(PeerKind::Ebgp),
            own: context.source.is_none(),
            to_ebgp: context.target == PeerKind::Ebgp,
        };
        let forwards = |vni| self.forwards(context.import_class, vni);
        // What others send to us at our own endpoint is no way on.
        let own = self.own.named();
        let dead = |endpoint| match endpoint {
            endpoint if endpoint == own => !direction.own,
            Endpoint::Id(id) if !self.known.contains(&id) => true,
            _ => self.unreached.contains(&endpoint),
        };
        let administrator = self.own.administrator;
        // Between domains nothing is passed on that is not used. Inside each router looks for itself.
        let crosses = !direction.own && (direction.from_ebgp || direction.to_ebgp);
        let origins = self.origins.as_ref().filter(|_| crosses);
        let left = if origins.is_some()
            || leads_to_any(communities.iter().copied(), administrator, dead)
        {
            let permitted = |label: &Label, via| {
                origins.is_none_or(|one| one.judge(label, via, direction.from_ebgp).permitted())
            };
            let leads =
                |label: &Label, via| permitted(label, via) && (!dead(via) || !forwards(label.vni));
            usable(communities, &self.own, settings, direction, &leads)
        } else {
            Usable::All
        };
        match left {
            Usable::All => rewrite(communities, &self.own, settings, direction, &forwards),
            Usable::Some(left) => match rewrite(&left, &self.own, settings, direction, &forwards) {
                Rewrite::Unchanged => Rewrite::Replaced(left),
                rewritten => rewritten,
            },
            Usable::Nothing => Rewrite::Reject,
        }
    }
}

impl ExportHook for LabelHook {
    fn has_labels_of_these_alone(
        &self,
        attributes: AttributesView<'_>,
        vnis: &BTreeSet<u32>,
    ) -> bool {
        let communities = attributes.large_communities();
        names_these_alone(communities, self.own.administrator, |vni| {
            vnis.contains(&vni.get())
        })
    }

    fn strips(&self, import_class: u32) -> bool {
        // A class that nobody knows may say nothing.
        let strips = self.strips.get(import_class as usize);
        strips.is_none_or(|strips| *strips)
    }

    fn import(
        &self,
        import_class: u32,
        prefixes: &mut dyn Iterator<Item = IpNet>,
        edit: &mut AttributesBuilder,
    ) -> Stripped {
        let nothing = ImportPolicy {
            vnis: VniSet::none(),
            ..ImportPolicy::everything()
        };
        let policy = self.classes.import.get(import_class as usize);
        let communities: Vec<LargeCommunity> = edit.view().large_communities().collect();
        let left = policy
            .unwrap_or(&nothing)
            .strip(&communities, self.own.administrator, prefixes);
        let Some((kept, stripped)) = left else {
            return Stripped::default();
        };
        edit.set_large_communities(kept);
        Stripped {
            vni: stripped.vni,
            kind: stripped.kind,
            endpoint: stripped.endpoint,
        }
    }

    fn export(
        &self,
        context: &ExportContext,
        attributes: AttributesView<'_>,
        edit: &mut AttributesBuilder,
    ) -> bool {
        let communities: Vec<LargeCommunity> = attributes.large_communities().collect();
        if communities.is_empty() {
            return true;
        }
        match self.rewrite(context, &communities) {
            Rewrite::Unchanged => true,
            Rewrite::Replaced(communities) => {
                edit.set_large_communities(communities);
                true
            }
            Rewrite::Reject => false,
        }
    }

    fn join(
        &self,
        others: &mut dyn Iterator<Item = (ExportContext, AttributesView<'_>)>,
        edit: &mut AttributesBuilder,
    ) {
        let mut labels = Vec::new();
        for (context, attributes) in others {
            let communities: Vec<LargeCommunity> = attributes.large_communities().collect();
            match self.rewrite(&context, &communities) {
                Rewrite::Unchanged => labels.extend(communities),
                Rewrite::Replaced(communities) => labels.extend(communities),
                Rewrite::Reject => {}
            }
        }
        let joined = join(
            edit.view().large_communities(),
            labels,
            self.own.administrator,
        );
        edit.set_large_communities(joined);
    }

    fn restrict(&self, context: &ExportContext, edit: &mut AttributesBuilder) -> bool {
        let announced = self.classes.announce.get(context.export_class as usize);
        let Some(Some(announced)) = announced else {
            return true;
        };
        let before: Vec<LargeCommunity> = edit.view().large_communities().collect();
        let Some(kept) = restrict(&before, announced, self.own.administrator) else {
            return false;
        };
        if kept != before {
            edit.set_large_communities(kept);
        }
        true
    }
}
