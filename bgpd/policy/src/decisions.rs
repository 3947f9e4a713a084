//! What a program comes to for sets of attributes: trees of prefix lists to ask, grown as prefixes ask.

use ipnet::IpNet;

use crate::program::{Matched, Program, Route, Scratch, State, Step};

/// Trees of one program, each for one set of attributes. `T` is what the owner wants to remember of a route that has been decided.
pub struct Decisions<T> {
    nodes: Vec<Node<T>>,
}

impl<T> Default for Decisions<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

/// The tree of one set of attributes; valid until [`Decisions::clear`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootId(u32);

/// Where a tree ends; valid until [`Decisions::clear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafId(u32);

enum Node<T> {
    /// Nobody has come here.
    Open(State),
    /// This prefix list decides: where it contains the prefix, the next of the two.
    Ask {
        set: u16,
        next: u32,
    },
    Leaf(Leaf<T>),
}

/// What became of routes.
#[derive(Clone, Debug)]
pub struct Leaf<T> {
    accepted: bool,
    matched: Matched,
    hits: u32,
    /// What its owner remembers of it.
    pub value: Option<T>,
}

impl<T> Leaf<T> {
    /// They pass.
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Counts a route that ended here.
    #[inline]
    pub fn hit(&mut self) {
        self.hits += 1;
    }

    /// The numbers of the terms that they were in, in order.
    pub fn terms(&self) -> &[u16] {
        &self.matched
    }
}

impl<T> Decisions<T> {
    /// The tree of a set of attributes.
    pub fn add(&mut self) -> RootId {
        self.nodes.push(Node::Open(State::default()));
        RootId(self.nodes.len() as u32 - 1)
    }

    /// What becomes of a prefix with the attributes of `root`, which `route` gives where that is not known yet.
    #[inline]
    pub fn decide<'a>(
        &mut self,
        root: RootId,
        program: &Program,
        scratch: &mut Scratch,
        prefix: &IpNet,
        route: impl Fn() -> Route<'a>,
    ) -> LeafId {
        let mut at = root.0 as usize;
        loop {
            match &mut self.nodes[at] {
                Node::Ask { set, next } => {
                    let inside = program.set(*set).contains(prefix);
                    at = *next as usize + usize::from(!inside);
                }
                Node::Leaf(_) => return LeafId(at as u32),
                Node::Open(state) => {
                    let state = std::mem::take(state);
                    let step = program.advance(state, &route(), scratch);
                    self.grow(at, step);
                }
            }
        }
    }

    /// What [`Decisions::decide`] came to.
    #[inline]
    pub fn leaf(&mut self, id: LeafId) -> &mut Leaf<T> {
        match &mut self.nodes[id.0 as usize] {
            Node::Leaf(leaf) => leaf,
            Node::Open(_) | Node::Ask { .. } => unreachable!("a leaf stays one"),
        }
    }

    fn grow(&mut self, at: usize, step: Step) {
        self.nodes[at] = match step {
            Step::Done(accepted, matched) => Node::Leaf(Leaf {
                accepted,
                matched,
                hits: 0,
                value: None,
            }),
            Step::Ask(set, yes, no) => {
                let next = self.nodes.len() as u32;
                self.nodes.push(Node::Open(yes));
                self.nodes.push(Node::Open(no));
                Node::Ask { set, next }
            }
        };
    }

    /// Adds to `counts`, by the number of the term, how many routes that were counted were in each since this was last called.
    pub fn count(&mut self, counts: &mut [u64]) {
        for node in &mut self.nodes {
            if let Node::Leaf(leaf) = node {
                let hits = u64::from(std::mem::take(&mut leaf.hits));
                for term in leaf.matched.iter().filter(|_| hits > 0) {
                    if let Some(count) = counts.get_mut(usize::from(*term)) {
                        *count += hits;
                    }
                }
            }
        }
    }

    /// Forgets everything; what owners remembered comes out.
    pub fn clear(&mut self) -> impl Iterator<Item = T> {
        self.nodes.drain(..).filter_map(|node| match node {
            Node::Leaf(leaf) => leaf.value,
            Node::Open(_) | Node::Ask { .. } => None,
        })
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
