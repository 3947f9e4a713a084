//! What domains tell each other. Each is the authority for its own records: what another one says of itself is kept beside, at that
//! one's revision, and nobody changes it here.
//!
//! | module | what it is |
//! |---|---|
//! | [`records`] | whom a domain trusts, what it shares, what others say of themselves |
//! | [`operations`] | the decisions of an operator, and taking in what another domain says |
//! | [`public`] | what another domain sees of this one |
//! | [`peers`] | what an edge is told of other domains' edges |
//! | [`introduction`] | what one operator gives the other |

pub mod introduction;
pub mod operations;
pub mod peers;
pub mod public;
pub mod records;

#[doc(inline)]
pub use self::introduction::Introduction;
