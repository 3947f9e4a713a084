//! Numbered things: numbers are given again after their things are gone, memory is never moved.

/// Things allocated together.
const CHUNK: usize = 4096;

pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// One more than the highest number given.
    pub(crate) fn bound(&self) -> u32 {
        match self.chunks.split_last() {
            Some((last, full)) => (full.len() * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    /// Gives a number below `limit`; `None` where all are taken.
    #[inline]
    pub(crate) fn insert(&mut self, value: T, limit: usize) -> Option<u32> {
        if let Some(at) = self.free.pop() {
            self.chunks[at as usize / CHUNK][at as usize % CHUNK] = Some(value);
            return Some(at);
        }
        let at = self.bound();
        if at as usize >= limit {
            return None;
        }
        if (at as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[at as usize / CHUNK].push(Some(value));
        Some(at)
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.chunks
            .get(at as usize / CHUNK)?
            .get(at as usize % CHUNK)?
            .as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.chunks
            .get_mut(at as usize / CHUNK)?
            .get_mut(at as usize % CHUNK)?
            .as_mut()
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self
            .chunks
            .get_mut(at as usize / CHUNK)?
            .get_mut(at as usize % CHUNK)?
            .take()?;
        self.free.push(at);
        Some(value)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for (at, value) in (0..).zip(self.chunks.iter_mut().flatten()) {
            if value.as_ref().is_some_and(|value| !keep(value)) {
                *value = None;
                self.free.push(at);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(self.chunks.iter().flatten())
            .filter_map(|(at, value)| Some((at, value.as_ref()?)))
    }
}
