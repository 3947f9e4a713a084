//! Routes by key, counted by table: a million of them are not walked through to say how many there are.

use rustc_hash::FxHashMap;

use crate::model::{RouteKey, RouteSpec};

#[derive(Default)]
pub(super) struct Routes {
    all: FxHashMap<RouteKey, RouteSpec>,
    in_table: FxHashMap<u32, usize>,
}

impl Routes {
    pub(super) fn insert(&mut self, key: RouteKey, spec: RouteSpec) -> Option<RouteSpec> {
        let before = self.all.insert(key, spec);
        if before.is_none() {
            *self.in_table.entry(key.table).or_default() += 1;
        }
        before
    }

    pub(super) fn remove(&mut self, key: &RouteKey) -> Option<RouteSpec> {
        let before = self.all.remove(key)?;
        if let Some(count) = self.in_table.get_mut(&key.table) {
            *count -= 1;
            if *count == 0 {
                self.in_table.remove(&key.table);
            }
        }
        Some(before)
    }

    pub(super) fn get(&self, key: &RouteKey) -> Option<&RouteSpec> {
        self.all.get(key)
    }

    pub(super) fn contains_key(&self, key: &RouteKey) -> bool {
        self.all.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &RouteKey> {
        self.all.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RouteKey, &RouteSpec)> {
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are in a table.
    pub(super) fn in_table(&self, table: u32) -> usize {
        self.in_table.get(&table).copied().unwrap_or(0)
    }
}

impl FromIterator<(RouteKey, RouteSpec)> for Routes {
    fn from_iter<T: IntoIterator<Item = (RouteKey, RouteSpec)>>(routes: T) -> Self {
        let mut all = Self::default();
        for (key, spec) in routes {
            all.insert(key, spec);
        }
        all
    }
}
