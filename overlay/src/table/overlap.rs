//! Tenants of other domains that a transit may hide (label-community.md, "Overlapping prefixes").

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::PathInput;
use crate::Vni;
use crate::label::{LabelCommunity, LabelKind};

/// A prefix that a tenant of our domain and a tenant of another have, learned over a session that carries one path of a
/// prefix: speakers on the way have to choose between the two, and somebody may see one tenant only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The prefix.
    pub prefix: IpNet,
    /// The neighbour that announced the other tenant's label.
    pub source: u16,
    /// VNI of the other tenant.
    pub vni: Vni,
}

/// The overlaps of now, and those that came up since they were last asked for.
#[derive(Default)]
pub(super) struct Overlaps {
    now: BTreeMap<IpNet, Overlap>,
    new: Vec<Overlap>,
}

impl Overlaps {
    /// All valid paths of a prefix; none where it is gone.
    pub(super) fn watch(&mut self, administrator: u32, prefix: IpNet, paths: &[PathInput<'_>]) {
        let found = find(administrator, prefix, paths);
        let before = match found {
            Some(overlap) => self.now.insert(prefix, overlap),
            None => self.now.remove(&prefix),
        };
        if before.is_none() {
            self.new.extend(found);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Overlap> {
        self.now.values().copied()
    }

    pub(super) fn take_new(&mut self) -> Vec<Overlap> {
        std::mem::take(&mut self.new)
    }
}

fn find(administrator: u32, prefix: IpNet, paths: &[PathInput<'_>]) -> Option<Overlap> {
    let inside = |path: &&PathInput<'_>| {
        path.preference.neighbor_as == 0 && path.preference.as_path_length == 0
    };
    let outside = |path: &&PathInput<'_>| path.preference.ebgp && !path.add_path;
    if !paths.iter().any(|path| inside(&path)) {
        return None;
    }
    let vnis = |path: &PathInput<'_>| {
        let labels = path.communities.iter();
        labels
            .filter_map(
                |community| match LabelCommunity::decode(*community, administrator)? {
                    Ok(LabelCommunity::Label(label)) if label.kind == LabelKind::Tenant => {
                        Some(label.vni)
                    }
                    _ => None,
                },
            )
            .collect::<Vec<Vni>>()
    };
    let ours: Vec<Vni> = paths.iter().filter(inside).flat_map(vnis).collect();
    paths
        .iter()
        .filter(outside)
        .flat_map(|path| vnis(path).into_iter().map(|vni| (path.source, vni)))
        .find(|(_, vni)| !ours.is_empty() && !ours.contains(vni))
        .map(|(source, vni)| Overlap {
            prefix,
            source,
            vni,
        })
}
