//! Which prefixes packets cannot be forwarded to, since the kernel refuses their routes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Actor, Refused};
use crate::model::RouteKey;
use crate::{DataplaneEvent, RefusedIn};

/// Refused routes by prefix, and what was told of them.
#[derive(Default)]
pub(super) struct Unforwardable {
    tables: BTreeMap<IpNet, BTreeSet<u32>>,
    /// Something may be otherwise than it was told.
    touched: BTreeSet<IpNet>,
    told: BTreeMap<IpNet, RefusedIn>,
}

impl Unforwardable {
    fn remove(&mut self, key: &RouteKey) {
        let Some(tables) = self.tables.get_mut(&key.prefix) else {
            return;
        };
        if tables.remove(&key.table) {
            self.touched.insert(key.prefix);
        }
        if tables.is_empty() {
            self.tables.remove(&key.prefix);
        }
    }
}

impl Actor {
    /// The kernel refuses a route.
    pub(super) fn refuse(&mut self, key: RouteKey, refused: Refused) {
        let taken = refused.taken;
        self.refused.insert(key, refused);
        if taken {
            return self.unforwardable.remove(&key);
        }
        let unforwardable = &mut self.unforwardable;
        let tables = unforwardable.tables.entry(key.prefix).or_default();
        if tables.insert(key.table) {
            unforwardable.touched.insert(key.prefix);
        }
    }

    /// It does no longer, or the route is another one.
    pub(super) fn forget_refusal(&mut self, key: &RouteKey) {
        if self.refused.remove(key).is_some() {
            self.unforwardable.remove(key);
        }
    }

    /// Tells what has come to be so, or no longer is, since this was done last.
    pub(super) fn tell_unforwardable(&mut self) {
        let mut news = Vec::new();
        for prefix in std::mem::take(&mut self.unforwardable.touched) {
            let tables = self.unforwardable.tables.get(&prefix);
            let tables = tables.map(|tables| self.refused_in(tables));
            let told = &mut self.unforwardable.told;
            if told.get(&prefix) == tables.as_ref() {
                continue;
            }
            match &tables {
                Some(tables) => told.insert(prefix, tables.clone()),
                None => told.remove(&prefix),
            };
            news.push((prefix, tables));
        }
        if !news.is_empty() {
            self.news.push(DataplaneEvent::Refused(news));
        }
    }

    fn refused_in(&self, tables: &BTreeSet<u32>) -> RefusedIn {
        let main = u32::from(libc::RT_TABLE_MAIN);
        let tenants = tables.iter().filter_map(|table| self.by_table.get(table));
        let tenants = tenants.filter_map(|id| self.tenants.get(id));
        RefusedIn {
            main: tables.contains(&main),
            vnis: tenants.flat_map(|one| &one.intent.vnis).copied().collect(),
        }
    }
}
