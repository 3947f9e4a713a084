//! Services of tenants, and the chains that lead their packets through them.
//!
//! | module | what it is |
//! |---|---|
//! | [`records`] | what is kept of them |
//! | [`operations`] | what may be changed, and how |
//! | [`view`] | what a router is told of them |

pub mod operations;
pub mod records;
pub mod view;
