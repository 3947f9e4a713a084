//! Routing policy: which routes pass between a neighbour and the RIB, and what is changed on them.
//!
//! A [`Policy`] is an ordered list of [`Term`]s. A term says which routes it is about, what it sets on them, and whether they are accepted,
//! rejected, or go on to the next term; the terms of a policy that it calls stand in its place. A [`Program`] is what a neighbour has in one
//! direction: its policies one behind the other, compiled. What reaches the end of a program is rejected.
//!
//! Most conditions look at the attributes, which many routes share; only prefix lists look at the prefix. So a program is run once for each
//! set of attributes ([`Decisions`]), up to where a prefix list has to be asked; from there it goes on when the first prefix answers yes or
//! no, and remembers what came of it. Of a route whose attributes are known there remain the look-ups in prefix lists ([`PrefixSet`]),
//! and of a program without such lists nothing at all.
//!
//! | module | what it is |
//! |---|---|
//! | `term` | policies as they are written: conditions, edits, what follows |
//! | `prefix` | prefix lists |
//! | `as_path` | AS paths by regular expressions, AS numbers by ranges |
//! | `program` | policies compiled, and run |
//! | `decisions` | what a program comes to for one set of attributes |
//! | `well_known` | policies and lists that every operator needs |

mod as_path;
mod decisions;
mod prefix;
mod program;
mod term;
#[cfg(test)]
mod tests;
pub mod well_known;

pub use as_path::{AsPathError, AsPathPattern, AsPathTest};
pub use decisions::{Decisions, Leaf, LeafId, RootId};
pub use prefix::{PrefixRange, PrefixSet};
pub use program::{
    Change, MAX_TERMS, Program, ProgramError, Route, RoutePolicy, Scratch, TermName,
};
pub use term::{
    CommunityTest, Condition, Conditions, Edit, LargeTest, NextHopEdit, NumberSet, Policy, Source,
    Term, Then,
};
